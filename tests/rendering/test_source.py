"""Sources as HTML: untrusted text comes out as text."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelevolve_lab.records import Diagnostic
from kernelevolve_lab.rendering.report import stylesheet
from kernelevolve_lab.rendering.source import STYLED, diff_html, highlight_lines, source_html, split_lines

TAG = re.compile(r"<[^>]*>")
NASTY = "<script>alert('x')</script>\n</td></table><img src=x onerror=alert(1)> & \"q\"\n"
LANGUAGES = ["cpp", "triton", "cuda", "no-such-language"]


def plain(markup: str) -> str:
    return html.unescape(TAG.sub("", markup))


@pytest.mark.parametrize("language", LANGUAGES)
@given(text=st.text(alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("<>&\"'\n\r\t/*#'")), max_size=300))
def test_highlighting_keeps_every_character_and_every_line(language, text):
    lines = highlight_lines(text, language)
    assert [plain(line) for line in lines] == split_lines(text)
    for line in lines:
        assert line.count("<span") == line.count("</span>")
        assert not re.search(r"<(?!/?span\b)", line)


@given(before=st.text("ab<&\n", max_size=80), after=st.text("ab<&\n", max_size=80))
def test_a_difference_shows_both_sides_whole(before, after):
    markup = diff_html(before, after, "cpp", ("a", "b"))
    cells = re.findall(r'<td class="kl-n">(\d*)</td><td class="kl-c[^"]*">(.*?)</td>', markup, re.DOTALL)
    left, right = cells[0::2], cells[1::2]
    for side, text in ((left, before), (right, after)):
        shown = [plain(line) for number, line in side if number]
        assert [line if line != " " else "" for line in shown] == [line if line != " " else "" for line in split_lines(text)]


def test_markup_in_a_source_is_shown_and_not_used():
    for markup in (source_html(NASTY, "cpp"), diff_html(NASTY, "int x;", "cpp", ("<b>a</b>", "b"))):
        assert "<script" not in markup
        assert "<img" not in markup
        assert "&lt;script&gt;" in re.sub(r"</?span[^>]*>", "", markup)
        assert "<b>a</b>" not in markup


def test_diagnostics_stand_under_their_lines():
    found = (
        Diagnostic(severity="error", message="no <acos> here", line=2, column=5),
        Diagnostic(severity="warning", message="of the linker"),
        Diagnostic(severity="warning", message="past the end", line=99),
    )
    rows = source_html("int a;\nint b;\nint c;", "cpp", found).split("<tr")
    at = next(i for i, row in enumerate(rows) if "no &lt;acos&gt; here" in row)
    assert "kl-error" in rows[at] and "line 2, column 5" in rows[at]
    assert ">2</td>" in rows[at - 1] and "kl-line-error" in rows[at - 1]
    assert "of the linker" in rows[1], "what has no line comes first"
    assert "past the end" in rows[-1], "what has no such line is not lost"


def test_equal_runs_fold_and_open_without_scripts():
    lines = [f"int v{i};" for i in range(60)]
    changed = [*lines[:30], "int changed;", *lines[31:]]
    markup = diff_html("\n".join(lines), "\n".join(changed), "cpp", ("a", "b"))
    assert markup.count("<details") == 2
    assert "27 equal lines" in markup and "26 equal lines" in markup
    assert "+1 −1 lines" in markup
    assert "<script" not in markup


def test_the_same_source_says_so():
    assert "the same source" in diff_html("int a;", "int a;", "cpp", ("a", "b"))


def test_what_is_marked_has_a_colour_and_the_other_way_round():
    styles = stylesheet("fragments")
    rules = re.findall(r"\.kl-code (?::is\(([^)]*)\)|(\.\w+)) \{ color", styles)
    coloured = {name.strip().lstrip(".") for group in rules for name in "".join(group).split(",")}
    assert coloured == set(STYLED)
