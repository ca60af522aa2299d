"""An NVIDIA GPU that is not there: enough of one for the host code of a module to run without it.

Tensors stay in host memory (or are PyTorch's fake ones, without memory) and are told to be on "cuda"; `torch.cuda` and Triton's driver
answer from the target's specification. Only ever used in a process that runs nothing else.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from kernelevolve_lab.languages import occupancy
from kernelevolve_lab.records import TargetSpec


def about(target: TargetSpec) -> dict[str, Any]:
    """What `describe` needs of a target, as plain data for another process."""
    level2 = next((cache.bytes for cache in target.caches if cache.level == 2), 0)
    return {"title": target.title, "arch": target.arch, "units": target.units, "memory_bytes": target.memory_bytes, "l2_bytes": level2}


def describe(target: Mapping[str, Any]) -> SimpleNamespace:
    """What `torch.cuda.get_device_properties` would say of a target that `about` describes."""
    capability = occupancy.capability(target["arch"])
    sm = occupancy.limits(target["arch"])
    return SimpleNamespace(
        name=target["title"],
        major=capability // 10,
        minor=capability % 10,
        total_memory=target["memory_bytes"],
        multi_processor_count=target["units"],
        max_threads_per_multi_processor=sm.threads,
        max_threads_per_block=1024,
        regs_per_multiprocessor=occupancy.REGISTERS,
        shared_memory_per_block=48 << 10,
        shared_memory_per_block_optin=sm.shared_block,
        shared_memory_per_multiprocessor=sm.shared,
        warp_size=occupancy.WARP,
        L2_cache_size=target["l2_bytes"],
        is_integrated=0,
    )


def stand_in(target: Mapping[str, Any]) -> None:
    """Let PyTorch, and Triton where it is installed, believe in this process that the target is there, for good."""
    device = describe(target)
    _torch(device)
    if find_spec("triton") is not None:
        _triton(device)


def _torch(device: SimpleNamespace) -> None:
    import torch
    from torch._subclasses import fake_tensor

    # Alignment is what Triton asks the pointer for: a view's offset counts, the (aligned) start of the storage does not.
    fake_tensor.FakeTensor.data_ptr = lambda self: self.storage_offset() * self.element_size()
    # Fake tensors answer for their device themselves. PyTorch's own code asks with no mode on its stack and needs the truth.
    there, truth = torch.device("cuda", 0), fake_tensor.FakeTensor.device.fget
    fake_tensor.FakeTensor.device = property(lambda self: there if torch._C._len_torch_function_stack() else truth(self))
    move = torch.nn.Module.to

    def to(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        """Only what is no device is converted: every tensor is where it is said to be."""
        _, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        asked = {name: value for name, value in (("dtype", dtype), ("memory_format", memory_format)) if value is not None}
        return move(module, **asked) if asked else module

    torch.nn.Module.to = to
    torch.nn.Module.cuda = lambda module, device=None: module

    stream = SimpleNamespace(cuda_stream=0, device_index=0, synchronize=lambda: None)
    answers = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda d=None: device.name,
        "get_device_properties": lambda d=None: device,
        "get_device_capability": lambda d=None: (device.major, device.minor),
        "is_bf16_supported": lambda including_emulation=True: device.major >= 8,
        "synchronize": lambda d=None: None,
        "current_stream": lambda d=None: stream,
        "default_stream": lambda d=None: stream,
        "device": lambda d: contextlib.nullcontext(),
        "stream": lambda s: contextlib.nullcontext(),
        "_lazy_init": lambda: None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)


def on_host() -> Any:
    """A context in which every tensor is said to be on "cuda", and what is asked for there is made in host memory."""
    import torch
    from torch.overrides import TorchFunctionMode

    there = torch.device("cuda", 0)
    told = {
        torch.Tensor.device.__get__: there,
        torch.Tensor.is_cuda.__get__: True,
        torch.Tensor.is_cpu.__get__: False,
        torch.Tensor.get_device: 0,
        torch.Tensor.record_stream: None,
        torch.Tensor.is_pinned: False,
    }

    def here(value: Any) -> Any:
        if isinstance(value, torch.device) and value.type == "cuda":
            return torch.device("cpu")
        return "cpu" if isinstance(value, str) and re.fullmatch(r"cuda(:\d+)?", value) else value

    class OnHost(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function in told:
                return told[function]
            if function is torch.Tensor.cuda:
                return args[0]
            named = {name: here(value) for name, value in (kwargs or {}).items() if name != "pin_memory"}
            return function(*map(here, args), **named)

    return OnHost()


class _Driver:
    """What Triton asks of the active driver before it launches anything."""

    def __init__(self, device: SimpleNamespace):
        self._device = device
        self.utils = SimpleNamespace(get_device_properties=self._properties)

    def _properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": self._device.shared_memory_per_block_optin,
            "max_num_regs": self._device.regs_per_multiprocessor,
            "multiprocessor_count": self._device.multi_processor_count,
            "warpSize": self._device.warp_size,
        }

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 10 * self._device.major + self._device.minor, self._device.warp_size)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cuda", 0)

    def get_benchmarker(self) -> Any:
        """Times nothing: the first of several configurations is as good as any."""
        return lambda call, quantiles=None, **_: [1.0] * len(quantiles) if quantiles else 1.0

    def get_device_interface(self) -> Any:
        import torch

        return torch.cuda


def _triton(device: SimpleNamespace) -> None:
    from triton.runtime import driver

    driver.set_active(_Driver(device))
