"""The command line as scripts use it: exit status, JSON, one clear line on standard error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kernelevolve_lab.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, cwd=ROOT, timeout=120)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"KERNELEVOLVE_HOME": str(tmp_path / "home")}


@pytest.mark.parametrize("verb", ["operators", "targets", "languages", "runs"])
def test_lists_are_text_and_json(verb: str, home: dict[str, str]) -> None:
    text, data = run(verb, env=home), run(verb, "--json", env=home)
    assert (text.returncode, data.returncode) == (0, 0), text.stderr + data.stderr
    rows = json.loads(data.stdout)
    assert isinstance(rows, list)
    if verb != "runs":
        assert all(row["name"] in text.stdout for row in rows)


def test_operators_lists_the_catalogue(home: dict[str, str]) -> None:
    assert {row["name"] for row in json.loads(run("operators", "--json", env=home).stdout)} >= {"softmax", "rms_norm", "conv1d", "pffn"}


def test_doctor_says_what_works_and_how_to_get_the_rest(home: dict[str, str]) -> None:
    found = run("doctor", "--json", env={**home, "CXX": "/nowhere/c++"})
    assert found.returncode == 0, found.stderr
    checks = {check["name"]: check for check in json.loads(found.stdout)}
    assert checks["torch"]["state"] == "ok"
    assert checks["language cpp"]["state"] == "missing"
    assert "CXX" in checks["language cpp"]["found"]
    assert checks["sandbox"]["state"] == "ok"


def refusal(*arguments: object, env: dict[str, str]) -> str:
    """The one line of a command that must be refused."""
    ended = run(*arguments, env=env)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("kernelevolve-lab: ") or "error:" in last
    return last


SEARCH = ("search", "--operator", "rms_norm", "--target", "cpu")


def test_an_unknown_operator_is_answered_with_near_names(home: dict[str, str]) -> None:
    assert "'rms_norm'" in refusal("search", "--operator", "rmsnorm", "--target", "cpu", env=home)


def test_an_unknown_target_is_answered_with_near_names(home: dict[str, str]) -> None:
    assert "'cpu'" in refusal("search", "--operator", "rms_norm", "--target", "cpus", env=home)


def test_a_budget_of_zero_is_refused(home: dict[str, str]) -> None:
    assert "max_candidates" in refusal(*SEARCH, "--max-candidates", 0, env=home)


def test_no_compiler_is_said_before_anything_runs(home: dict[str, str]) -> None:
    assert "compiler" in refusal(*SEARCH, env={**home, "CXX": "/nowhere/c++"})


def test_an_unwritable_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refusal(*SEARCH, "--store", f"sqlite:///{tmp_path}/file/lab.db", env={})


def test_a_source_that_is_not_utf8_is_refused(tmp_path: Path, home: dict[str, str]) -> None:
    source = tmp_path / "k.cpp"
    source.write_bytes(b"// caf\xe9\n")
    assert "UTF-8" in refusal("evaluate", "--operator", "rms_norm", "--target", "cpu", "--candidate", source, env=home)


def test_a_missing_candidate_is_named(tmp_path: Path, home: dict[str, str]) -> None:
    assert "nothing.cpp" in refusal(
        "evaluate", "--operator", "rms_norm", "--target", "cpu", "--candidate", tmp_path / "nothing.cpp", env=home
    )


def test_a_task_that_is_no_task_is_refused(tmp_path: Path, home: dict[str, str]) -> None:
    (tmp_path / "task.py").write_text("x = 1\n")
    assert "Model" in refusal("search", "--task", tmp_path / "task.py", "--target", "cpu", env=home)


def test_an_unknown_run_is_named(home: dict[str, str]) -> None:
    assert "no-such-run" in refusal("resume", "no-such-run", env=home)
    assert "no-such-run" in refusal("export", "no-such-run", "--format", "module", "--out", "out", env=home)


def test_options_of_the_proposer_are_read_and_refused_before_a_run_is_made(home: dict[str, str], tmp_path: Path) -> None:
    env = {**home, "OPENAI_API_KEY": "sk-of-no-value"}
    chat = (*SEARCH, "--proposer", "chat", "--model", "m")
    assert "did you mean 'knowledge'" in refusal(*chat, "--option", "knowlege=false", env=env)
    assert "write it as --option NAME=VALUE" in refusal(*chat, "--option", "knowledge", env=env)
    assert "'diagnosis' of the chat proposer is wrong" in refusal(*chat, "--option", "diagnosis=maybe", env=env)
    assert "looks like a secret" in refusal(*chat, "--option", "api_key=x", env=env)
    assert "cannot be read" in refusal(*chat, "--prices", tmp_path / "none.toml", env=env)
    assert "http:// or https://" in refusal(*chat, "--base-url", "localhost", env=env)
    assert "no option 'model'" in refusal(*SEARCH, "--proposer", "manual", "--model", "m", env=env)
    assert json.loads(run("runs", "--json", env=home).stdout) == []


def test_a_shipped_recording_plays_and_is_written_to_a_file_again(home: dict[str, str], tmp_path: Path) -> None:
    played = run("replay", "softmax_cpu", "--speed", "1e9", "--json", tmp_path / "result.json", env=home)
    assert played.returncode == 0, played.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["best"]["verdict"] == "correct" and result["candidates"] == 10
    assert "replay" in played.stderr
    written = run("record", result["run"], "--out", tmp_path / "mine.kevrun", env=home)
    assert written.returncode == 0, written.stderr
    assert run("replay", tmp_path / "mine.kevrun", "--speed", "1e9", env=home).returncode == 0
