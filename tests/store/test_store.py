"""The store against real SQLite files, with real processes."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st

import kernelevolve_lab.store as store_package
from kernelevolve_lab.errors import RunBusy, StoreError, UnknownName
from kernelevolve_lab.records import Candidate, Evaluation, Evidence, OperatorRef, Ratio, RunConfig, Verdict, events
from kernelevolve_lab.store import RUN_ID, Store, lease
from kernelevolve_lab.store.migrations import HEAD
from kernelevolve_lab.store.payload import EXTERNAL, decode, encode, references
from kernelevolve_lab.store.schema import METADATA

CONFIG = RunConfig(operator=OperatorRef(kind="registered", name="rms_norm", text="rms_norm"), target="cpu", language="cpp")


@pytest.fixture
def store(tmp_path: Path):
    opened = Store.open(f"sqlite:///{tmp_path / 'lab.db'}")
    yield opened
    opened.close()


def python(code: str, *args: str) -> subprocess.Popen:
    """Another process that runs this code; its standard output can be read line by line."""
    return subprocess.Popen([sys.executable, "-u", "-c", textwrap.dedent(code), *args], stdout=subprocess.PIPE, text=True)


def proposed(source: str = "int x;", **more) -> events.CandidateProposed:
    return events.CandidateProposed(candidate=Candidate(language="cpp", source=source), **more)


# Events


def test_what_was_appended_is_read_back_in_order_also_by_another_store(store: Store) -> None:
    run = store.create_run(CONFIG, "RMSNorm", {"python": "3.11"})
    logged = [store.append(run, events.Noted(text=f"line {n}")) for n in range(5)]
    assert [item.seq for item in logged] == [2, 3, 4, 5, 6]
    other = Store.open(store.url)
    assert other.read(run)[1:] == logged
    assert other.read(run, after=3, limit=2) == logged[2:4]
    assert other.state(run) == store.state(run)


def test_a_run_id_is_readable_and_safe(store: Store) -> None:
    odd = CONFIG.model_copy(update={"operator": OperatorRef(kind="task", name="../my op: " + "x" * 99, text="")})
    first, second = store.create_run(CONFIG, "a"), store.create_run(odd, "b")
    assert first.startswith("rms_norm-20") and RUN_ID.fullmatch(first)
    assert RUN_ID.fullmatch(second)
    with pytest.raises(StoreError, match="cannot be the id of a run"):
        store.insert_run("../x", [(0.0, events.RunStarted(config=CONFIG, title=""))])


def test_several_events_stand_or_fall_together(store: Store) -> None:
    run = store.create_run(CONFIG, "a")
    broken = events.Noted.model_construct(text="\ud800")  # cannot be encoded, as a record that was checked always can
    with pytest.raises(ValueError):
        store.append_all(run, [events.Noted(text="first"), broken])
    assert len(store.read(run)) == 1
    assert store.append(run, events.Noted(text="next")).seq == 2


def test_long_texts_live_in_blobs_and_come_back(store: Store) -> None:
    run = store.create_run(CONFIG, "a")
    long = "ü" * EXTERNAL
    event = proposed(long, prompt=long, reply="short")
    store.append(run, event)
    assert store.read(run)[-1].event == event
    payload = sqlite3.connect(store._engine.url.database).execute("SELECT payload FROM events WHERE seq = 2").fetchone()[0]
    assert len(payload) < EXTERNAL
    assert len(references(payload)) == 1  # source and prompt are the same text


texts = st.text(st.characters(exclude_categories=["Cs"]))
keys = texts | st.sampled_from(["$blob", "$$blob", "$", "blob"])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(keys, st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | texts), texts, st.integers(0, 3))
def test_every_event_survives_storing(knobs: dict, text: str, repeat: int) -> None:
    candidate = Candidate(language="cpp", source=text * EXTERNAL * repeat, knobs=knobs, notes=text)
    event = events.CandidateProposed(candidate=candidate, prompt=text * 3)
    stored, blobs = encode(event)
    assert references(stored) == set(blobs)
    restored = decode(stored, blobs)
    assert restored.model_dump_json() == event.model_dump_json()  # by text: NaN is not equal to itself


def test_text_cannot_pose_as_a_reference_to_a_blob(store: Store) -> None:
    secret = store.put_blob(b"secret")
    run = store.create_run(CONFIG.model_copy(update={"options": {"$blob": secret}}), "a")
    assert store.read(run)[0].event.config.options == {"$blob": secret}


def test_blobs_are_kept_once_by_content(store: Store) -> None:
    digest = store.put_blob(b"x" * 100_000)
    assert store.put_blob(b"x" * 100_000) == digest
    assert store.get_blob(digest) == b"x" * 100_000
    with pytest.raises(UnknownName, match="no blob"):
        store.get_blob("0" * 64)


def test_a_damaged_event_is_named(store: Store) -> None:
    run = store.create_run(CONFIG, "a")
    with sqlite3.connect(store._engine.url.database) as raw:
        raw.execute('UPDATE events SET payload = \'{"kind": "nonsense"}\'')
    with pytest.raises(StoreError, match=f"damaged event in run {run}"):
        store.state(run)


def test_two_processes_and_many_threads_append_to_one_run(store: Store) -> None:
    run = store.create_run(CONFIG, "a")
    code = """
        import sys, threading
        from kernelevolve_lab.store import Store
        from kernelevolve_lab.records.events import Noted
        store = Store.open(sys.argv[1])
        def write(thread):
            for n in range(25):
                store.append(sys.argv[2], Noted(text=f"{sys.argv[3]}/{thread}/{n}"))
        threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
        [t.start() for t in threads]; [t.join() for t in threads]
    """
    processes = [python(code, store.url, run, name) for name in "ab"]
    mine = [threading.Thread(target=lambda: [store.append(run, events.Noted(text="mine")) for _ in range(25)]) for _ in range(2)]
    for thread in mine:
        thread.start()
    for thread in mine:
        thread.join()
    assert [process.wait(60) for process in processes] == [0, 0]
    log = store.read(run)
    assert [item.seq for item in log] == list(range(1, 252))
    said = [item.event.text for item in log[1:]]
    assert said.count("mine") == 50 and len(set(said)) == 201
    for writer in ("a/0/", "b/3/"):
        assert [text for text in said if text.startswith(writer)] == [f"{writer}{n}" for n in range(25)]
    assert store.state(run).seq == 251


def test_what_append_returned_for_survives_kill(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    code = """
        import sys
        from kernelevolve_lab.store import Store
        from kernelevolve_lab.records.events import Noted
        store = Store.open(sys.argv[1])
        while True:
            print(store.append(sys.argv[2], Noted(text="x" * 5000)).seq)
    """
    run = Store.open(url).create_run(CONFIG, "a")
    acknowledged = 1
    for _ in range(3):
        process = python(code, url, run)
        for _ in range(20):
            acknowledged = int(process.stdout.readline())
        process.kill()
        rest = process.stdout.read().split()
        acknowledged = int(rest[-1]) if rest else acknowledged
        process.wait()
        kept = Store.open(url).read(run)
        assert [item.seq for item in kept] == list(range(1, len(kept) + 1))
        assert acknowledged <= len(kept) <= acknowledged + 1


# Listing


def test_runs_are_listed_newest_first_with_what_became_of_them(store: Store) -> None:
    finished, interrupted, driven, failed = (store.create_run(CONFIG, f"Run {n}") for n in range(4))
    made = proposed("fast")
    ratio = Ratio(value=2.0, low=1.9, high=2.1, baseline="torch.compile")
    found = Evaluation(
        candidate=made.candidate.id, target="cpu", language="cpp", verdict=Verdict.CORRECT, evidence=Evidence.MEASURED, speedup=ratio
    )
    store.append_all(finished, [made, events.EvaluationFinished(evaluation=found), events.RunEnded(outcome="finished", reason="done")])
    store.append(interrupted, made)
    store.append(failed, events.RunEnded(outcome="failed", reason="no compiler"))
    with store.drive(driven):
        listed = {summary.id: summary for summary in Store.open(store.url).runs()}
        assert list(listed) == [failed, driven, interrupted, finished]
        assert {key: summary.status for key, summary in listed.items()} == {
            finished: "finished", interrupted: "interrupted", driven: "running", failed: "failed",
        }  # fmt: skip
    best = listed[finished]
    assert (best.candidates, best.judged, best.best, best.speedup, best.baseline) == (1, 1, made.candidate.id, 2.0, "torch.compile")
    assert listed[interrupted].candidates == 1 and listed[interrupted].speedup is None
    assert listed[failed].reason == "no compiler"


def test_a_summary_is_worked_out_anew_when_the_run_has_gone_on(store: Store) -> None:
    run = store.create_run(CONFIG, "a")
    assert [store.runs()[0].candidates for _ in range(2)] == [0, 0]
    store.append(run, proposed("one"))
    assert Store.open(store.url).runs()[0].candidates == 1


def test_a_run_is_found_by_a_prefix_that_only_it_has(store: Store) -> None:
    store.insert_run("alpha-1", [(0.0, events.RunStarted(config=CONFIG, title=""))])
    store.insert_run("alpha-12", [(0.0, events.RunStarted(config=CONFIG, title=""))])
    store.insert_run("beta_1", [(0.0, events.RunStarted(config=CONFIG, title=""))])
    assert store.find("beta") == "beta_1"
    assert store.find("alpha-1") == "alpha-1"
    with pytest.raises(UnknownName, match="fits several runs"):
        store.find("alpha")
    for unknown in ("alpa-1", "", "%", "betaX"):
        with pytest.raises(UnknownName, match="There is no run"):
            store.find(unknown)
    for call in (store.state, store.read, store.drive, store.is_imported, lambda run: store.append(run, events.Noted(text="x"))):
        with pytest.raises(UnknownName, match="the nearest: alpha-1"):
            call("alpha-13")


# The drive lease


def test_one_drives_and_others_hear_who(store: Store) -> None:
    run = store.create_run(CONFIG, "a")
    with store.drive(run):
        assert store.is_driven(run)
        with pytest.raises(RunBusy, match="already being driven by this process"):
            store.drive(run)
        code = """
            import sys
            from kernelevolve_lab.store import Store
            try:
                Store.open(sys.argv[1]).drive(sys.argv[2])
            except Exception as error:
                print(error)
        """
        said = python(code, store.url, run).communicate(timeout=60)[0]
        assert f"is driven by process {os.getpid()} on" in said and len(said.splitlines()) == 1
    assert not store.is_driven(run)
    with store.drive(run):
        pass


def test_a_killed_owner_is_replaced(store: Store) -> None:
    run = store.create_run(CONFIG, "a")
    code = """
        import sys, time
        from kernelevolve_lab.store import Store
        lease = Store.open(sys.argv[1]).drive(sys.argv[2]); print("driving"); time.sleep(600)
    """
    process = python(code, store.url, run)
    assert process.stdout.readline() == "driving\n"
    with pytest.raises(RunBusy, match=str(process.pid)):
        store.drive(run)
    process.send_signal(signal.SIGSTOP)  # a stopped process may go on any moment: it is not dead
    with pytest.raises(RunBusy):
        store.drive(run)
    process.kill()
    process.wait()
    assert not store.is_driven(run)
    with store.drive(run):
        assert store.is_driven(run)


def test_a_process_id_that_was_given_away_again_is_not_the_owner(store: Store) -> None:
    run = store.create_run(CONFIG, "a")
    store.drive(run)
    with sqlite3.connect(store._engine.url.database) as raw:
        raw.execute("UPDATE drives SET pid_started = '1'")
    assert not store.is_driven(run)
    with store.drive(run):
        assert store.is_driven(run)


def test_an_owner_on_another_machine_lives_while_its_heart_beats(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.create_run(CONFIG, "a")
    mine = store.drive(run)
    with sqlite3.connect(store._engine.url.database) as raw:
        raw.execute("UPDATE drives SET machine = 'elsewhere', host = 'elsewhere'")
    with pytest.raises(RunBusy, match="on elsewhere"):
        store.drive(run)
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.0)
    with store.drive(run):
        mine.release()  # the old owner wakes up; the run is no longer its own to give back
        assert store.is_driven(run) or lease.STALE_SECONDS == 0.0
        with sqlite3.connect(store._engine.url.database) as raw:
            assert raw.execute("SELECT count(*) FROM drives").fetchone() == (1,)


def test_an_owner_learns_that_it_lost_the_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    run = store.create_run(CONFIG, "a")
    mine = store.drive(run)
    assert not mine.lost.wait(0.2)
    with sqlite3.connect(store._engine.url.database) as raw:
        raw.execute("UPDATE drives SET token = 'somebody else'")
    assert mine.lost.wait(10)


# Opening


def test_the_migrations_make_the_schema(store: Store) -> None:
    with store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    config = Config()
    config.set_main_option("script_location", str(Path(store_package.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_many_processes_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    code = "import sys; from kernelevolve_lab.store import Store; print(len(Store.open(sys.argv[1]).runs()))"
    processes = [python(code, f"sqlite:///{tmp_path / 'new' / 'lab.db'}") for _ in range(4)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["0\n"] * 4


def test_pragmas(store: Store) -> None:
    with store._engine.connect() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert values == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}


def test_a_store_of_a_newer_version_is_left_alone(store: Store, tmp_path: Path) -> None:
    run = store.create_run(CONFIG, "a")
    store.close()
    with sqlite3.connect(tmp_path / "lab.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"newer version of kernelevolve-lab .*9999.*upgrade"):
        Store.open(store.url)
    with sqlite3.connect(tmp_path / "lab.db") as raw:
        assert raw.execute("SELECT id FROM runs").fetchall() == [(run,)]


def test_what_is_no_store_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is a shopping list, and a long one: " * 100)
    with sqlite3.connect(tmp_path / "other.db") as raw:
        raw.execute("CREATE TABLE cats (name)")
    for url, sentence in {
        str(tmp_path / "text.db"): "is not a store",
        str(tmp_path / "other.db"): "a database of something else",
        str(tmp_path): "is a folder",
        str(tmp_path / "text.db" / "lab.db"): "cannot be made",
        "/proc/nowhere/lab.db": "cannot be made",
        "/proc/lab.db": "cannot be written",
        ":memory:": "in memory",
        "sqlite://": "in memory",
        "nonsense://x": "driver",
        "postgresql+psycopg://nobody@127.0.0.1:1/x": "(driver|cannot be opened)",
    }.items():
        with pytest.raises(StoreError, match=sentence) as raised:
            Store.open(url)
        assert "\n" not in str(raised.value)
    with sqlite3.connect(tmp_path / "other.db") as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("cats",)]


def test_a_store_locked_by_another_program_gets_a_sentence(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernelevolve_lab.store.connect.BUSY_SECONDS", 0.2)
    impatient = Store.open(store.url)
    run = store.create_run(CONFIG, "a")
    with sqlite3.connect(tmp_path / "lab.db", isolation_level=None) as raw:
        raw.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            impatient.append(run, events.Noted(text="x"))
        assert len(impatient.read(run)) == 1  # reading goes on
        raw.execute("ROLLBACK")
    assert impatient.append(run, events.Noted(text="x")).seq == 2


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError) as raised:
        Store.open("postgresql+psycopg://me:hunter2@127.0.0.1:1/lab")
    assert "hunter2" not in str(raised.value)


def test_threads_can_make_stores_at_the_same_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(Store.open, [str(tmp_path / f"{number}.db") for number in range(12)]))
    for store in stores:
        assert store.runs() == []
        store.close()


def test_stored_events_are_plain_json(store: Store) -> None:
    run = store.create_run(CONFIG, "a")
    store.append(run, events.Noted(text="Grüße"))
    with sqlite3.connect(store.url.removeprefix("sqlite:///")) as raw:
        texts = [payload for (payload,) in raw.execute("select payload from events order by seq")]
    assert [json.loads(text)["kind"] for text in texts] == ["run_started", "noted"] and "Grüße" in texts[1]
