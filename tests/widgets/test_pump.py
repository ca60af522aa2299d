"""The one thread that writes to a view."""

import contextvars
import gc
import threading
import time
import weakref

import pytest

from kernelevolve_lab.widgets.pump import SLOWEST, Pump

CELL = contextvars.ContextVar("cell", default="none")


class Owner:
    def __init__(self, work=lambda: None, rounds: int = 10**9) -> None:
        self.ticks, self.work, self.rounds = [], work, rounds

    def tick(self) -> bool:
        self.ticks.append((threading.current_thread().name, CELL.get()))
        self.work()
        return len(self.ticks) < self.rounds


def until(condition, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


@pytest.fixture
def pumps():
    made = []
    yield made
    for pump in made:
        pump.stop()


def make(pumps, owner, period=0.01) -> Pump:
    pumps.append(Pump(owner, Owner.tick, period))
    return pumps[-1]


def test_it_ticks_in_the_context_it_was_made_in(pumps):
    CELL.set("the first cell")
    owner = Owner(rounds=3)
    pump = make(pumps, owner)
    CELL.set("a later cell")
    pump.start()
    until(lambda: not pump.alive)
    assert owner.ticks == [("kel-ui", "the first cell")] * 3
    assert threading.current_thread().name not in {name for name, _ in owner.ticks}


def test_starting_twice_makes_one_thread(pumps):
    before = threading.active_count()
    owner = Owner()
    pump = make(pumps, owner)
    for _ in range(5):
        pump.start()
    assert threading.active_count() == before + 1


def test_waking_does_not_wait_for_the_period(pumps):
    owner = Owner()
    pump = make(pumps, owner, period=60)
    pump.start()
    until(lambda: owner.ticks)
    pump.wake()
    until(lambda: len(owner.ticks) == 2)


def test_stopping_ends_it_for_good(pumps):
    owner = Owner()
    pump = make(pumps, owner)
    pump.start()
    pump.stop()
    assert not pump.alive
    pump.start()
    assert not pump.alive


def test_a_forgotten_owner_ends_it(pumps):
    owner = Owner()
    ticks = owner.ticks
    pump = make(pumps, owner, period=60)
    pump.start()
    until(lambda: ticks)
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    until(lambda: not pump.alive)
    assert gone() is None


def test_it_backs_off_and_recovers():
    pump = Pump(Owner(), Owner.tick, 0.25)
    periods = []
    for took in (0.2, 0.4, 0.9, 1.9, 3.0):
        pump._pace(took)
        periods.append(pump.period)
    assert periods == [0.5, 1.0, SLOWEST, SLOWEST, SLOWEST]
    for _ in range(40):
        pump._pace(0.001)
    assert pump.period == 0.25


def test_an_error_is_kept(pumps):
    def fail():
        raise RuntimeError("broken")

    owner = Owner(fail)
    pump = make(pumps, owner)
    hook, threading.excepthook = threading.excepthook, lambda args: None
    try:
        pump.start()
        until(lambda: pump.error is not None)
    finally:
        threading.excepthook = hook
    assert str(pump.error) == "broken"
