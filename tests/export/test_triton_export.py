"""An exported Triton kernel: on a GPU it runs and passes its self-test, elsewhere PyTorch takes its place."""

from pathlib import Path

import pytest
from exported import TRITON_KERNEL, request, run_alone

from kernelevolve_lab.export import kernelbench, torch_op
from kernelevolve_lab.export.base import ExportRequest


def triton_request(out: Path) -> ExportRequest:
    return request(out, TRITON_KERNEL, language="triton", target="nvidia:h200")


def test_without_a_gpu_the_reference_takes_its_place(tmp_path: Path) -> None:
    (path,) = torch_op.export(triton_request(tmp_path))
    code = f"""
import torch, {path.stem} as m
x, w, b = torch.randn(4, 33), torch.randn(33), torch.randn(33)
assert not m.supported(x, w, b)
torch.testing.assert_close(m.op(x, w, b), torch.nn.functional.layer_norm(x, (33,), w, b))
print(type(m._loaded().body).__name__)
"""
    ran = run_alone(path, code, tmp_path / "cache")
    assert ran.returncode == 0, ran.stderr
    assert "JITFunction" in ran.stdout, "the kernel is there, in a file that Triton can read it from"


def test_on_a_gpu_the_kernel_runs(tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    (path,) = torch_op.export(triton_request(tmp_path))
    code = f"""
import torch, {path.stem} as m
x, w, b = torch.randn(4, 33, device="cuda"), torch.randn(33, device="cuda"), torch.randn(33, device="cuda")
assert m.supported(x, w, b)
torch.library.opcheck(m.op, (x, w, b))
print(*m.self_test())
"""
    ran = run_alone(path, code, tmp_path / "cache")
    assert ran.returncode == 0, ran.stderr
    assert "odd: right" in ran.stdout


def test_the_kernelbench_file_holds_the_kernel_and_one_class(tmp_path: Path) -> None:
    new, _ = kernelbench.export(triton_request(tmp_path))
    text = new.read_text()
    assert TRITON_KERNEL.strip() in text and text.count("class ModelNew(nn.Module)") == 1 and "class Model(" not in text
