"""Runs as files: there and back, and files that mean harm."""

import json
import lzma
import random
import string
import zlib
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


def written(path: Path, lines: list[bytes], **how: object) -> Path:
    """A file that holds these lines, in the way in which a bundle does."""
    path.write_bytes(lzma.compress(b"".join(line + b"\n" for line in lines), **how))
    return path


def test_files_that_are_no_runs_get_a_sentence(store: Store, run: str, tmp_path: Path) -> None:
    path = bundle.export_run(store, run, tmp_path / "mine")
    packed = path.read_bytes()
    header, *lines = lzma.decompress(packed).splitlines()
    files = {
        "text": (b"hello, world\n" * 9, "no xz file"),
        "zip": (b"PK\x03\x04" + bytes(100), "no xz file"),
        "empty": (b"", "it is cut off"),
        "cut": (packed[:-20], "it is cut off"),
        "changed": (packed[:200] + bytes([packed[200] ^ 1]) + packed[201:], "a damaged one"),
        "longer": (packed + b"x", "something follows its end"),
        "twice": (packed + packed, "something follows its end"),
        "without an end": (lzma.compress(header + b"\n" + lines[0]), "its last line has no end"),
    }
    for name, (data, sentence) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput, match=sentence):
            bundle.read_run(tmp_path / name)
    with pytest.raises(BadInput, match="cannot be read"):
        bundle.read_run(tmp_path / "nowhere.kevrun")
    contents = {
        "its header says": [b"", *lines],
        "newer version": [b'{"format": 3, "run": "x"}', *lines],
        "should match pattern": [b'{"format": 2, "run": "../../etc"}', *lines],
        "it has no events": [header],
        "event 2 is missing": [header, lines[0], lines[2]],
        "event 2 is not one": [header, lines[0], b'{"seq": 2, "time": 1, "event": {"kind": "explode"}}'],
        "event 3 is not one": [header, *lines[:2], lines[2].replace(b'"time"', b'"pickle":"gASV","time"')],
        "event 1 is not one": [header, b"[" * 100_000],
        "its first event does not start": [header, b'{"seq": 1, "time": 1, "event": {"kind": "noted", "text": "x"}}'],
    }
    for sentence, changed in contents.items():
        with pytest.raises(BadInput, match=sentence) as raised:
            bundle.read_run(written(tmp_path / "changed.kevrun", changed))
        assert "\n" not in str(raised.value)
    assert store.runs()[0].id == run and len(store.runs()) == 1


def test_what_is_too_large_is_not_unpacked(store: Store, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header, *lines = lzma.decompress(bundle.export_run(store, run, tmp_path / "mine").read_bytes()).splitlines()
    bomb = [header, *lines, *[b'{"seq": 4, "time": 1, "event": {"kind": "noted", "text": "' + b"x" * (1 << 20) + b'"}}'] * 8]
    small = written(tmp_path / "bomb.kevrun", bomb)
    assert small.stat().st_size < 1 << 16
    bounds = {
        "LARGEST_BUNDLE": (2 << 20, "would unpack to more than 2 MiB"),
        "LONGEST_LINE": (1 << 20, "one of its lines is too long"),
        "MOST_EVENTS": (2, "more than 2 events"),
    }
    for name, (bound, sentence) in bounds.items():
        with monkeypatch.context() as patch:
            patch.setattr(bundle, name, bound)
            with pytest.raises(BadInput, match=sentence):
                bundle.read_run(small)
    with pytest.raises(BadInput, match="too large for one file"), monkeypatch.context() as patch:
        patch.setattr(bundle, "LONGEST_LINE", 1000)
        bundle.export_run(store, run, tmp_path / "other")


def test_a_file_cannot_ask_for_memory(tmp_path: Path) -> None:
    """How far back the packed data may reach, which is what unpacking takes, is a byte in the header of xz's first block."""
    packed = bytearray(lzma.compress(b"hello", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}]))
    end = 12 + 4 * (packed[12] + 1)
    assert packed[16] == 8, "the byte that stands for 64 KiB"
    packed[16] = 36  # 1 GiB
    packed[end - 4 : end] = zlib.crc32(packed[12 : end - 4]).to_bytes(4, "little")
    assert lzma.decompress(packed) == b"hello"
    (tmp_path / "greedy.kevrun").write_bytes(packed)
    with pytest.raises(BadInput, match="no xz file"):
        bundle.read_run(tmp_path / "greedy.kevrun")


def test_a_log_makes_the_same_file_each_time_and_texts_alike_take_no_room(store: Store, tmp_path: Path) -> None:
    """A prompt is mostly the one before, and is written down as it is read and as it is sent; kernels are much like their parents."""
    run, draw = store.create_run(CONFIG, "RMSNorm"), random.Random(1)
    words = ["".join(draw.choices(string.ascii_lowercase, k=8)) for _ in range(4000)]
    for index in range(20):
        words[draw.randrange(4000)] = f"new{index}"
        prompt = " ".join(words)
        sent = json.dumps({"role": "user", "content": prompt})
        store.append(run, events.ModelReplied(index=index, model="m", messages=(sent,), reply=json.dumps({"content": "x"})))
        made = Candidate(language="cpp", source=f"int number = {index};\n" + prompt)
        store.append(run, events.CandidateProposed(candidate=made, prompt=prompt, index=index))
    one, two = bundle.export_run(store, run, tmp_path / "one"), bundle.export_run(store, run, tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    alone = len(lzma.compress(" ".join(words).encode()))
    assert one.stat().st_size < 1.5 * alone
    assert [item.event for item in bundle.read_run(one)] == [item.event for item in store.read(run)]
