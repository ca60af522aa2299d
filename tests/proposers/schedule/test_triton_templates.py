"""Every Triton template: it renders, computes its operator by Triton's interpreter, and compiles for every generation of NVIDIA's GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
import torch
from kernel_runner import SIZES

from kernelevolve_lab import registry
from kernelevolve_lab.languages.base import Build, Workload
from kernelevolve_lab.languages.triton import TRITON
from kernelevolve_lab.operators.base import Operator
from kernelevolve_lab.proposers.schedule.space import Setting
from kernelevolve_lab.proposers.schedule.templates import Template, first_settings, templates
from kernelevolve_lab.records import Case, Scalar, TargetSpec, TensorSpec
from kernelevolve_lab.targets import resolve

pytest.importorskip("triton")
# Told to be present: some choices are only for a GPU that is there, and they must compile all the same.
H100, A100, B200 = (resolve(f"nvidia:{name}").model_copy(update={"present": True}) for name in ("h100", "a100", "b200"))
SERVED = [(template, operator) for template in templates() if template.language == "triton" for operator in template.operators]
EACH = pytest.mark.parametrize(("template", "operator"), SERVED, ids=[operator for _, operator in SERVED])
# Small sizes beyond those of the C++ kernels: whole tiles, rows that begin at multiples of 16 bytes (what tensor descriptors need), and
# sizes that take the way of large ones.
MORE: dict[str, list[dict[str, int]]] = {
    "matmul": [{"m": 96, "n": 160, "k": 200}],
    "conv1d": [{"batch": 3, "c_in": 40, "c_out": 24, "length": 72}],
    "optimized_fm": [{"b": 1, "n": 130, "d": 40, "k": 72}],
    "pffn": [{"b": 1, "n": 70, "d": 96, "k": 160}, {"b": 1, "n": 20, "d": 300, "k": 20}],
    "map_id_transform": [{"ids": 3000, "values": 40_000}],
    "merge_bucketized_dense": [{"features": 2, "batch": 300, "borders": 100}],
}


def kinds(operator: Operator) -> list[str]:
    """The dtypes of the operator's cases."""
    return sorted({case.dtype for cases in operator.cases.values() for case in cases})


def sampled(template: Template, count: int) -> list[Setting]:
    """The default, and as many further settings, which a GPU that is not there may have, too."""
    space = template.space(H100.model_copy(update={"present": False}))
    random = Random(template.name)
    settings = [space.default(), *(space.sample(random) for _ in range(count))]
    assert None not in settings
    return settings


def interpreted(jobs: Sequence[dict], folder: Path) -> dict[str, list[str]]:
    """What the runner found wrong, by job."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    here = Path(__file__).parent
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TRITON_CACHE_DIR": str(folder),
        "PYTHONPATH": str(here),
    }
    command = [sys.executable, "-W", "ignore", str(here / "triton_runner.py"), str(folder / "jobs.json")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0 and len(answers) == len(jobs), f"the interpreter ended with {ran.returncode}: {ran.stderr[-2000:]}"
    return {answer["name"]: answer["wrong"] for answer in answers}


def job(name: str, template: Template, operator: str, setting: Setting, target: TargetSpec, sizes: Sequence[dict], folder: Path) -> dict:
    path = folder / f"{operator}_{name}.py"
    path.write_text(template.render(setting, operator, target))
    dtypes = kinds(registry.load("operators", operator))
    return {"name": name, "source": str(path), "operator": operator, "dtypes": dtypes, "sizes": list(sizes)}


@EACH
def test_settings_compute_the_operator(template: Template, operator: str, tmp_path: Path) -> None:
    sizes = [*SIZES[operator], *MORE.get(operator, [])]
    jobs = [job(f"setting{i}", template, operator, setting, H100, sizes, tmp_path) for i, setting in enumerate(sampled(template, 1))]
    space = template.space(H100)
    if space.default() != sampled(template, 0)[0]:
        jobs.append(job("present", template, operator, space.default(), H100, sizes, tmp_path))
    assert interpreted(jobs, tmp_path) == {job["name"]: [] for job in jobs}


def test_scans_go_on_over_several_blocks(tmp_path: Path) -> None:
    (template,) = (template for template, operator in SERVED if operator == "batch_event_truncate")
    setting = template.space(H100).default({"scan_block": 1024})
    sizes = [{"features": 2, "users": 520, "events": 3, "limit": 2, "attributes": 1}]
    jobs = [job("scans", template, "batch_event_truncate", setting, H100, sizes, tmp_path) | {"dtypes": ["int64"]}]
    assert interpreted(jobs, tmp_path) == {"scans": []}


def specs(operator: Operator, case: Case) -> Workload:
    """Shapes of a case; of jagged operators, where drawing the real size takes long, of a small one."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    generator = torch.Generator().manual_seed(0)
    if operator.family == "jagged":
        drawn = operator.make_inputs(case.model_copy(update={"sizes": SIZES[operator.name][-1]}), generator)
    else:
        with FakeTensorMode():
            drawn = operator.make_inputs(case, generator)
    return Workload(tuple(TensorSpec(shape=tuple(x.shape), dtype=str(x.dtype).removeprefix("torch.")) for x in drawn))


def compiled(template: Template, operator_name: str, setting: Setting, target: TargetSpec, cache: Path) -> Build:
    """The built module for the first GPU case of each dtype."""
    operator = registry.load("operators", operator_name)
    cases = {case.dtype: case for case in reversed(operator.cases["gpu"])}
    workloads = [specs(operator, case) for case in cases.values()]
    return TRITON.build(template.render(setting, operator_name, target), target, cache, timeout=300, workloads=workloads)


def assert_compiled(template: Template, operator: str, target: TargetSpec, cache: Path) -> Mapping[str, Scalar]:
    """The metrics of the default's build."""
    setting = template.space(target).default()
    assert setting is not None
    built = compiled(template, operator, setting, target, cache)
    assert built.ok and not [d for d in built.diagnostics if d.severity != "note"], built.diagnostics
    assert built.metrics is not None and built.metrics["registers"] > 0
    return built.metrics


@EACH
def test_defaults_compile_for_hopper_without_spills(template: Template, operator: str, tmp_path: Path) -> None:
    metrics = assert_compiled(template, operator, H100, tmp_path)
    assert metrics["stack_bytes"] == 0, "spills"
    if registry.load("operators", operator).family == "gemm":
        assert "HGMMA" in str(metrics["tensor_shapes"])
    if operator == "matmul":
        assert metrics["tma"] > 0


@EACH
@pytest.mark.slow
def test_defaults_compile_for_ampere_and_blackwell(template: Template, operator: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda target: assert_compiled(template, operator, target, tmp_path), (A100, B200)))


@EACH
def test_rendering_is_deterministic_and_tidy(template: Template, operator: str) -> None:
    space = template.space(H100)
    for seed in range(12):
        setting = space.sample(Random(seed))
        assert setting is not None
        source = template.render(setting, operator, H100)
        assert source == template.render(dict(setting), operator, H100)
        compile(source, "candidate.py", "exec")
        assert "\n\n\n\n" not in source and source.endswith("\n") and "make_block_ptr" not in source
        assert max(map(len, source.splitlines())) <= 160
        assert not [line for line in source.splitlines() if line != line.rstrip() or "{%" in line or ("{{" in line and "}}" in line)]


@EACH
def test_front_matter_makes_sense(template: Template, operator: str) -> None:
    assert template.dtypes and set(kinds(registry.load("operators", operator))) <= set(template.dtypes)
    assert template.targets == ("nvidia",) and template.idea
    for target in (H100, A100, B200, resolve("nvidia:h100")):
        settings = first_settings(template, template.space(target))
        titles = [template.describe(setting) for setting in settings]
        assert settings and len(set(titles)) == len(titles), "drafts must differ in their titles"
    for knob in template.knobs:
        assert knob.help, f"{knob.name} has no help"


def test_every_registered_operator_has_a_template() -> None:
    assert {operator for _, operator in SERVED} == set(registry.names("operators"))
