"""A person carries prompt and reply between a run and whatever model there is."""

import pytest
from run_states import TARGET, candidate, correct, source, state_of

from kernelevolve_lab.errors import BadInput
from kernelevolve_lab.proposers.chat import by_hand
from kernelevolve_lab.records.events import TargetMeasured


def test_the_prompt_is_what_chat_would_send(operator):
    mother = candidate(1)
    state = state_of(TargetMeasured(target=TARGET), mother, correct(mother, 1.2, operator))
    made = by_hand.prompt(state, operator, (mother.id,))
    assert source(1) in made.user and "# Now" in made.user and "TITLE:" in made.system
    draft = by_hand.prompt(state, operator).user
    assert source(1) not in draft and "first version" in draft
    assert TARGET.title in draft


def test_a_reply_is_read_with_its_edits(operator):
    mother = candidate(1)
    state = state_of(TargetMeasured(target=TARGET), mother, correct(mother, 1.2, operator))
    edit = "TITLE: two\n\nA plan.\n\n<<<<<<< SEARCH\nnumber = 1\n=======\nnumber = 2\n>>>>>>> REPLACE\n"
    parsed = by_hand.read(edit, state, (mother.id,))
    assert (parsed.source, parsed.title) == (source(2), "two")


@pytest.mark.parametrize(
    ("text", "said"), [("nothing", "no fenced code block"), (f"```cpp\n{source(1)}```", "brings nothing new"), ("", "was empty")]
)
def test_a_reply_of_no_use_gets_a_sentence(operator, text, said):
    mother = candidate(1)
    with pytest.raises(BadInput, match=said):
        by_hand.read(text, state_of(TargetMeasured(target=TARGET), mother, correct(mother, 1.2, operator)))
