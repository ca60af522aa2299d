"""A comm that keeps what a widget sends, and can say what a front end would."""

from __future__ import annotations

import json

import comm
from comm.base_comm import BaseComm


class MockComm(BaseComm):
    """Collects messages; `custom()` are the custom ones' contents, `sizes()` the bytes that each message takes as JSON."""

    open_comms: list[MockComm] = []

    def __init__(self, **kwargs) -> None:
        self.messages: list[tuple[str, dict]] = []
        super().__init__(**kwargs)
        MockComm.open_comms.append(self)

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys) -> None:
        self.messages.append((msg_type, data or {}))
        if msg_type == "comm_close":
            MockComm.open_comms.remove(self)

    def custom(self) -> list[dict]:
        return [data["content"] for kind, data in self.messages if kind == "comm_msg" and data.get("method") == "custom"]

    def sizes(self) -> list[int]:
        return [len(json.dumps(data)) for kind, data in self.messages if kind == "comm_msg"]

    def take(self) -> list[dict]:
        """The custom messages so far, once."""
        taken = self.custom()
        self.messages = [m for m in self.messages if m[0] != "comm_msg"]
        return taken

    def say(self, content: dict) -> None:
        """What the front end's `model.send(content)` does."""
        self.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})


def install(monkeypatch) -> type[MockComm]:
    """Make every widget opened from now on use a `MockComm`."""
    monkeypatch.setattr(comm, "create_comm", MockComm)
    return MockComm
