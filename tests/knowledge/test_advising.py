"""Advice follows from evidence: from a kernel's own numbers, and from what was tried around it."""

import pytest
from run_states import TARGET, candidate, correct, state_of

from kernelevolve_lab.knowledge import advising, floors
from kernelevolve_lab.knowledge.diagnosis import diagnose
from kernelevolve_lab.operators.base import Work
from kernelevolve_lab.records import CacheLevel, Ceiling, Evidence


def measured(kind: str, name: str, value: float) -> Ceiling:
    return Ceiling(kind=kind, name=name, value=value, evidence=Evidence.MEASURED, source="a test")


def placed(of, operator, share: float, metrics: dict, speedup: float = 1.0):
    """A correct evaluation that stands at that share of its roof, with those metrics."""
    found = correct(of, speedup, operator)
    cases = [
        result.model_copy(update={"roofline": result.roofline.model_copy(update={"fraction": share, "bound_by": "dram"})})
        for result in found.cases
    ]
    diagnosis = found.diagnosis.model_copy(update={"findings": ()})
    return found.model_copy(update={"cases": tuple(cases), "metrics": metrics, "diagnosis": diagnosis})


def test_a_kernel_far_from_its_bytes_is_not_told_to_save_bytes(operator):
    one = candidate(1)
    clean = {"hot_loop_vector_bits": 512, "hot_loop_call": 0, "hot_loop_vector_fp": 8, "hot_loop_scalar_fp": 0}
    analysis = diagnose(operator, TARGET, state_of(one, placed(one, operator, 0.1, clean)), (one.id,))
    said = " ".join(analysis.advice)
    assert analysis.bottleneck == "" and "count its instructions" in said
    assert "second pass" not in said and "full width" not in said and "non-temporal" not in said


def test_non_temporal_stores_are_for_data_beyond_the_caches(operator):
    one = candidate(1)
    state = state_of(one, placed(one, operator, 0.6, {"hot_loop_vector_bits": 512}))
    for size, advised in ((1 << 20, True), (1 << 40, False)):
        target = TARGET.model_copy(update={"caches": (CacheLevel(level=3, bytes=size),)})
        assert ("non-temporal" in " ".join(diagnose(operator, target, state, (one.id,)).advice)) is advised
    streams = state_of(one, placed(one, operator, 0.6, {"hot_loop_streaming_stores": 4}))
    small = TARGET.model_copy(update={"caches": (CacheLevel(level=3, bytes=1 << 20),)})
    assert "has no non-temporal" not in " ".join(diagnose(operator, small, streams, (one.id,)).advice)


def test_narrow_vectors_are_noticed(operator):
    one = candidate(1)
    narrow, wide = ({"hot_loop_vector_bits": bits} for bits in (256, 512))
    for metrics, noticed in ((narrow, True), (wide, False)):
        advice = diagnose(operator, TARGET, state_of(one, placed(one, operator, 0.6, metrics)), (one.id,)).advice
        assert ("full width" in advice[0]) is noticed


def test_what_was_tried_in_vain_is_not_advised_again(operator):
    """After one try it is said to have been tried, after two it is left to rest; a try that helped leaves it alone."""
    mother = candidate(1)
    events = [mother, placed(mother, operator, 0.6, {"hot_loop_vector_bits": 512})]

    def advised(*children) -> tuple[str, str]:
        made = [event for number, speed in children for event in attempt(number, speed)]
        analysis = diagnose(operator, TARGET, state_of(*events, *made), (mother.id,))
        return " ".join(analysis.advice), " ".join(analysis.avoid)

    def attempt(number: int, speed: float):
        child = candidate(number, (mother.id,), title=f"prefetch {number} rows ahead")
        return child, correct(child, speed, operator)

    assert "loads in flight" in advised()[0] and "Tried in" not in advised()[0]
    assert f"(Tried in {candidate(2, (mother.id,), title='prefetch 2 rows ahead').id}" in advised((2, 1.01))[0]
    twice, rests = advised((2, 1.01), (3, 0.99))
    assert "loads in flight" not in twice and rests.startswith("More in flight: tried in ")
    assert "Tried" not in advised((2, 1.01), (3, 1.5))[0]


def test_no_inclination_points_to_advice_that_is_not_there():
    assert any("advice" in line for line in advising.inclinations("improve"))
    assert not any("advice" in line for line in advising.inclinations("improve", advised=False))


@pytest.mark.parametrize("phase", ["draft", "improve"])
def test_no_inclination_contradicts_what_limits(phase):
    bound = {limit: " ".join(advising.inclinations(phase, limit)) for limit in ("", "memory", "compute")}
    assert "memory traffic" in bound["memory"] and "memory traffic" in bound[""] and "memory traffic" not in bound["compute"]
    fewer = "fewest operations" if phase == "draft" else "the instructions"
    assert fewer in bound["compute"] and fewer in bound[""] and fewer not in bound["memory"]
    assert all(len(advising.inclinations(phase, limit)) >= 3 for limit in bound)


def test_every_rule_asks_for_something_and_every_topic_is_known():
    rules = advising._rules()
    assert all(rule["say"] and isinstance(rule["when"], list) for rule in rules["improve"])
    assert len({topic["name"] for topic in rules["topic"]}) == len(rules["topic"])


@pytest.mark.parametrize(("megabytes", "level"), [(8, "L3"), (4096, "main memory")])
def test_the_floor_is_that_of_the_level_where_the_bytes_live(megabytes, level):
    caches = (CacheLevel(level=3, bytes=64 << 20),)
    ceilings = (measured("bandwidth", "l3", 6e10), measured("bandwidth", "dram", 2e10), measured("compute", "float32", 5e11))
    target = TARGET.model_copy(update={"caches": caches, "ceilings": ceilings})
    least = floors.floor(target, Work(flops=1e6, bytes=megabytes * 2**20), "float32")
    assert least.level == level and least.memory
    assert least.seconds == pytest.approx(megabytes * 2**20 / least.rate)
    assert floors.floor(TARGET, Work(1e6, 1e6), "float32") is None, "no peak is known there"


def test_one_level_is_spoken_of_for_a_case(operator):
    """The floor of a draft and where a kernel stands speak of the same level and the same time."""
    caches = (CacheLevel(level=3, bytes=1 << 30),)
    ceilings = (measured("bandwidth", "l3", 6e10), measured("bandwidth", "dram", 2e10), measured("compute", "float32", 5e11))
    target = TARGET.model_copy(update={"caches": caches, "ceilings": ceilings})
    (line,) = diagnose(operator, target, state_of()).evidence[:1]
    assert "the 60 GB/s of L3" in line and "main memory" not in line
