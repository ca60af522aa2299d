"""What an NVIDIA cubin says of its kernels: registers, stack, shared memory, threads; and the instruction mix of their machine code.

Resources are read from the ELF file itself: the section `.text.<kernel>` carries the registers, `.nv.info.<kernel>` the launch bounds,
`.nv.shared.<kernel>` the static shared memory. NVIDIA does not publish the attribute numbers of `.nv.info`; tests hold what is read by them
against `ptxas -v`.
Machine code is text from NVIDIA's `nvdisasm`, which comes with Triton, with the CUDA toolkit and as `nvidia-cuda-nvdisasm`.
"""

import math
import re
import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from kernelevolve_lab.languages.occupancy import capability, limits
from kernelevolve_lab.languages.process import Sandbox, run

_MAX_THREADS, _REQUIRED_THREADS, _FRAME_SIZE, _REGISTERS = 0x05, 0x10, 0x11, 0x2F
_SIZED_VALUE = 4
_SYMBOLS, _NOBITS = 2, 8

_LABEL = re.compile(r"^\s*\.text\.(?P<name>[^:\s]+):")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ +)?(?P<opcode>[A-Z][A-Z0-9_]*)(?P<suffix>(?:\.[A-Za-z0-9_]+)*)")
KINDS = {
    "tensor": re.compile(r"HGMMA|QGMMA|IGMMA|BGMMA|HMMA|IMMA|BMMA|DMMA|QMMA|OMMA|UTC\w*MMA"),
    "tma": re.compile(r"UTMALDG|UTMASTG|UTMAREDG|UTMAPF|UBLKCP|UBLKRED|UBLKPF"),
    "async_copies": re.compile(r"LDGSTS"),
    "global_loads": re.compile(r"LDG|LD"),
    "global_stores": re.compile(r"STG|ST"),
    "global_atomics": re.compile(r"ATOMG|ATOM|RED|REDG"),
    "shared_loads": re.compile(r"LDS|LDSM"),
    "shared_stores": re.compile(r"STS|STSM"),
    "local_loads": re.compile(r"LDL"),
    "local_stores": re.compile(r"STL"),
    "barriers": re.compile(r"BAR|SYNCS|WARPGROUP"),
    "shuffles": re.compile(r"SHFL|REDUX|CREDUX"),
    "fp32": re.compile(r"FFMA\d?|FMUL\d?|FADD\d?"),
    "fp16": re.compile(r"HFMA2|HMUL2|HADD2"),
    "fp64": re.compile(r"DFMA|DMUL|DADD"),
    "special": re.compile(r"MUFU"),
    "converts": re.compile(r"F2F|F2FP|F2I|I2F|I2FP|I2I|FRND"),
    "branches": re.compile(r"BRA|BRX|JMP|CALL"),
}
"""Kinds of instructions by opcode (SASS, compute capability 7.5 to 12; CUDA binary utilities, instruction set reference). Local memory is
where spilled registers and arrays indexed at run time go."""


@dataclass(frozen=True)
class Resources:
    """What one kernel of a cubin takes: registers a thread, bytes of local memory a thread (stack and spills), static shared memory a
    block, bytes of code, and the threads a block that it is compiled for (0: not said)."""

    name: str
    registers: int
    stack: int
    shared: int
    code: int
    threads: int


@dataclass(frozen=True)
class Mix:
    """Instruction counts of one kernel: `kinds` by the names of `KINDS`, `tensor_shapes` by full opcode, and the bits of the widest global
    load and store of a thread (0: none)."""

    instructions: int
    kinds: dict[str, int]
    tensor_shapes: dict[str, int]
    widest_load: int
    widest_store: int


def resources(cubin: bytes, arch: str) -> dict[str, Resources]:
    """The kernels of a cubin for `arch` by name; raises `ValueError` when the bytes are none."""
    try:
        return _resources(cubin, arch)
    except (struct.error, IndexError, UnicodeDecodeError, StopIteration, ValueError) as error:
        raise ValueError(f"not a cubin: {error}") from error


def _resources(cubin: bytes, arch: str) -> dict[str, Resources]:
    if cubin[:5] != b"\x7fELF\x02":
        raise ValueError("no ELF header of 64 bits")
    sections = list(_sections(cubin))
    by_name = {section.name: section for section in sections}
    numbers = _symbols(sections)
    of_all = list(_attributes(by_name[".nv.info"].data)) if ".nv.info" in by_name else []
    # From Hopper on the section counts the kilobyte that every block is charged besides.
    reserved = limits(arch).reserved if capability(arch) >= 90 else 0
    found = {}
    for section in sections:
        if not section.name.startswith(".text."):
            continue
        name = section.name.removeprefix(".text.")
        of_function = {attribute: words[1] for attribute, words in of_all if len(words) == 2 and words[0] == numbers.get(name)}
        own = dict(_attributes(by_name[f".nv.info.{name}"].data)) if f".nv.info.{name}" in by_name else {}
        found[name] = Resources(
            name,
            registers=of_function.get(_REGISTERS, section.info >> 24),
            stack=of_function.get(_FRAME_SIZE, 0),
            shared=max(0, by_name[f".nv.shared.{name}"].size - reserved) if f".nv.shared.{name}" in by_name else 0,
            code=section.size,
            threads=math.prod(own.get(_REQUIRED_THREADS) or own.get(_MAX_THREADS) or (0,)),
        )
    return found


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    link: int
    info: int
    size: int
    data: bytes


def _sections(elf: bytes) -> Iterator[_Section]:
    (start,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, start + size * i) for i in range(count)]
    strings = headers[names][4]
    for header in headers:
        at = strings + header[0]
        name = elf[at : elf.index(b"\0", at)].decode()
        data = b"" if header[1] == _NOBITS else elf[header[4] : header[4] + header[5]]
        yield _Section(name, header[1], header[6], header[7], header[5], data)


def _symbols(sections: list[_Section]) -> dict[str, int]:
    """The numbers of all symbols by name."""
    table = next(section for section in sections if section.kind == _SYMBOLS)
    strings = sections[table.link].data
    found = {}
    for number in range(len(table.data) // 24):
        (at,) = struct.unpack_from("<I", table.data, 24 * number)
        found[strings[at : strings.index(b"\0", at)].decode()] = number
    return found


def _attributes(data: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The attributes of a section `.nv.info` that carry values: (number, words)."""
    at = 0
    while at + 4 <= len(data):
        form, attribute, size = struct.unpack_from("<BBH", data, at)
        at += 4
        if form == _SIZED_VALUE:
            if size % 4 == 0:
                yield attribute, struct.unpack_from(f"<{size // 4}I", data, at)
            at += size


@cache
def disassembler() -> str | None:
    """The path of `nvdisasm`: Triton's, the one of pip's `nvidia-cuda-nvdisasm`, or the CUDA toolkit's; None without one."""
    spec = find_spec("triton")
    folders = [Path(spec.origin).parent / "backends" / "nvidia" / "bin"] if spec and spec.origin else []
    pip = find_spec("nvidia")
    for root in pip.submodule_search_locations or () if pip else ():
        folders += [path.parent for path in Path(root).glob("*/bin/nvdisasm")]
    for folder in folders:
        if (folder / "nvdisasm").is_file():
            return str(folder / "nvdisasm")
    return shutil.which("nvdisasm")


def mixes(cubin: Path, scratch: Path, sandbox: Sandbox | None = None, timeout: float = 20.0) -> dict[str, Mix]:
    """The instruction mix of each kernel of a cubin file in `scratch`; empty where there is no disassembler or it fails."""
    program = disassembler()
    if program is None:
        return {}
    ran = run([program, "-c", str(cubin.absolute())], scratch, timeout, sandbox)
    return of_disassembly(ran.output) if ran.status == 0 and not ran.timed_out else {}


def of_disassembly(text: str) -> dict[str, Mix]:
    """The same from the text of `nvdisasm -c`."""
    bodies: dict[str, list[tuple[str, str]]] = {}
    body: list[tuple[str, str]] = []
    for line in text.splitlines():
        if found := _INSTRUCTION.match(line):
            body.append((found["opcode"], found["suffix"]))
        elif found := _LABEL.match(line):
            body = bodies.setdefault(found["name"], [])
    return {name: _mix(body) for name, body in bodies.items()}


def _mix(body: list[tuple[str, str]]) -> Mix:
    body = [(opcode, suffix) for opcode, suffix in body if opcode != "NOP"]
    opcodes = Counter(opcode for opcode, _ in body)
    kinds = {kind: sum(n for opcode, n in opcodes.items() if pattern.fullmatch(opcode)) for kind, pattern in KINDS.items()}
    tensor = Counter(opcode + suffix for opcode, suffix in body if KINDS["tensor"].fullmatch(opcode))
    loads = [_bits(suffix) for opcode, suffix in body if KINDS["global_loads"].fullmatch(opcode) or opcode == "LDGSTS"]
    stores = [_bits(suffix) for opcode, suffix in body if KINDS["global_stores"].fullmatch(opcode)]
    return Mix(len(body), kinds, dict(tensor), max(loads, default=0), max(stores, default=0))


def _bits(suffix: str) -> int:
    """The bits a thread moves, by the opcode's suffixes; 32 where none says."""
    found = re.search(r"\.(?:U|S|BYPASS\.)?(8|16|64|128|256)(?=\.|$)", suffix)
    return int(found[1]) if found else 32
