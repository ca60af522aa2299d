"""Reading replies: files, edits, diffs, and everything that can be wrong with them."""

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_states import source

from kernelevolve_lab.proposers.chat import edits
from kernelevolve_lab.proposers.chat.reply import ReplyProblem, parse

PYTHON = "import triton\n\n\ndef kernel(x):\n    return x\n"


def block(text: str, tag: str = "cpp", fence: str = "```") -> str:
    return f"{fence}{tag}\n{text}{fence}\n"


def problem(text: str, **more) -> ReplyProblem:
    with pytest.raises(ReplyProblem) as caught:
        parse(text, **({"binding": "native"} | more))
    return caught.value


def test_last_of_several_whole_blocks_is_meant():
    blocks = block(source(1)), block("int f();\n"), block(source(2)), block("make\n", "sh")
    assert parse("\nand then\n".join(blocks), binding="native").source == source(2)


def test_title_and_plan_are_kept_apart_from_code():
    parsed = parse(f"**TITLE:** two rows `at` once\n\nBecause.\n\n{block(source(1))}", binding="native")
    assert (parsed.title, parsed.notes) == ("two rows `at` once", "Because.")


@pytest.mark.parametrize("tag", ["cpp", "c++", "C++", "", "cc"])
def test_tags_vary(tag):
    assert parse(block(source(1), tag), binding="native").source == source(1)


def test_longer_fences_and_tildes():
    inner = source(1) + "// ```\n"
    assert parse(block(inner, "cpp", "````"), binding="native").source == inner
    assert parse(block(source(1), "cpp", "~~~"), binding="native").source == source(1)


def test_bare_code_without_a_fence_is_taken():
    assert parse(source(1), binding="native").source == source(1)


def test_code_in_an_unclosed_fence_is_taken_when_whole():
    assert parse(f"```cpp\n{source(1)}", binding="native").source == source(1)
    assert problem("```cpp\n" + source(1)[:-4]).kind == "truncated"


def test_complete_block_survives_a_cut_after_it():
    assert parse(f"{block(source(1))}\nAnd now some more wor", binding="native", finish_reason="length").source == source(1)


def test_python_languages():
    assert parse(block(PYTHON, "python"), binding="python").source == PYTHON
    assert parse(block("class ModelNew(nn.Module):\n    pass\n", "py"), binding="python").how == "file"
    assert problem(block(source(1)), binding="python").kind == "wrong_language"


@pytest.mark.parametrize(
    ("text", "more", "kind"),
    [
        ("", {}, "empty"),
        ("   \n", {}, "empty"),
        ("<think>hmm", {"finish_reason": "length"}, "truncated"),
        ("I cannot help with this request.", {}, "refusal"),
        ("anything", {"refusal": "no"}, "refusal"),
        ("Use one pass.", {}, "no_code"),
        (block("int main() {}\n"), {}, "no_code"),
        (block(PYTHON, "python"), {}, "wrong_language"),
        (PYTHON, {}, "wrong_language"),
        (block(source(1) + "\0"), {}, "unusable"),
        (block(source(1) + "\ud800"), {}, "unusable"),
        (block(source(1) + "// " + "x" * 300_000 + "\n"), {}, "unusable"),
        ("<<<<<<< SEARCH\na\n", {"parent": "a\n"}, "bad_edit"),
        ("<<<<<<< SEARCH\nzzz\n=======\nb\n>>>>>>> REPLACE", {"parent": "a\n"}, "bad_edit"),
    ],
)
def test_problems_are_told_apart(text, more, kind):
    assert problem(text, **more).kind == kind


def test_edits_in_fences_and_without():
    parent = "a\nb\nc\n"
    edit = "<<<<<<< SEARCH\nb\n=======\nB\n>>>>>>> REPLACE\n"
    for text in (edit, block(edit), f"Plan.\n\n{block(edit, 'diff')}"):
        parsed = parse(text, binding="native", parent=parent)
        assert (parsed.source, parsed.how) == ("a\nB\nc\n", "edits")


def test_edit_without_indentation_is_indented_as_the_source_is():
    parent = "def f():\n    if x:\n        return 1\n"
    wanted = "def f():\n    if y:\n        return 2\n"
    assert edits.apply(parent, [edits.Edit("if x:\n    return 1\n", "if y:\n    return 2\n")]) == wanted
    assert edits.apply(parent, [edits.Edit("    if x:  \n        return 1\n", "    if y:\n        return 2\n")]) == wanted


def test_edit_within_a_line():
    assert edits.apply("int a = 1;\n", [edits.Edit("= 1", "= 2")]) == "int a = 2;\n"


def test_edit_that_breaks_off_within_a_line():
    """As read from a reply, where the marker's line end follows; without it the text stands in the parent."""
    parent = "const int n = 4;\nfloat v = f(n);\n"
    found = edits.search_replace_blocks("<<<<<<< SEARCH\nconst int n = 4;\nfloat v\n=======\nconst int n = 8;\nfloat v\n>>>>>>> REPLACE\n")
    assert edits.apply(parent, found) == "const int n = 8;\nfloat v = f(n);\n"


def test_edit_that_is_not_found_is_told_the_nearest_line():
    with pytest.raises(edits.EditError, match=r"no line `float w = f\(n\);`, the nearest is `float v = f\(n\);`"):
        edits.apply("const int n = 4;\nfloat v = f(n);\n", [edits.Edit("const int n = 4;\nfloat w = f(n);\n", "x\n")])


def test_edit_that_fits_twice_is_refused():
    with pytest.raises(edits.EditError, match="occurs 2 times"):
        edits.apply("x\nx\n", [edits.Edit("x\n", "y\n")])


def test_deleting_edit():
    assert edits.apply("a\nb\nc\n", [edits.Edit("b\n", "")]) == "a\nc\n"


def test_diff_with_wrong_line_numbers_applies():
    parent = "".join(f"line {i}\n" for i in range(20))
    diff = "--- a\n+++ b\n@@ -90,3 +90,3 @@\n line 4\n-line 5\n+line five\n line 6\n"
    parsed = parse(block(diff, "diff"), binding="native", parent=parent)
    assert parsed.how == "diff" and parsed.source == parent.replace("line 5\n", "line five\n")


lines = st.lists(st.sampled_from([f"statement {i};" for i in range(40)]), min_size=1, max_size=30, unique=True)


@given(lines, lines)
def test_any_unified_diff_of_unlike_lines_applies(before, after):
    old, new = ["begin;", *before, "end;"], ["begin;", *after, "end;"]
    diff = "\n".join(difflib.unified_diff(old, new, lineterm="", n=1)) + "\n"
    if old != new:
        assert edits.apply("\n".join(old) + "\n", edits.diff_hunks(diff)) == "\n".join(new) + "\n"


@given(st.text())
def test_no_reply_raises_anything_but_a_problem(text):
    for wrapped in (text, block(text), f"<<<<<<< SEARCH\n{text}\n=======\n{text}\n>>>>>>> REPLACE", f"@@ -1 +1 @@\n{text}"):
        try:
            parse(wrapped, binding="native", parent="a\nb\n")
        except ReplyProblem as caught:
            assert str(caught)
