import pytest

from kernelevolve_lab import registry


@pytest.fixture(autouse=True)
def _own_home(monkeypatch, tmp_path):
    monkeypatch.delenv("KERNELEVOLVE_KNOWLEDGE", raising=False)
    monkeypatch.setenv("KERNELEVOLVE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def operator():
    return registry.load("operators", "rms_norm")
