"""Who may measure, who may build, and when."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest

from kernelevolve_lab.harness.locks import Cancelled, MachineLock


def test_builds_run_together_and_measurements_alone(tmp_path):
    lock, together, alone = MachineLock(tmp_path), threading.Barrier(3, timeout=5), []

    def build() -> None:
        with lock.building():
            together.wait()  # passes only if all three hold it at once

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def measure() -> None:
        with lock.measuring():
            alone.append("in")
            time.sleep(0.01)
            alone.append("out")

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alone == ["in", "out"] * 4


def test_a_stream_of_builds_does_not_keep_a_measurement_out(tmp_path):
    lock, stop = MachineLock(tmp_path), threading.Event()

    def build() -> None:
        while not stop.is_set():
            with lock.building():
                time.sleep(0.02)

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    with lock.measuring(lambda: False):
        pass
    stop.set()
    for thread in threads:
        thread.join()


def _hold(folder, ready, done) -> None:
    with MachineLock(folder).measuring():
        ready.set()
        done.wait()


def test_another_process_is_waited_for_and_its_death_frees_the_lock(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, done))
    other.start()
    assert ready.wait(30)
    asked = iter([False, True])
    lock = MachineLock(tmp_path)
    with pytest.raises(Cancelled), lock.measuring(lambda: next(asked)):
        pass
    other.kill()
    other.join()
    with lock.measuring():
        pass
