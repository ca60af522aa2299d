"""What of a GPU's judging can be held without one: the kernel that holds the device, devices and locks, kernels compiled ahead."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kernelevolve_lab.harness import cuda_clock, cuda_host, devices, sandbox
from kernelevolve_lab.harness.memory import NAN_POISON, Arena, Placed
from kernelevolve_lab.harness.scratch import take_kernels
from kernelevolve_lab.harness.settings import JudgeSettings
from kernelevolve_lab.records import TensorSpec
from kernelevolve_lab.targets import resolve


def assembler() -> str:
    triton = pytest.importorskip("triton")
    found = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    if found.exists():
        return str(found)
    return shutil.which("ptxas") or pytest.skip("no ptxas")


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_89", "sm_90", "sm_100", "sm_120"])
def test_the_kernel_that_holds_the_device_assembles_and_leaves_room_for_all_threads(arch: str, tmp_path: Path) -> None:
    line = [assembler(), f"-arch={arch}", "-v", str(cuda_clock._PTX), "-o", str(tmp_path / "spin.cubin")]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stderr
    registers = int(told.split("Used ")[1].split(" ")[0])
    assert registers * 2048 <= 65536, "as many threads as a multiprocessor has must fit into its registers"


def test_an_absent_card_is_judged_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    h200 = resolve("nvidia:h200")
    assert devices.device_of(h200.model_copy(update={"present": False})) == "cpu"
    assert devices.device_of(h200.model_copy(update={"present": True})) == "cuda:0"
    assert devices.device_of(resolve("cpu")) == "cpu"


def test_each_card_has_a_lock_of_its_own_and_workers_see_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert devices.environment("cpu") == {} and devices.lock_name("cpu") == ""
    assert devices.environment("cuda:0")["CUDA_VISIBLE_DEVICES"] == "1"
    first = devices.lock_name("cuda:0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices.lock_name("cuda:0") != first and "CUDA_VISIBLE_DEVICES" not in devices.environment("cuda:0")


def test_a_device_gets_few_threads_and_many_sets() -> None:
    host, device = JudgeSettings.for_device("cpu"), JudgeSettings.for_device("cuda:0")
    assert host == JudgeSettings() and device.pool_bytes > host.pool_bytes and 1 <= device.threads <= 8


def test_only_a_sandbox_that_may_use_gpus_sees_their_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "gpu_nodes", lambda: ("/dev/nvidia0", "/dev/nvidiactl"))
    line = sandbox.command(["true"], sandbox.Confinement(gpus=True), None)
    assert [line[i + 1] for i, word in enumerate(line) if word == "--dev-bind"] == ["/dev/nvidia0", "/dev/nvidiactl"]
    assert "--dev-bind" not in sandbox.command(["true"], sandbox.Confinement(), None)


def test_kernels_compiled_ahead_are_found_where_they_now_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, into = tmp_path / "kept", tmp_path / "into"
    (kept / "KEY").mkdir(parents=True)
    (kept / "KEY" / "k.cubin").write_bytes(b"\x7fELF code")
    group = {"child_paths": {"k.cubin": str(kept / "KEY" / "k.cubin")}}
    (kept / "KEY" / "__grp__k.json").write_text(json.dumps(group))
    (kept / "KEY" / "link").symlink_to("/etc/passwd")
    monkeypatch.setenv("TRITON_CACHE_DIR", "elsewhere")
    folder = os.open(kept, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(OSError):  # a link out of the folder is not followed
        take_kernels(folder, str(kept), str(into))
    (kept / "KEY" / "link").unlink()
    take_kernels(os.open(kept, os.O_RDONLY | os.O_DIRECTORY), str(kept), str(into))
    assert os.environ["TRITON_CACHE_DIR"] == str(into)
    found = json.loads((into / "KEY" / "__grp__k.json").read_text())["child_paths"]["k.cubin"]
    assert Path(found).read_bytes() == b"\x7fELF code" and Path(found).is_relative_to(into)


def test_an_arena_that_is_handed_outputs_is_not_filled(tmp_path: Path) -> None:
    place = Placed(TensorSpec(shape=(8,), dtype="float32"), 0)
    for handed in (False, True):
        arena = Arena(4096, handed=handed)
        arena.poison((place,), NAN_POISON)
        assert bool(arena._bytes[:32].any()) is not handed
        arena.close()


def test_the_host_of_a_device_tells_a_library_from_a_module() -> None:
    assert Path("/proc/self/exe").read_bytes()[:4] == cuda_host._ELF
