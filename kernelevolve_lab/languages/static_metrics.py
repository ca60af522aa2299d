"""What the machine code says about a kernel without running it: vector width, instruction mix and spills of its hot loop.

Read from `objdump -d` (binutils, which comes with g++), for x86-64. The hot loop is a guess by structure: among the innermost loops of what
`kernel` reaches, the one with the most work, which is the elements that its arithmetic serves in one round, times `ROUNDS` for each loop
around it, as compilers guess frequencies (Wu and Larus 1994, doi:10.1145/192724.192725). Nothing was run: a loop that runs seldom can win
over one that runs often.
"""

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kernelevolve_lab.languages.loops import Instruction, depths, in_loops, innermost_loops
from kernelevolve_lab.languages.process import Sandbox, run
from kernelevolve_lab.records import Scalar

_FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>[^>]+)>:$")
_INSTRUCTION = re.compile(
    r"^ *(?P<address>[0-9a-f]+):\t(?:(?:lock|rep|repz|repnz|bnd|notrack|\{evex\}|\{vex\}) )*"
    r"(?P<mnemonic>\S+) *(?P<operands>[^#<]*)(?:# *[0-9a-f]+ *)?(?:<(?P<symbol>[^>]*)>)?"
)
_MEMORY = re.compile(r"(?:%[defgs]s:)?-?(?:0x[0-9a-f]+)?\((?P<base>%\w+)?(?:,(?P<index>%\w+)(?:,\d)?)?\)")
_FLOATING = re.compile(
    r"^v?(?:add|sub|mul|div|sqrt|min|max|f(?:n?m(?:add|sub)|maddsub|msubadd)\d*|rcp\w*?|rsqrt\w*?|rndscale|reduce|scalef|getexp|getmant"
    r"|round|cmp\w*?|cvt\w*?|dpbf16)(?P<shape>[ps])(?P<type>[sdh])\w*$"
)
_INTEGER = re.compile(
    r"^v?p(?:add|sub|mul|madd|cmp|and|or|xor|sll|srl|sra|sad|min|max|abs|test|ternlog|rol|ror|popcnt|lzcnt|conflict|gather|scatter)"
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
ROUNDS = 10.0
"""How often a loop is supposed to run for each run of what is around it."""
_DEEPEST = 6
_OUTLINED = re.compile(r"\._omp_fn\.|\.omp_outlined")
_SKIP = frozenset({"_init", "_fini", "_start", "deregister_tm_clones", "register_tm_clones", "__do_global_dtors_aux", "frame_dummy"})


@dataclass(frozen=True)
class Loop:
    """An innermost loop; `frame` is whether its function keeps its frame in `%rbp`, `depth` in how many loops it is, its own and those
    around the calls of its function included."""

    function: str
    body: tuple[Instruction, ...]
    frame: bool
    depth: int


def of_library(artifact: Path, scratch: Path, sandbox: Sandbox | None = None, timeout: float = 10.0) -> dict[str, Scalar]:
    """Static metrics of a shared library, by name; a `note` instead of what could not be read.

    `code_bytes`; `calls_in_loops` (names with counts); and of the hot loop, prefixed `hot_loop_`: `function`, `instructions`,
    `vector_bits` (widest vector register that its arithmetic uses, 0 if none), `vector_fp` and `scalar_fp` (floating-point arithmetic by
    shape), `vector_int` (integer arithmetic and gathers on vectors), `fma`, `dot`, `mul`, `add`, `div`, `minmax`, `convert`, `gather`,
    `shuffle`, `call`, `loads`, `stores`, `streaming_stores`, `spill_loads` and `spill_stores` (fixed slots of the stack).
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
    inner = []
    for name, around in _reached(functions).items():
        nesting = depths(functions[name])
        frame = _keeps_frame(functions[name])
        inner += [Loop(name, loop, frame, around + nesting[loop[0].address]) for loop in innermost_loops(functions[name])]
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


def _reached(functions: dict[str, list[Instruction]]) -> dict[str, int]:
    """The functions that `kernel` reaches by calls, jumps and addresses that it takes, each with the depth of the loops around that; a
    parallel region counts as a loop, since it divides one. All functions where there is no `kernel`. What the compiler put apart as cold
    is left out."""
    if "kernel" not in functions:
        return dict.fromkeys(functions, 0)
    found = {"kernel": 0}
    pending = ["kernel"]
    while pending:
        name = pending.pop()
        nesting = depths(functions[name])
        for instruction in functions[name]:
            goal = _name(instruction.symbol)
            if goal not in functions or goal == name or goal.endswith(".cold"):
                continue
            depth = min(_DEEPEST, found[name] + nesting[instruction.address] + bool(_OUTLINED.search(goal)))
            if depth > found.get(goal, -1):
                found[goal] = depth
                pending.append(goal)
    return found


def _heat(loop: Loop) -> tuple[float, int]:
    """Elements that the arithmetic of one round serves, times what the loops around it are supposed to make of it."""
    elements = 0.0
    for instruction in loop.body:
        shape = _shape(instruction)
        elements += _bits(instruction) / 32 if shape in ("vector", "integer") else 1.0 if shape == "scalar" else 0.02
    return elements * ROUNDS**loop.depth, len(loop.body)


def _shape(instruction: Instruction) -> str:
    found = _FLOATING.match(instruction.mnemonic)
    if found is None:
        if instruction.mnemonic.startswith(("vpdp", "tdp")):
            return "vector"
        registers = instruction.operands.split(",")
        clears = "xor" in instruction.mnemonic and len(set(registers)) == 1
        return "integer" if _INTEGER.match(instruction.mnemonic) and not clears else ""
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
        "vector_bits": max((_bits(i) for i, shape in zip(loop.body, shapes, strict=True) if shape in ("vector", "integer")), default=0),
        "vector_fp": shapes.count("vector"),
        "scalar_fp": shapes.count("scalar"),
        "vector_int": shapes.count("integer"),
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
