from pathlib import Path

import pytest

from kernelevolve_lab.engine import asking
from kernelevolve_lab.store import Store


@pytest.fixture
def store(tmp_path: Path):
    opened = Store.open(f"sqlite:///{tmp_path / 'lab.db'}")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "BACK_OFF_SECONDS", 0.01)
