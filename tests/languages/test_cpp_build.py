import ctypes
import os
import shutil
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cpp_sources import DOUBLE, ENDLESS

from kernelevolve_lab.errors import BadInput, MissingTool
from kernelevolve_lab.languages import abi, process
from kernelevolve_lab.languages.cpp import CPP
from kernelevolve_lab.records import TargetSpec
from kernelevolve_lab.targets import resolve


@pytest.fixture(scope="module")
def cpu() -> TargetSpec:
    return resolve("cpu")


def call(artifact: Path, x: np.ndarray, y: np.ndarray, threads: int = 2) -> None:
    inputs, outputs = ([abi.tensor(a.ctypes.data, a.shape, str(a.dtype))] for a in (x, y))
    abi.load(artifact)(abi.array(inputs), abi.array(outputs), abi.Stream(None, threads, 0))


def errors(build) -> list:
    return [d for d in build.diagnostics if d.severity == "error"]


def running_under(folder: Path) -> list[str]:
    """Command lines of the processes whose working directory is inside a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_a_built_kernel_computes(cpu: TargetSpec, tmp_path: Path) -> None:
    build = CPP.build(DOUBLE, cpu, tmp_path)
    assert build.ok and not build.cached and build.diagnostics == ()
    x = np.linspace(-3, 3, 1000, dtype=np.float32)
    y = np.full_like(x, np.nan)
    call(build.artifact, x, y)
    np.testing.assert_allclose(y, 2 * x + 1, rtol=1e-6)


def test_the_second_build_comes_from_the_cache_and_says_the_same(cpu: TargetSpec, tmp_path: Path) -> None:
    first, second = (CPP.build(DOUBLE, cpu, tmp_path) for _ in range(2))
    assert second.cached and second.seconds < first.seconds
    assert (second.artifact, second.diagnostics, second.metrics) == (first.artifact, first.diagnostics, first.metrics)
    assert not CPP.build(DOUBLE + "// another", cpu, tmp_path).cached


def test_failed_builds_are_cached_too(cpu: TargetSpec, tmp_path: Path) -> None:
    first, second = (CPP.build("nonsense", cpu, tmp_path) for _ in range(2))
    assert not first.ok and not second.ok and second.cached and second.diagnostics == first.diagnostics


def test_parallel_builders_of_one_source_agree_and_leave_nothing_behind(cpu: TargetSpec, tmp_path: Path) -> None:
    start = threading.Barrier(4)

    def build(_: int):
        start.wait()
        return CPP.build(DOUBLE, cpu, tmp_path)

    with ThreadPoolExecutor(4) as pool:
        builds = list(pool.map(build, range(4)))
    assert len({b.artifact for b in builds}) == 1 and all(b.ok for b in builds)
    assert [entry.name for entry in (tmp_path / "cpp").iterdir()] == [builds[0].artifact.parent.name]
    y = np.zeros(4, np.float32)
    call(builds[0].artifact, np.ones(4, np.float32), y)
    assert y.tolist() == [3.0] * 4


def test_an_error_names_its_line(cpu: TargetSpec, tmp_path: Path) -> None:
    build = CPP.build(DOUBLE.replace("2.0f * x[i]", "twice(x[i])"), cpu, tmp_path)
    found = errors(build)[0]
    assert not build.ok
    assert (found.file, found.line) == ("candidate", 7)
    assert "twice" in found.message and "twice(x[i])" in found.source_line


def test_a_kernel_of_another_signature_or_name_is_a_clear_error(cpu: TargetSpec, tmp_path: Path) -> None:
    other = CPP.build(DOUBLE.replace("kel::Stream stream", "int stream"), cpu, tmp_path)
    assert "conflicting declaration" in errors(other)[0].message
    missing = CPP.build(DOUBLE.replace("void kernel(", "void kernal("), cpu, tmp_path)
    assert "does not define" in errors(missing)[0].message and "kel::Stream" in errors(missing)[0].message


def test_a_symbol_that_nobody_defines_fails_the_build(cpu: TargetSpec, tmp_path: Path) -> None:
    source = DOUBLE.replace("2.0f * x[i]", "outside(x[i])").replace('extern "C"', 'float outside(float);\nextern "C"')
    assert "outside" in errors(CPP.build(source, cpu, tmp_path))[0].message


def test_no_message_has_a_path_of_this_machine(cpu: TargetSpec, tmp_path: Path) -> None:
    sources = [
        '#include "/etc/passwd"\n' + DOUBLE,
        '#include "../../../../../../etc/passwd"\n' + DOUBLE,
        "#include <nosuch.h>\n",
    ]
    sources.append(
        "#include <vector>\nstruct A { A(const A&) = delete; A(); };\nvoid f() { A a; std::vector<A> v; v.push_back(a); }\n" + DOUBLE
    )
    for source in sources:
        build = CPP.build(source, cpu, tmp_path)
        assert errors(build)
        for d in build.diagnostics:
            assert (
                "/usr" not in d.message
                and "/etc/" not in d.message
                and str(Path.home()) not in d.message
                and str(tmp_path) not in d.message
            )
            assert "/" not in d.file
            assert "root:" not in d.message + d.source_line


def test_a_compiler_that_does_not_end_is_killed_with_its_children(cpu: TargetSpec, tmp_path: Path) -> None:
    build = CPP.build(ENDLESS, cpu, tmp_path, timeout=1.0)
    assert not build.ok and "stopped after 1 s" in build.diagnostics[0].message
    assert build.seconds < 20
    assert running_under(tmp_path) == []
    assert not list((tmp_path / "cpp").iterdir())
    assert not CPP.build(ENDLESS, cpu, tmp_path, timeout=1.0).cached


def test_a_compiler_that_eats_memory_is_stopped(cpu: TargetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MEMORY_BYTES", 200 << 20)
    build = CPP.build(ENDLESS, cpu, tmp_path, timeout=60.0)
    assert not build.ok and errors(build) and build.seconds < 60


def test_a_huge_object_is_refused_by_the_limit_on_files(cpu: TargetSpec, tmp_path: Path) -> None:
    huge = DOUBLE + "unsigned char table[1ull << 30] __attribute__((used)) = {1};"
    assert not CPP.build(huge, cpu, tmp_path, timeout=60.0).ok


def test_commands_that_run_in_one_folder_at_once_keep_their_outputs_apart(tmp_path: Path) -> None:
    def echoed(number: int) -> str:
        return process.run(["/bin/sh", "-c", f"echo {number}; sleep 0.1; echo {number}"], tmp_path, 20.0).output

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(echoed, range(6))) == [f"{number}\n{number}\n" for number in range(6)]


def test_the_compiler_sees_no_secret_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("CPLUS_INCLUDE_PATH", "/somewhere")
    finished = process.run(["env"], tmp_path, 10)
    assert "PATH=" in finished.output and "secret" not in finished.output and "somewhere" not in finished.output


def test_a_sandbox_wraps_every_command_over_the_candidate(cpu: TargetSpec, tmp_path: Path) -> None:
    seen = []

    def sandbox(command, scratch: Path):
        seen.append(Path(command[0]).name)
        assert (scratch / "candidate.cpp").read_text() == DOUBLE and (scratch / "kel.h").is_file()
        return ["env", "SANDBOXED=1", *command]

    assert CPP.build(DOUBLE, cpu, tmp_path, sandbox=sandbox).ok
    assert len(seen) == 2 and seen[1] == "objdump"


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_it_builds_inside_bubblewrap_where_only_the_scratch_folder_can_be_written(cpu: TargetSpec, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h"
    secret.write_text("#error secret was read")

    def sandbox(command, scratch: Path):
        mounts = ["--ro-bind", "/", "/", "--tmpfs", str(tmp_path), "--bind", str(scratch), str(scratch), "--dev", "/dev", "--proc", "/proc"]
        return ["bwrap", *mounts, "--unshare-all", "--die-with-parent", "--chdir", str(scratch), *command]

    assert CPP.build(DOUBLE, cpu, tmp_path, sandbox=sandbox).ok
    peeking = CPP.build(f'#include "{secret}"\n' + DOUBLE, cpu, tmp_path, sandbox=sandbox)
    assert not peeking.ok and "No such file" in errors(peeking)[0].message
    stopped = CPP.build(ENDLESS, cpu, tmp_path, timeout=1.0, sandbox=sandbox)
    assert "stopped after" in stopped.diagnostics[0].message and running_under(tmp_path) == []


def test_text_that_is_not_utf8_is_a_clear_sentence(cpu: TargetSpec, tmp_path: Path) -> None:
    source = b'#include "kel.h" // \xff'.decode("utf-8", "surrogateescape")
    with pytest.raises(BadInput, match=r"not UTF-8.*character 20"):
        CPP.build(source, cpu, tmp_path)


@pytest.mark.parametrize("source", ["", "\0", "é" * 10, "#define A A A\nA", '#include "candidate.cpp"', "%:include"])
def test_odd_sources_are_ordinary_failures(source: str, cpu: TargetSpec, tmp_path: Path) -> None:
    build = CPP.build(source, cpu, tmp_path)
    assert not build.ok and errors(build) and len(build.diagnostics) <= 12


def test_without_a_compiler_the_way_out_is_named(cpu: TargetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent")
    for use in (CPP.toolchain, lambda: CPP.build(DOUBLE, cpu, tmp_path)):
        with pytest.raises(MissingTool, match=r"'/nonexistent' \(named in CXX\).*apt install g\+\+"):
            use()
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(MissingTool, match="does not run"):
        CPP.toolchain()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(MissingTool, match="There is no C"):
        CPP.toolchain()


def test_it_supports_the_cpu_that_is_here_and_nothing_else(cpu: TargetSpec) -> None:
    assert CPP.supports(cpu)
    assert not CPP.supports(cpu.model_copy(update={"present": False}))
    assert not CPP.supports(resolve("nvidia:h100"))


def test_a_process_that_leaves_children_in_its_group_leaves_none_running(tmp_path: Path) -> None:
    started = time.monotonic()
    finished = process.run(["sh", "-c", "sleep 60 & echo started"], tmp_path, 10)
    assert finished.output == "started\n" and finished.status == 0 and time.monotonic() - started < 10
    deadline = time.monotonic() + 5
    while running_under(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running_under(tmp_path) == []


def test_the_artifact_cannot_be_written_in_place(cpu: TargetSpec, tmp_path: Path) -> None:
    artifact = CPP.build(DOUBLE, cpu, tmp_path).artifact
    assert stat.S_IMODE(artifact.stat().st_mode) == 0o555
    assert ctypes.CDLL(str(artifact)).kernel
