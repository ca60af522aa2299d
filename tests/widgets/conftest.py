"""Every widget here talks to a mock comm, and none may be left open."""

import mock_comm
import pytest


@pytest.fixture(autouse=True)
def comms(monkeypatch):
    monkeypatch.setattr(mock_comm.MockComm, "open_comms", [])
    return mock_comm.install(monkeypatch)
