from hypothesis import given
from hypothesis import strategies as st

from kernelevolve_lab.languages.diagnostics import MAX_DIAGNOSTICS, clean, parse

SOURCE = "first\nsecond line\nthird"

CLANG = """candidate.cpp:2:5: warning: unused variable 'n' [-Wunused-variable]
candidate.cpp:3:1: error: use of undeclared identifier 'third'
/usr/lib/llvm-19/include/c++/v1/vector:120:7: note: candidate function not viable
1 warning and 1 error generated.
"""


def test_errors_come_first_and_notes_stay_with_what_they_explain() -> None:
    found = parse(CLANG, SOURCE)
    assert [d.severity for d in found] == ["error", "note", "warning"]
    assert found[0].source_line == "third" and (found[0].line, found[0].column) == (3, 1)
    assert found[1].file == "vector" and found[1].source_line == "" and found[1].line == 120
    assert found[2].source_line == "second line"


def test_what_the_linker_says_is_an_error() -> None:
    text = """/usr/bin/ld: /tmp/ccX.o: in function `kernel':
candidate.cpp:(.text+0x5): undefined reference to `foo(float)'
collect2: error: ld returned 1 exit status
"""
    assert [(d.severity, d.file, d.message) for d in parse(text, SOURCE)] == [("error", "linker", "undefined reference to `foo(float)'")]


def test_a_repeated_message_is_said_once_and_the_number_is_bounded() -> None:
    assert len(parse("candidate.cpp:1:1: error: same\n" * 5, SOURCE)) == 1
    assert len(parse("".join(f"candidate.cpp:{i}:1: error: no {i}\n" for i in range(100)), SOURCE)) == MAX_DIAGNOSTICS


def test_paths_are_cut_to_their_last_part() -> None:
    assert clean("cannot open '/root/x/secret.h', see /usr/include/c++/12/bits/a.h:3") == "cannot open 'secret.h', see a.h:3"
    assert clean("no match for a/b and 1 / 2") == "no match for a/b and 1 / 2"


@given(st.text(max_size=300), st.text(max_size=100))
def test_any_text_is_read_without_an_exception(text: str, source: str) -> None:
    for d in parse(text, source):
        assert d.severity in {"error", "warning", "note"} and len(d.message) <= 600 and len(d.source_line) <= 200
