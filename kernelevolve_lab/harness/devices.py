"""Which GPU a judge uses, and what its workers must know of that."""

from __future__ import annotations

import os

from kernelevolve_lab.records import TargetSpec

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's own variable; with two cards, two processes with one each share a search without sharing a timing lock."""


def device_of(target: TargetSpec) -> str:
    """Where PyTorch computes for a target: `cuda:0` for an NVIDIA card of this machine, else `cpu`."""
    return "cuda:0" if target.vendor == "nvidia" and target.present else "cpu"


def environment(device: str) -> dict[str, str]:
    """What a worker for that device finds in its environment on top."""
    if device == "cpu":
        return {}
    found = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}  # asking whether there is a device must not start it, since it cannot be forked then
    return found | ({VISIBLE: os.environ[VISIBLE]} if VISIBLE in os.environ else {})


def lock_name(device: str) -> str:
    """The folder of the cache in which a device's timing lock lies: one for the processors, one for each card."""
    return "" if device == "cpu" else f"locks/cuda-{os.environ.get(VISIBLE, '0').replace('/', '_').split(',')[0]}"
