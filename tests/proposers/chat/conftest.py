import pytest

from kernelevolve_lab import registry


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch, tmp_path):
    """No key, endpoint, price file or knowledge of this machine's user reaches a test."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KERNELEVOLVE_MODEL", "KERNELEVOLVE_PRICES", "KERNELEVOLVE_KNOWLEDGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERNELEVOLVE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def operator():
    return registry.load("operators", "rms_norm")
