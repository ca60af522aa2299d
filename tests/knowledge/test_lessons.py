"""Lessons: distilled from a run, kept as files, merged, edited, found again."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_states import TARGET, broken, candidate, correct, source, state_of

from kernelevolve_lab import registry
from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.knowledge.distil import distil, learn
from kernelevolve_lab.knowledge.lessons import Gain, Lesson, LessonBook, _read
from kernelevolve_lab.records import Candidate


def lesson(text: str = "Read each row once.", **changes) -> Lesson:
    values = {"kind": "helped", "operator": "rms_norm", "family": "row", "target": "cpu", "language": "cpp", "gain": Gain(1.3, 1.2, 1.4)}
    return Lesson(text=text, **values | changes)


def run(operator):
    first = candidate(1, title="three passes")
    better = candidate(2, (first.id,), title="two passes")
    worse = candidate(3, (better.id,), title="one row per thread")
    same = candidate(4, (better.id,), title="renamed variables")
    fails = [candidate(number, (better.id,), title=f"foo {number}") for number in (5, 6)]
    return state_of(
        first,
        correct(first, 1.0, operator),
        better,
        correct(better, 1.5, operator),
        worse,
        correct(worse, 0.9, operator),
        same,
        correct(same, 1.52, operator),
        *(event for each in fails for event in (each, broken(each))),
    )


def test_run_is_distilled(operator):
    lessons = {one.kind: one for one in distil(run(operator), operator)}
    assert sorted(lessons) == ["helped", "hurt", "pitfall", "winner"]
    assert "two passes" in lessons["helped"].text
    assert lessons["helped"].gain == Gain(1.5, pytest.approx(1.5 * 0.97 / 1.03), pytest.approx(1.5 * 1.03 / 0.97))
    assert "one row per thread" in lessons["hurt"].text and lessons["hurt"].gain.high < 1
    assert "'foo' was not declared" in lessons["pitfall"].text and "1 more" in lessons["pitfall"].evidence[0]
    assert lessons["winner"].source == source(4)


def test_what_the_intervals_do_not_support_is_no_lesson(operator):
    first, second = candidate(1), candidate(2, (candidate(1).id,))
    state = state_of(first, correct(first, 0.9, operator), second, correct(second, 0.93, operator))
    assert distil(state, operator) == []


def test_knobs_are_named(operator):
    def scheduled(number, knobs, parents=()):
        return Candidate(language="cpp", source=source(number), parents=parents, template="row_norm", knobs=knobs, proposer="schedule")

    first = scheduled(1, {"unroll": 1, "stream": False})
    second = scheduled(2, {"unroll": 4, "stream": False}, (first.id,))
    found = distil(state_of(first, correct(first, 1.0, operator), second, correct(second, 1.3, operator)), operator)
    assert [one.text for one in found if one.kind == "helped"] == ["In template row_norm: unroll from 1 to 4."]


def test_learning_twice_from_the_same_run_changes_nothing(operator):
    state, book = run(operator), LessonBook()
    events = learn(state, operator, book)
    assert len(events) == 4 and {event.lesson for event in events} == set(book.all())
    assert learn(state, operator, book) == []


def test_same_lesson_of_another_run_is_merged():
    book = LessonBook()
    book.add([lesson(evidence=("run a: 1 to 2",))])
    book.add([lesson("read each ROW once", gain=Gain(1.5, 1.4, 1.7), evidence=("run b: 3 to 4",))])
    (merged,) = book.all().values()
    assert merged.seen == 2 and merged.evidence == ("run a: 1 to 2", "run b: 3 to 4")
    assert (merged.gain.low, merged.gain.high) == (1.2, 1.7) and 1.3 < merged.gain.value < 1.5


def test_other_numbers_are_another_lesson():
    book = LessonBook()
    book.add(
        [
            lesson("tiled product with a long title: TR = 8, TV = 4.", evidence=("a",)),
            lesson("tiled product with a long title: TR = 8, TV = 2."),
        ]
    )
    assert len(book.all()) == 2


def test_faster_winner_takes_the_place():
    book = LessonBook()
    book.add([lesson("old", kind="winner", gain=Gain(1.5, 1.4, 1.6), source="old\n", evidence=("a",))])
    book.add([lesson("slow", kind="winner", gain=Gain(1.2, 1.1, 1.3), source="slow\n", evidence=("b",))])
    book.add([lesson("new", kind="winner", gain=Gain(2.0, 1.9, 2.1), source="new\n", evidence=("c",))])
    (winner,) = book.all().values()
    assert (winner.source, winner.seen) == ("new\n", 3)


def test_person_can_edit_and_delete():
    book = LessonBook()
    (name,) = book.add([lesson(evidence=("a",))])
    path = book.folder / f"{name}.md"
    path.write_text(path.read_text().replace("Read each row once.", "My own words."))
    assert book.all()[name].text == "My own words."
    book.remove(name)
    assert book.all() == {}
    with pytest.raises(BadInput, match="no lesson"):
        book.remove("../lab")


@pytest.mark.parametrize(
    "text", ["nothing", "---\nkind: helped\n---\nx", "---\nkind: odd\noperator: a\nfamily: b\ntarget: c\nlanguage: d\n---\n"]
)
def test_broken_lesson_names_its_file(tmp_path, text):
    (tmp_path / "mine.md").write_text(text)
    with pytest.raises(BadInput, match=r"mine\.md"):
        LessonBook(tmp_path).all()


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).map(str.strip).filter(bool)


@given(
    text=words, code=st.text(st.characters(codec="utf-8", exclude_characters="\r\x00", exclude_categories=["Cs"])), seen=st.integers(1, 99)
)
def test_file_gives_back_what_was_written(tmp_path_factory, text, code, seen):
    code = code.strip("\n") + "\n" if code.strip("\n") else ""
    written = lesson(text, kind="winner", seen=seen, evidence=("run a: 1", "run b: 2"), source=code)
    path = tmp_path_factory.mktemp("lesson") / "one.md"
    path.write_text(written.as_markdown(), encoding="utf-8", newline="")
    assert _read(path) == dataclasses.replace(written, source=code)


def test_search_prefers_what_is_near(operator):
    book = LessonBook()
    book.add(
        [
            lesson("other operator of the family", operator="softmax"),
            lesson("same operator"),
            lesson("same operator, large", gain=Gain(3.0, 2.9, 3.1)),
            lesson("other family", operator="matmul", family="gemm"),
            lesson("other language", language="triton"),
            lesson("other vendor", target="nvidia:h100"),
            lesson("best", kind="winner", source="x\n"),
        ]
    )
    assert [one.text for one in book.search(operator, TARGET, "cpp")] == [
        "best",
        "same operator, large",
        "same operator",
        "other operator of the family",
    ]
    assert len(book.search(operator, TARGET, "cpp", limit=2)) == 2
    assert book.search(registry.load("operators", "conv1d"), TARGET, "cpp") != ()
