"""Runs as files: there and back, and files that mean harm."""

import json
import zipfile
from pathlib import Path

import pytest

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.records import Candidate, OperatorRef, RunConfig, events
from kernelevolve_lab.store import Store, bundle

CONFIG = RunConfig(operator=OperatorRef(kind="registered", name="rms_norm", text="rms_norm"), target="cpu", language="cpp")


@pytest.fixture
def store(tmp_path: Path):
    opened = Store.open(str(tmp_path / "lab.db"))
    yield opened
    opened.close()


@pytest.fixture
def run(store: Store) -> str:
    run = store.create_run(CONFIG, "RMSNorm")
    candidate = Candidate(language="cpp", source="int x;\n" * 1000, knobs={"$blob": "x"}, notes="Grüße")
    store.append(run, events.CandidateProposed(candidate=candidate, prompt="y" * 5000, index=0))
    store.append(run, events.RunEnded(outcome="finished", reason="done"))
    return run


def test_a_run_travels_as_a_file(store: Store, run: str, tmp_path: Path) -> None:
    path = bundle.export_run(store, run[:-1], tmp_path / "mine")
    assert path == tmp_path / "mine.kevrun"
    assert [item.event for item in bundle.read_run(path)] == [item.event for item in store.read(run)]
    other = Store.open(str(tmp_path / "other.db"))
    assert bundle.import_run(other, path) == run
    assert other.state(run) == store.state(run)
    assert other.is_imported(run) and not store.is_imported(run)
    assert other.runs()[0].status == "finished" and other.runs()[0].imported
    assert bundle.import_run(other, path) == run  # a second time changes nothing
    assert len(other.runs()) == 1
    other.append(run, events.Noted(text="it went on here"))
    assert bundle.import_run(other, path) == f"{run}-2"


def test_a_folder_and_a_path_that_cannot_be_written(store: Store, run: str, tmp_path: Path) -> None:
    assert bundle.export_run(store, run, tmp_path) == tmp_path / f"{run}.kevrun"
    with pytest.raises(BadInput, match="cannot be written"):
        bundle.export_run(store, run, tmp_path / "nowhere" / "x.kevrun")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".kevrun")]


def rewritten(path: Path, change: dict[str, bytes | None]) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | change
    out = path.with_name("changed.kevrun")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return out


def test_files_that_are_no_runs_get_a_sentence(store: Store, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bundle.export_run(store, run, tmp_path / "mine")
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("events.jsonl").splitlines()
        blob = next(name for name in archive.namelist() if name.startswith("blobs/"))
    (tmp_path / "text.kevrun").write_text("hello")
    (tmp_path / "cut.kevrun").write_bytes(path.read_bytes()[:-200])
    odd = json.loads(lines[1])
    cases = {
        "no zip archive": tmp_path / "text.kevrun",
        "no zip archive, or a damaged": tmp_path / "cut.kevrun",
        "cannot be read": tmp_path / "nowhere.kevrun",
    }
    for sentence, file in cases.items():
        with pytest.raises(BadInput, match=sentence):
            bundle.read_run(file)
    changes = {
        "run.json is missing": {"run.json": None},
        "newer version": {"run.json": b'{"format": 2, "run": "x"}'},
        "its header says": {"run.json": b'{"format": 1, "run": "../../etc"}'},
        "it has 0 events": {"events.jsonl": b""},
        "event 2 is missing": {"events.jsonl": lines[0] + b"\n" + lines[2]},
        "event 2 is not one": {"events.jsonl": lines[0] + b"\n" + b'{"seq": 2, "time": 1, "event": {"kind": "explode"}}'},
        "event 1 is not one": {"events.jsonl": b"[" * 100_000},
        "its first event does not start": {"events.jsonl": b'{"seq": 1, "time": 1, "event": {"kind": "noted", "text": "x"}}'},
        "is missing": {blob: None},
        "was changed": {blob: b"int evil;"},
        "no digest": {
            "events.jsonl": lines[0] + b"\n" + json.dumps(odd | {"event": odd["event"] | {"prompt": {"$blob": "../../x"}}}).encode()
        },
    }
    for sentence, change in changes.items():
        with pytest.raises(BadInput, match=sentence) as raised:
            bundle.read_run(rewritten(path, change))
        assert "\n" not in str(raised.value)
    monkeypatch.setattr(bundle, "LARGEST_BUNDLE", 1 << 20)
    with pytest.raises(BadInput, match="would unpack to more than 1 MiB"):
        bundle.read_run(rewritten(path, {"bomb": b"\0" * (2 << 20)}))
    assert store.runs()[0].id == run and len(store.runs()) == 1


def test_what_is_not_part_of_a_run_is_not_looked_at(store: Store, run: str, tmp_path: Path) -> None:
    path = rewritten(bundle.export_run(store, run, tmp_path / "mine"), {"../../evil.py": b"x", "/etc/passwd": b"y", "evil.pkl": b"z"})
    assert len(bundle.read_run(path)) == 3
    assert sorted(item.name for item in tmp_path.iterdir() if item.suffix == ".kevrun") == ["changed.kevrun", "mine.kevrun"]


def test_a_directory_that_lies_about_sizes_is_not_believed(store: Store, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rewritten(bundle.export_run(store, run, tmp_path / "mine"), {"run.json": b" " * (2 << 20) + b"{}"})
    data = bytearray(path.read_bytes())
    size = (2 << 20) + 2
    where = [n for n in range(len(data) - 4) if int.from_bytes(data[n : n + 4], "little") == size]
    assert where
    for n in where:
        data[n : n + 4] = (50).to_bytes(4, "little")
    path.write_bytes(bytes(data))
    with pytest.raises(BadInput):
        bundle.read_run(path)
