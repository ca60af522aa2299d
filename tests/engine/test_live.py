"""Replies on their way: shown while they arrive, gone when they are whole, never in the log."""

import threading
import time

from scripted_endpoint import Say, serving
from test_chat_search import PATIENCE, begin, source

from kernelevolve_lab.engine import live
from kernelevolve_lab.store import Store


def test_pieces_are_kept_to_their_end():
    board = live.open_board("a run")
    emit = board.begin(3, ("abc",))
    for _ in range(10_000):
        emit("0123456789")
    (reply,) = live.writing("a run")
    assert (reply.index, reply.parents, reply.characters) == (3, ("abc",), 100_000)
    assert reply.text == "0123456789" * (live.TAIL // 10)
    board.end(3)
    assert live.writing("a run") == ()
    emit("too late")
    del board
    assert live.writing("a run") == ()


def test_many_writers_at_once():
    board = live.open_board("busy")
    emitters = [board.begin(index, ()) for index in range(8)]

    def write(emit):
        for _ in range(2_000):
            emit("x")

    threads = [threading.Thread(target=write, args=(emit,)) for emit in emitters]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(board.snapshot()) == 8
    assert [reply.characters for reply in board.snapshot()] == [2_000] * 8


def test_a_search_shows_replies_as_they_arrive_and_logs_none_of_the_pieces(store: Store):
    text = f"TITLE: slow\n\nA plan.\n\n```cpp\n{source(1, 1.5)}```\n"
    with serving(Say(text, piece=5, pause=0.02)) as endpoint:
        run = begin(store, endpoint.url, budget={"candidates": 1}, concurrency=1)
        seen = []
        ends = time.monotonic() + PATIENCE
        while run.state.judged < 1 and time.monotonic() < ends:
            seen += [reply.text for reply in run.writing]
            time.sleep(0.02)
        assert run.wait(PATIENCE)
    parts = {shown for shown in seen if shown and shown != text}
    assert len(parts) > 5 and all(text.startswith(part) for part in parts)
    assert run.writing == ()
    assert len(run.events()) < 30, "not an event a piece"
