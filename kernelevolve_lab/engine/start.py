"""Start a search: check everything that can be checked up front, then create the run and drive it."""

import os
import platform
import random
import sys
from importlib import metadata
from typing import Any, TypeVar

from pydantic import ValidationError

from kernelevolve_lab import registry
from kernelevolve_lab.engine.handle import RunHandle
from kernelevolve_lab.engine.services import Services
from kernelevolve_lab.errors import BadInput, UnknownName
from kernelevolve_lab.records import Budget, OperatorRef, Profile, RunConfig, TargetSpec
from kernelevolve_lab.store import Store

Handle = TypeVar("Handle", bound=RunHandle)

_VERSIONS = ("kernelevolve-lab", "torch", "triton", "nvidia-cutlass-dsl", "numpy")


def start(
    operator: object,
    target: str = "cpu",
    language: str | None = None,
    *,
    proposer: str = "schedule",
    policy: str = "evolutionary",
    max_candidates: int | None = 100,
    max_seconds: float | None = None,
    max_cost: float | None = None,
    stall: int | None = None,
    fitness: float | None = None,
    seed: int | None = None,
    profile: Profile | None = None,
    store: Store | None = None,
    unsandboxed: bool = False,
    services: Services | None = None,
    handle_type: type[Handle] = RunHandle,
    **options: Any,
) -> Handle:
    """Begin a search and return at once; it goes on in a thread.

    `operator` is a registered name, an `OperatorRef`, or what `kel.operator` takes. `language` is by default the first that serves the
    target. Bounds that are None do not end the run. `options` go to the proposer; `handle_type` is the class of handle to return. Raises
    `LabError` for whatever is wrong before a run is created.
    """
    from kernelevolve_lab.operators.loading import ref_of
    from kernelevolve_lab.targets import profile as profile_of
    from kernelevolve_lab.targets import resolve

    ref = operator if isinstance(operator, OperatorRef) else ref_of(operator)
    spec = resolve(target)
    for kind, name in (("proposers", proposer), ("policies", policy)):
        if name not in registry.names(kind):
            raise UnknownName(registry.unknown(kind, name))
    check = getattr(registry.load("proposers", proposer), "check", None)
    if check is not None:
        check(options)
    language = _language(language, spec)
    try:
        budget = Budget(candidates=max_candidates, seconds=max_seconds, cost=max_cost, stall=stall, fitness=fitness)
        config = RunConfig(
            operator=ref,
            target=spec.name,
            language=language,
            proposer=proposer,
            policy=policy,
            profile=profile or profile_of(spec),
            budget=budget,
            seed=random.SystemRandom().randrange(2**31) if seed is None else seed,
            unsandboxed=unsandboxed,
            options=options,
        )
    except ValidationError as error:
        raise BadInput(_sentence(error)) from None
    if all(bound is None for bound in budget.model_dump().values()):
        raise BadInput("A search without any bound would never end; give max_candidates, max_seconds, max_cost, stall or fitness.")
    if not unsandboxed and services is None:
        from kernelevolve_lab.harness.sandbox import bubblewrap

        bubblewrap()
    store = store or Store.open()
    run = store.create_run(config, _title(ref), _environment(spec))
    handle = handle_type(store, run, services)
    handle._drive()
    return handle


def _language(name: str | None, target: TargetSpec) -> str:
    """A language that serves the target and whose toolchain is here."""
    if name is not None:
        language = registry.load("languages", name)
        if not language.supports(target):
            others = [other for other in registry.names("languages") if registry.load("languages", other).supports(target)]
            raise BadInput(f"{language.title} cannot be used on {target.title}; use {' or '.join(others) or 'another target'}.")
        language.toolchain()
        return name
    serving = [other for other in registry.names("languages") if registry.load("languages", other).supports(target)]
    if not serving:
        raise BadInput(f"No registered language can be used on {target.title}.")
    serving.sort(key=lambda other: not registry.load("languages", other).emulated)  # the same with the hardware and without
    registry.load("languages", serving[0]).toolchain()
    return serving[0]


def _title(ref: OperatorRef) -> str:
    if ref.kind != "registered":
        return ref.name
    return registry.load("operators", ref.text).title


def _environment(target: TargetSpec) -> dict[str, str]:
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}", "machine": target.title}
    for package in _VERSIONS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found | {"processors": str(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count())}


_NAMES = {"candidates": "max_candidates", "seconds": "max_seconds", "cost": "max_cost"}


def _sentence(error: ValidationError) -> str:
    """The first thing that is wrong, under the name by which the caller knows it."""
    first = error.errors()[0]
    name = _NAMES.get(str(first["loc"][0]), ".".join(map(str, first["loc"])))
    return f"{name}={first['input']!r} cannot be used: {first['msg'][0].lower()}{first['msg'][1:]}."
