"""Every rule trips on its own example and is silent on the other; comments, strings and honest kernels trip nothing that flags."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_operator import GOOD

from kernelevolve_lab import registry
from kernelevolve_lab.harness import tripwires
from kernelevolve_lab.harness.tripwires import Rule, Tier, first_hit, rules, tripped
from kernelevolve_lab.records import Flag, Verdict

EXAMPLES = {
    "*native": ("cpp", "native", "cpp"),
    "cpp": ("cpp", "native", "cpp"),
    "cuda": ("cuda", "native", "cuda"),
    "*python": ("triton", "python", "python"),
    "triton": ("triton", "python", "python"),
    "python": ("python", "python", "python"),
}
PACKAGE = Path(tripwires.__file__).parents[1]
LEXERS = {"cpp": "cpp", "c++": "cpp", "cuda": "cuda", "python": "triton"}
HONEST = sorted((Path(__file__).parents[1] / "exploits" / "honest_cpp").glob("*.cpp"))
each_rule = pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)


def language(name: str) -> SimpleNamespace:
    known, binding, lexer = EXAMPLES[name]
    return SimpleNamespace(name=known, binding=binding, lexer=lexer)


@each_rule
def test_a_rule_trips_on_its_example_alone(rule: Rule) -> None:
    assert first_hit(rule, rule.trips, *EXAMPLES[rule.languages[0]]) is not None
    assert tripped(rule.passes, language(rule.languages[0])) == (), "the honest example trips nothing at all"


@each_rule
def test_comments_and_strings_trip_nothing(rule: Rule) -> None:
    name = rule.languages[0]
    lines = rule.trips.strip().replace("*/", "").replace("'''", "").replace('"""', "").splitlines()
    if language(name).binding == "native":
        hidden = ["// " + line for line in lines] + ["/*", *lines, "*/"]
        hidden += [f'const char* note{i} = R"note({line})note";' for i, line in enumerate(lines)] if rule.text is None else []
    else:
        hidden = ["# " + line for line in lines] + ["def f():", '    """' + " ".join(lines).replace('"', "") + '"""']
        hidden += [f"note{i} = '''{line}'''" for i, line in enumerate(lines)] if rule.text is None else []
    assert first_hit(rule, "\n".join(hidden), *EXAMPLES[name]) is None


def test_the_most_severe_tier_is_told_alone_and_with_its_line() -> None:
    source = "#include <unistd.h>\n#include <chrono>\nauto a = std::chrono::steady_clock::now();\nint b = fork();\n"
    [hit] = tripped(source, language("cpp"))
    assert (hit.rule.name, hit.line, hit.source_line) == ("new process", 4, "int b = fork();")
    assert tripwires.suspicion([hit]) == "a rule about its source asks a person to look: it starts a process (line 4)"
    [notice] = tripped(source.replace("fork()", "0"), language("cpp"))
    assert notice.rule.tier is Tier.NOTICE and notice.line == 3 and not tripwires.suspicion([notice])


def test_a_literal_in_pieces_is_one_string() -> None:
    [hit] = tripped('const char* path = "/pr" // here\n    "oc/self" "/mem";\n', language("cpp"))
    assert hit.rule.name == "process files"


def test_cuda_in_a_string_of_a_module_is_read() -> None:
    module = 'import torch\nCODE = r"""\n#include <cuda_runtime.h>\n// fork()\nvoid f(cudaStream_t* s) { cudaStreamCreate(s); }\n"""\n'
    [hit] = tripped(module, language("python"))
    assert (hit.rule.name, hit.line) == ("streams of its own", 5)


def test_code_in_an_fstring_is_code() -> None:
    [hit] = tripped('import sys\nname = f"{sys._getframe(1).f_code}"\n', language("triton"))
    assert hit.rule.name == "looks at its caller"


@pytest.mark.parametrize("path", HONEST, ids=lambda path: path.stem)
def test_no_honest_kernel_is_suspected(path: Path) -> None:
    hits = tripped(path.read_text(), language("cpp"))
    assert all(hit.rule.tier is Tier.NOTICE for hit in hits), [str(hit) for hit in hits]


def test_what_the_lab_itself_writes_and_recommends_is_not_suspected() -> None:
    texts = [(path, "triton" if path.name.endswith(".py.j2") else "cpp", path.read_text()) for path in PACKAGE.rglob("templates/*/*.j2")]
    for path in (*PACKAGE.glob("knowledge/content/**/*.md"), *PACKAGE.glob("languages/guide_*.md")):
        blocks = re.findall(r"```([\w+]+)\n(.*?)```", path.read_text(), re.DOTALL)
        own = {"python": "python"} if path.name == "guide_python.md" else {}
        texts += [(path, (LEXERS | own)[name], code) for name, code in blocks if name in LEXERS]
    assert len(texts) > 20
    suspected = [(path.name, why) for path, name, code in texts if (why := tripwires.suspicion(tripped(code, language(name))))]
    assert suspected == []


def test_rules_are_told_apart_and_name_known_things() -> None:
    assert len({rule.name for rule in rules()}) == len(rules()) >= 30
    known = {"*native", "*python", "cpp", "cuda", "hip", "mtia_cpp", "triton", "cute", "flydsl", "python"}
    for rule in rules():
        assert set(rule.languages) <= known and (rule.code or rule.text)
        assert tripwires.tripped("", registry.load("languages", "cpp")) == ()


def test_the_judge_flags_what_trips_and_lets_behaviour_decide(evaluate) -> None:
    found = evaluate(GOOD + "\n#include <unistd.h>\nint unused() { return fork(); }\n")
    assert found.verdict is Verdict.CORRECT and found.speedup is not None
    assert Flag.SUSPICIOUS in found.flags
    assert any("starts a process" in reason for reason in found.reasons)
    [warning] = [item for item in found.diagnostics if "starts a process" in item.message]
    assert warning.severity == "warning" and "fork()" in warning.source_line
