"""What the machine code says about a kernel without running it: vector width, instruction mix and spills of its hot loop.

Read from `objdump -d` (binutils, which comes with g++), for x86-64. The hot loop is a guess by structure: among the innermost loops, the
one with the most vector floating-point instructions. A loop that runs seldom can win over one that runs often.
"""

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kernelevolve_lab.languages.loops import Instruction, in_loops, innermost_loops
from kernelevolve_lab.languages.process import Sandbox, run
from kernelevolve_lab.records import Scalar

_FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>[^>]+)>:$")
_INSTRUCTION = re.compile(
    r"^ *(?P<address>[0-9a-f]+):\t(?:(?:lock|rep|repz|repnz|bnd|notrack|\{evex\}|\{vex\}) )*"
    r"(?P<mnemonic>\S+) *(?P<operands>[^#<]*)(?:<(?P<symbol>[^>]*)>)?"
)
_MEMORY = re.compile(r"(?:%[defgs]s:)?-?(?:0x[0-9a-f]+)?\((?P<base>%\w+)?(?:,(?P<index>%\w+)(?:,\d)?)?\)")
_FLOATING = re.compile(
    r"^v?(?:add|sub|mul|div|sqrt|min|max|f(?:n?m(?:add|sub)|maddsub|msubadd)\d*|rcp\w*?|rsqrt\w*?|rndscale|reduce|scalef|getexp|getmant"
    r"|round|cmp\w*?|cvt\w*?|dpbf16)(?P<shape>[ps])(?P<type>[sdh])\w*$"
)
_KINDS = (
    ("fma", re.compile(r"^vf(?:n?m(?:add|sub)|maddsub|msubadd)\d")),
    ("dot", re.compile(r"^(?:vdpbf16ps|vpdp|tdp)")),
    ("mul", re.compile(r"^v?mul[ps]")),
    ("add", re.compile(r"^v?(?:add|sub)[ps]")),
    ("div", re.compile(r"^v?(?:div|sqrt)[ps]")),
    ("minmax", re.compile(r"^v?(?:min|max)[ps]")),
    ("convert", re.compile(r"^v?cvt")),
    ("gather", re.compile(r"^v(?:p?gather|p?scatter)")),
    (
        "shuffle",
        re.compile(r"^v?p?(?:shuf|perm|unpck|valign|align|insert|extract|broadcast|blend|movhlps|movlhps|movddup|compress|expand)"),
    ),
    ("call", re.compile(r"^call")),
)
_ADDRESS = re.compile(r"^[0-9a-f]+$")
_STORES_NOTHING = re.compile(r"^(?:cmp|test|ucomis|vucomis|comis|vcomis|prefetch|nop|j|call|push|bt$|vptest|kortest|lea)")
_SKIP = frozenset({"_init", "_fini", "_start", "deregister_tm_clones", "register_tm_clones", "__do_global_dtors_aux", "frame_dummy"})


@dataclass(frozen=True)
class Loop:
    """An innermost loop; `frame` is whether its function keeps its frame in `%rbp`."""

    function: str
    body: tuple[Instruction, ...]
    frame: bool


def of_library(artifact: Path, scratch: Path, sandbox: Sandbox | None = None, timeout: float = 10.0) -> dict[str, Scalar]:
    """Static metrics of a shared library, by name; a `note` instead of what could not be read.

    `code_bytes`; `calls_in_loops` (names with counts); and of the hot loop, prefixed `hot_loop_`: `function`, `instructions`,
    `vector_bits` (widest vector register that its arithmetic uses, 0 if none), `vector_fp` and `scalar_fp` (floating-point arithmetic by
    shape), `fma`, `dot`, `mul`, `add`, `div`, `minmax`, `convert`, `gather`, `shuffle`, `call`, `loads`, `stores`, `streaming_stores`,
    `spill_loads` and `spill_stores` (fixed slots of the stack).
    """
    objdump = shutil.which("objdump")
    if objdump is None:
        return {"note": "objdump is absent (it comes with binutils), so the machine code was not read"}
    ran = run([objdump, "-d", "--no-show-raw-insn", "-w", "-j", ".text", str(artifact)], scratch, timeout, sandbox)
    if ran.timed_out or ran.status != 0:
        return {"note": "objdump could not read the machine code"}
    if "file format elf64-x86-64" not in ran.output:
        return {"note": "static metrics are read for x86-64 only"}
    return of_disassembly(ran.output)


def of_disassembly(text: str) -> dict[str, Scalar]:
    """The same metrics from the text of `objdump -d --no-show-raw-insn -w`."""
    functions = _functions(text)
    addresses = [i.address for body in functions.values() for i in body]
    metrics: dict[str, Scalar] = {"code_bytes": max(addresses) - min(addresses) + 1 if addresses else 0}
    calls = Counter(_name(i.symbol) for body in functions.values() for i in in_loops(body) if i.mnemonic.startswith("call") and i.symbol)
    metrics["calls_in_loops"] = ", ".join(f"{name} {count}" for name, count in sorted(calls.items())[:8])
    inner = [Loop(name, loop, _keeps_frame(body)) for name, body in functions.items() for loop in innermost_loops(body)]
    if inner:
        hot = max(inner, key=_heat)
        metrics.update({f"hot_loop_{name}": value for name, value in _mix(hot).items()})
    return metrics


def _functions(text: str) -> dict[str, list[Instruction]]:
    functions: dict[str, list[Instruction]] = {}
    body: list[Instruction] = []
    for line in text.splitlines():
        if found := _INSTRUCTION.match(line):
            operands, mnemonic = found["operands"].strip(), found["mnemonic"]
            goal = int(operands, 16) if mnemonic.startswith("j") and _ADDRESS.match(operands) else -1
            body.append(Instruction(int(found["address"], 16), mnemonic, operands, found["symbol"] or "", goal))
        elif found := _FUNCTION.match(line):
            body = [] if found["name"] in _SKIP else functions.setdefault(found["name"], [])
    return functions


def _name(symbol: str) -> str:
    return symbol.split("@")[0].split("+")[0]


def _keeps_frame(body: Sequence[Instruction]) -> bool:
    return any(i.mnemonic == "mov" and i.operands == "%rsp,%rbp" for i in body)


def _heat(loop: Loop) -> tuple[int, int, int]:
    shapes = [_shape(i) for i in loop.body]
    return shapes.count("vector"), shapes.count("scalar"), len(loop.body)


def _shape(instruction: Instruction) -> str:
    found = _FLOATING.match(instruction.mnemonic)
    if found is None:
        return "vector" if instruction.mnemonic.startswith(("vpdp", "tdp")) else ""
    return "vector" if found["shape"] == "p" else "scalar"


def _bits(instruction: Instruction) -> int:
    return max((bits for register, bits in (("%zmm", 512), ("%ymm", 256), ("%xmm", 128)) if register in instruction.operands), default=0)


def _mix(loop: Loop) -> dict[str, Scalar]:
    shapes = [_shape(i) for i in loop.body]
    counts: Counter[str] = Counter()
    for instruction in loop.body:
        for kind, pattern in _KINDS:
            if pattern.match(instruction.mnemonic):
                counts[kind] += 1
        counts.update(_memory_use(instruction, loop.frame))
    names = [kind for kind, _ in _KINDS] + ["loads", "stores", "streaming_stores", "spill_loads", "spill_stores"]
    return {
        "function": loop.function[:80],
        "instructions": len(loop.body),
        "vector_bits": max((_bits(i) for i, shape in zip(loop.body, shapes, strict=True) if shape == "vector"), default=0),
        "vector_fp": shapes.count("vector"),
        "scalar_fp": shapes.count("scalar"),
        **{name: counts[name] for name in names},
    }


def _memory_use(instruction: Instruction, frame: bool) -> list[str]:
    found = _MEMORY.search(instruction.operands)
    if found is None or instruction.mnemonic.startswith(("lea", "nop", "prefetch")):
        return []
    writes = instruction.operands.endswith(")") or (instruction.operands.endswith("}") and ")" in instruction.operands.rsplit(",", 1)[-1])
    store = writes and not _STORES_NOTHING.match(instruction.mnemonic) and "," in instruction.operands[: found.start()]
    uses = ["stores" if store else "loads"]
    on_stack = found["base"] == "%rsp" or (frame and found["base"] == "%rbp")
    if on_stack and found["index"] is None:
        uses.append("spill_stores" if store else "spill_loads")
    if store and "movnt" in instruction.mnemonic:
        uses.append("streaming_stores")
    return uses
