"""A run's configuration, budget and the commands by which people steer it."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from kernelevolve_lab.records.base import Record
from kernelevolve_lab.records.case import Profile, Scalar
from kernelevolve_lab.records.evaluation import Flag
from kernelevolve_lab.records.operator_ref import OperatorRef


class Budget(Record):
    """When a run ends at the latest; None is no bound. `cost` in USD, `stall` candidates without a new best, `fitness` good enough."""

    candidates: PositiveInt | None = 100
    seconds: PositiveFloat | None = None
    cost: PositiveFloat | None = None
    stall: PositiveInt | None = None
    fitness: PositiveFloat | None = None

    def extended(self, more: "Extend") -> "Budget":
        """The budget with more added to the bounds that it has."""
        added = {
            name: getattr(self, name) + getattr(more, name) for name in ("candidates", "seconds", "cost") if getattr(self, name) is not None
        }
        return self.model_copy(update=added)


class RunConfig(Record):
    """All that decides a run; with the same seed and the same recording it takes the same course."""

    operator: OperatorRef
    target: str
    language: str
    proposer: str = "schedule"
    policy: str = "evolutionary"
    profile: Profile = "laptop"
    budget: Budget = Budget()
    seed: int = 0
    unsandboxed: bool = False
    options: dict[str, Scalar] = {}


class Reject(Record):
    command: Literal["reject"] = "reject"
    candidate: str
    reason: str


class Pin(Record):
    command: Literal["pin"] = "pin"
    candidate: str
    pinned: bool = True


class Hint(Record):
    command: Literal["hint"] = "hint"
    text: str


class Enqueue(Record):
    """A person's own source, judged before anything else; `prompt` and `reply` are what a model was sent and said, where one wrote it."""

    command: Literal["enqueue"] = "enqueue"
    source: str
    language: str
    title: str = ""
    parents: tuple[str, ...] = ()
    notes: str = ""
    prompt: str = ""
    reply: str = ""


class Branch(Record):
    """Expand this candidate next, whatever the policy would choose."""

    command: Literal["branch"] = "branch"
    candidate: str


class Pause(Record):
    command: Literal["pause"] = "pause"


class Resume(Record):
    command: Literal["resume"] = "resume"


class Stop(Record):
    command: Literal["stop"] = "stop"


class Extend(Record):
    """Add to the budget; also starts the count of candidates without a new best anew."""

    command: Literal["extend"] = "extend"
    candidates: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0
    cost: NonNegativeFloat = 0.0


class Appeal(Record):
    """Have a judged candidate judged again from scratch; every verdict stays in the record."""

    command: Literal["appeal"] = "appeal"
    candidate: str
    reason: str


class Overrule(Record):
    """A person looked into a flag of a correct candidate and says why it does not count; the flag and the verdict stay as they are."""

    command: Literal["overrule"] = "overrule"
    candidate: str
    flag: Flag
    reason: str


Command = Annotated[
    Reject | Pin | Hint | Enqueue | Branch | Pause | Resume | Stop | Extend | Appeal | Overrule, Field(discriminator="command")
]
