"""The errors that a user can cause and mend.

Everything that reaches a person as one clear sentence derives from `LabError`; the command line turns it into a line on standard error
and exit status 2 (3 for `NothingJudged`), the widgets into a line of the log. Any other exception is a defect of this package.
"""


class LabError(Exception):
    """A problem that the user can mend; the message names the input and the way out in one sentence."""

    exit_status = 2


class UnknownName(LabError):
    """A name that no registered thing has; the message lists near names."""


class BadInput(LabError):
    """An argument, file or source that cannot be used as it is."""


class MissingTool(LabError):
    """Something that must be installed first (a compiler, the sandbox, a library); the message says how."""


class StoreError(LabError):
    """The store cannot be opened, read or written."""


class RunBusy(LabError):
    """Another live process drives this run."""


class NothingJudged(LabError):
    """The command ran, but nothing could be judged."""

    exit_status = 3
