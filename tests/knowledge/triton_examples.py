"""Compiles or runs the Triton examples of the knowledge base: `python triton_examples.py compile|run FOLDER`, reporting JSON.

`compile` reads comments of the form `# compile: function(x=*fp32, cols=i32, BLOCK=1024)` and compiles for an H100, which needs no GPU.
`run` calls each module's `kernel` in Triton's interpreter and compares it with PyTorch.
"""

import importlib.util
import json
import re
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

COMPILE = re.compile(r"^# compile: (\w+)\((.*)\)$", re.MULTILINE)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


CHECKS = {
    "softmax_rows": ((draw(9, 301),), lambda x: torch.softmax(x.double(), -1)),
    "rms_norm_rows": ((draw(7, 301), draw(301)), lambda x, w: F.rms_norm(x.double(), (301,), w.double(), 1e-6)),
    "layer_norm_rows": (
        (50 + draw(7, 301), draw(301), draw(301, seed=1)),
        lambda x, w, b: F.layer_norm(x.double(), (301,), w.double(), b.double()),
    ),
    "bias_gelu_flat": ((draw(7, 301), draw(301)), lambda x, b: F.gelu(x.double() + b, approximate="tanh")),
    "matmul_grouped": ((draw(50, 70), draw(70, 90)), lambda a, b: a.double() @ b.double()),
    "matmul_descriptor": ((draw(64, 64), draw(64, 64, seed=1)), lambda a, b: a.double() @ b.double()),
    "online_softmax_rows": ((draw(5, 2500),), lambda x: torch.softmax(x.double(), -1)),
    "split_sum": ((draw(3, 5000),), lambda x: x.double().sum(1)),
}


def module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def compiled(path: Path) -> str:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    made, asked = module(path), COMPILE.findall(path.read_text())
    if not asked:
        return "no '# compile:' comment"
    for name, arguments in asked:
        pairs = dict(part.strip().split("=") for part in arguments.split(","))
        constants = {key: int(value) for key, value in pairs.items() if value.isdigit()}
        signature = {key: "constexpr" if key in constants else value for key, value in pairs.items()}
        source = ASTSource(
            getattr(made, name), signature, constexprs={(list(pairs).index(key),): value for key, value in constants.items()}
        )
        if len(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]) == 0:
            return f"{name}: no machine code"
    return "ok"


def ran(path: Path) -> str:
    inputs, reference = CHECKS[path.stem]
    got, want = module(path).kernel(*inputs), reference(*inputs)
    error = float((got.double() - want).abs().max() / want.square().mean().sqrt())
    return "ok" if got.shape == want.shape and error < 2e-5 else f"error {error:.3g}"


def main(action: str, folder: str) -> None:
    work = {"compile": compiled, "run": ran}[action]
    told = {}
    for path in sorted(Path(folder).glob("*.py")):
        try:
            told[path.stem] = work(path)
        except Exception as error:
            told[path.stem] = f"{type(error).__name__}: {error}"
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
