"""Everything that happens in a run, as events; the log of them is the run.

Events are facts in the past tense. A `Logged` event carries the sequence number that the store gave it. The fold over them is
`records.fold.RunFold`, the only reading of a log that the loop, the widgets, the command line and the extension use.
"""

from typing import Annotated, Literal

from pydantic import Field

from kernelevolve_lab.records.base import Record
from kernelevolve_lab.records.candidate import Candidate
from kernelevolve_lab.records.case import Case, TensorSpec
from kernelevolve_lab.records.evaluation import Evaluation, RooflinePoint, Timing
from kernelevolve_lab.records.hardware import TargetSpec
from kernelevolve_lab.records.run import Budget, Command, RunConfig


class BaselineCase(Record):
    """A baseline's time on one visible case; `name` is `eager` or `torch.compile`."""

    case: Case
    name: str
    timing: Timing
    roofline: RooflinePoint | None = None
    inputs: tuple[TensorSpec, ...] = ()


class RunStarted(Record):
    """The first event of a run; `title` is what people call the operator."""

    kind: Literal["run_started"] = "run_started"
    config: RunConfig
    title: str
    environment: dict[str, str] = {}


class RunResumed(Record):
    """Another process (or the same again) took the run up after it ended or was interrupted."""

    kind: Literal["run_resumed"] = "run_resumed"
    reason: str = ""


class PhaseChanged(Record):
    """What the loop is doing now, for people (`starting workers`, `compiling the baseline`, `searching`)."""

    kind: Literal["phase_changed"] = "phase_changed"
    phase: str


class TargetMeasured(Record):
    """The target with its ceilings as this run sees them."""

    kind: Literal["target_measured"] = "target_measured"
    target: TargetSpec


class BaselinesMeasured(Record):
    """Times of the baselines, measured once for display; speedups always come from paired measurements instead."""

    kind: Literal["baselines_measured"] = "baselines_measured"
    baselines: tuple[BaselineCase, ...]


class CandidateProposed(Record):
    """A proposer delivered a candidate. `prompt` and `reply` are what a model was sent and said (empty for others), `cost` in USD.

    `index` numbers the request that was answered, from 0; None for what a person enqueued. `model` names the language model, where one
    wrote it. Tokens and cost are those of the whole request, model replies that were written down before included.
    """

    kind: Literal["candidate_proposed"] = "candidate_proposed"
    index: int | None = None
    model: str = ""
    candidate: Candidate
    generation: int = 0
    prompt: str = ""
    reply: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0


class ModelReplied(Record):
    """A language model answered one turn of request `index`; written down at once, so that a resumed run does not pay for it again.

    `messages` are the messages that were sent, each as JSON; `reply` is the model's message as JSON. `parents` are the request's.
    `purpose` is `candidate`, or `diagnosis` where the model was first asked what limits the parent.
    """

    kind: Literal["model_replied"] = "model_replied"
    index: int
    model: str
    messages: tuple[str, ...]
    reply: str
    finish_reason: str = "stop"
    purpose: Literal["candidate", "diagnosis"] = "candidate"
    parents: tuple[str, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0


class ProposalFailed(Record):
    """A proposer had nothing usable for request `index`; what it cost still counts."""

    kind: Literal["proposal_failed"] = "proposal_failed"
    index: int | None = None
    model: str = ""
    proposer: str
    reason: str
    prompt: str = ""
    reply: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


class EvaluationStarted(Record):
    """The judge took a candidate up; one without a later `EvaluationFinished` was interrupted and is judged again on resume."""

    kind: Literal["evaluation_started"] = "evaluation_started"
    candidate: str


class EvaluationFinished(Record):
    """The judge's finding; a later one for the same candidate replaces the earlier as the one that counts: a finalist measured again, or,
    where `appeal` is the sequence number of the command that asked for it, a candidate judged again from scratch."""

    kind: Literal["evaluation_finished"] = "evaluation_finished"
    evaluation: Evaluation
    appeal: int | None = None


class SteeringAccepted(Record):
    """A person's command reached the log; `author` says from where (`notebook`, `cli`, `extension`)."""

    kind: Literal["steering_accepted"] = "steering_accepted"
    command: Command
    author: str = "notebook"


class SteeringApplied(Record):
    """The loop acted on the command that was accepted as event `request`; `note` says what came of it."""

    kind: Literal["steering_applied"] = "steering_applied"
    request: int
    note: str = ""


class BudgetChanged(Record):
    kind: Literal["budget_changed"] = "budget_changed"
    budget: Budget


class LessonLearned(Record):
    """Something that later runs may retrieve; `evidence` names the candidates and numbers it rests on."""

    kind: Literal["lesson_learned"] = "lesson_learned"
    lesson: str
    text: str
    evidence: str = ""


class Noted(Record):
    """A line for the log that changes nothing; `level` is `info`, `warning` or `error`."""

    kind: Literal["noted"] = "noted"
    text: str
    level: str = "info"


class RunEnded(Record):
    """The run came to its end; `reason` is for people, `outcome` is `finished`, `stopped` or `failed`."""

    kind: Literal["run_ended"] = "run_ended"
    outcome: Literal["finished", "stopped", "failed"]
    reason: str


Event = Annotated[
    RunStarted
    | RunResumed
    | PhaseChanged
    | TargetMeasured
    | BaselinesMeasured
    | CandidateProposed
    | ModelReplied
    | ProposalFailed
    | EvaluationStarted
    | EvaluationFinished
    | SteeringAccepted
    | SteeringApplied
    | BudgetChanged
    | LessonLearned
    | Noted
    | RunEnded,
    Field(discriminator="kind"),
]


class Logged(Record):
    """An event as the store keeps it: `seq` counts from 1 within the run, `time` in seconds since the epoch."""

    run: str
    seq: int
    time: float
    event: Event
