"""`%%kernel`: into a live run or judged alone; what is wrong is one sentence."""

import subprocess
import sys

import pytest
from fake_handle import FakeHandle
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from kernelevolve_lab import api
from kernelevolve_lab.errors import BadInput, UnknownName
from kernelevolve_lab.records import Evaluation, Evidence, Verdict, candidate_id
from kernelevolve_lab.records.events import SteeringAccepted, SteeringApplied
from kernelevolve_lab.records.run import Enqueue
from kernelevolve_lab.widgets import magic
from kernelevolve_lab.widgets.verdict import InRun, Judged

SOURCE = 'extern "C" void kernel() {}\n'


class Going(api.Run):
    """A run as far as a cell asks."""

    def __init__(self, run: str = "going", status: str = "running") -> None:
        self.id, self.given, self._status = run, [], status

    @property
    def status(self) -> str:
        return self._status

    def candidate(self, name: str):
        if name != "abc":
            raise UnknownName(f"Run {self.id} has no candidate '{name}'; it has none yet.")
        return type("Entry", (), {"id": "abc123"})

    def enqueue(self, source, language=None, title="", parents=()):
        self.given.append((source, language, title, parents))
        return "new"


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    made = InteractiveShell(ipython_dir=str(tmp_path_factory.mktemp("ipython")))
    made.run_line_magic("load_ext", "kernelevolve_lab")
    return made


@pytest.fixture
def shown(monkeypatch):
    """What cells display, without a front end that could be updated."""
    kept = []
    monkeypatch.setattr(magic, "display", lambda thing, display_id: kept.append(thing))
    return kept


def cell(shell, line: str, text: str = SOURCE):
    return shell.run_cell_magic("kernel", line, text)


def test_a_cell_goes_into_the_run_that_a_variable_holds(shell, shown):
    run = shell.user_ns["mine"] = Going()
    cell(shell, "mine --language triton --title 'two words' --parent abc")
    cell(shell, "mine")
    assert run.given == [(SOURCE, "triton", "two words", ("abc123",)), (SOURCE, None, "written in a cell", ())]
    assert isinstance(shown[0], InRun)
    bench = shell.user_ns["work"] = type("Bench", (), {"run": Going()})()
    cell(shell, "work")
    assert len(bench.run.given) == 1, "a workbench stands for the run that it shows"


def test_without_a_name_the_newest_run_that_goes_on_is_meant(shell, shown, monkeypatch):
    run = Going()
    monkeypatch.setattr(api, "newest", lambda: run)
    cell(shell, "")
    assert len(run.given) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "No search goes on here"),
        ("nothing", "neither a variable of this notebook nor a run in the store"),
        ("number", "'number' is an int and no run"),
        ("mine --parent xyz", "has no candidate 'xyz'"),
        ("over", "take it up again with run.resume()"),
        ("mine --target cpu", "--target does not go with a search"),
        ("--operator softmax --parent abc", "--parent does not go with a kernel that is judged alone"),
        ("--operator sofmax --language cpp", "did you mean 'softmax'"),
        ("--operator softmax --target cpus --language cpp", "'cpu'"),
        ("mine --speed 3", "Unrecognized arguments: --speed 3. Write: %%kernel"),
        ("mine --title 'open", "No closing quotation"),
        ("mine --title", "expected one argument"),
    ],
)
def test_what_is_wrong_is_one_sentence(shell, shown, monkeypatch, tmp_path, line, said):
    monkeypatch.setenv("KERNELEVOLVE_HOME", str(tmp_path))
    monkeypatch.setattr(api, "newest", lambda: None)
    shell.user_ns |= {"mine": Going(), "number": 7, "over": Going(status="interrupted")}
    with pytest.raises(UsageError) as told:
        cell(shell, line)
    assert said in str(told.value) and "\n" not in str(told.value)
    assert told.value.__suppress_context__


def test_an_empty_cell_is_told_so(shell):
    with pytest.raises(UsageError, match="empty below its first line"):
        cell(shell, "", "\n")


def evaluation(**changes) -> Evaluation:
    values = {"candidate": "c", "target": "cpu", "language": "cpp", "verdict": Verdict.INCORRECT, "evidence": Evidence.MEASURED}
    return Evaluation(**values | {"reasons": ("off by <b>2</b>",)} | changes)


def test_alone_it_is_judged_as_asked_and_shown_escaped(shell, shown, monkeypatch):
    asked = []

    def evaluate(source, operator, target, *, language, progress):
        progress("opening <the> judge")
        asked.append((source, operator, target, language))
        return evaluation()

    monkeypatch.setattr(api, "evaluate", evaluate)
    found = cell(shell, "--operator softmax")
    assert isinstance(found, Judged) and found.evaluation.verdict is Verdict.INCORRECT
    assert asked == [(SOURCE, "softmax", "cpu", "cpp")]
    assert "off by &lt;b&gt;2" in found._repr_html_() and "<b>2" not in found._repr_html_()
    assert "off by <b>2</b>" in repr(found)
    cell(shell, "--operator softmax", "def kernel(x):\n    return x\n")
    assert asked[1][3] == "python"


def test_an_interrupt_is_one_sentence_too(shell, shown, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "evaluate", interrupted)
    with pytest.raises(UsageError, match="Interrupted"):
        cell(shell, "--operator softmax --language cpp")


def test_the_language_follows_from_the_source():
    assert api.language_for(SOURCE, "cpu") == "cpp"
    assert api.language_for("def kernel(x): ...", "cpu") == "python"
    assert api.language_for("import triton\ndef kernel(x): ...", "nvidia:h100") == "triton"
    with pytest.raises(BadInput, match="no such language serves"):
        api.language_for("def kernel(x): ...", "mtia:2i")


def test_the_output_follows_until_the_verdict(monkeypatch):
    monkeypatch.setattr(magic, "LOOK_EVERY", 0.001)
    said = iter(["queued", "queued", "judging", "correct"])

    class Shown:
        settled = False
        text = "queued"

        def __repr__(self):
            self.text = next(said, self.text)
            self.settled = self.text == "correct"
            return self.text

    shown, told = Shown(), []
    magic._follow(shown, lambda thing: told.append(thing.text))
    assert told == ["queued", "judging", "correct"]


def test_a_candidate_of_a_run_is_shown_from_the_queue_to_its_verdict():
    handle = FakeHandle(10)
    handle.play(12)
    waiting = InRun(Scripted(handle), "0123456789ab")
    assert "waits for run" in repr(waiting) and not waiting.settled
    judged = next(entry for entry in handle.state.entries.values() if entry.evaluation)
    shown = InRun(Scripted(handle), judged.id)
    assert shown.settled and f"#{judged.order}" in repr(shown)
    assert "<script" not in shown._repr_html_() and judged.id in shown._repr_html_()
    handle.append(SteeringAccepted(command=Enqueue(source="odd", language="cpp")))
    handle.append(SteeringApplied(request=handle.state.seq, note="That source cannot be judged: it is odd."))
    refused = InRun(Scripted(handle), candidate_id("cpp", "odd"))
    assert repr(refused) == "That source cannot be judged: it is odd." and refused.settled
    handle.stop()
    assert waiting.settled


class Scripted:
    """A scripted run that goes on until it is stopped."""

    def __init__(self, handle: FakeHandle) -> None:
        self.id, self._handle = handle.run_id, handle

    @property
    def state(self):
        return self._handle.state

    @property
    def is_driven(self) -> bool:
        return self._handle.status == "running"


def test_loading_it_loads_no_torch(tmp_path):
    code = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell(ipython_dir=sys.argv[1])
shell.run_line_magic("load_ext", "kernelevolve_lab")
assert "kernel" in shell.magics_manager.magics["cell"]
print([name for name in ("torch", "triton", "openai", "anywidget", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
