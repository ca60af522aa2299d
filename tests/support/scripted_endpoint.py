"""A real HTTP server on loopback that answers chat completions from a script: each request takes the next step of it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Say:
    """A streamed reply, in pieces of `piece` characters; `cut_after` characters the connection breaks off."""

    text: str = ""
    finish: str = "stop"
    piece: int = 40
    usage: tuple[int, int] | None = (1000, 200)
    cut_after: int | None = None
    pause: float = 0.0
    refusal: str = ""
    tool_calls: list[dict] = field(default_factory=list)


@dataclass
class Status:
    """An HTTP error."""

    code: int
    message: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    error: dict = field(default_factory=dict)


@dataclass
class Hang:
    """Accept the request and send nothing for so many seconds."""

    seconds: float = 3.0


@dataclass
class Raw:
    """Answer 200 with exactly these bytes."""

    body: bytes
    content_type: str = "text/event-stream"


class Endpoint:
    """The server's script and what it was sent. `steps` is consumed in order; the last step answers all further requests."""

    def __init__(self, *steps) -> None:
        self.steps = list(steps)
        self.requests: list[dict] = []
        self.keys: list[str] = []
        self.times: list[float] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.models = ["some-model", "other-model"]
        self.url = ""
        self._lock = threading.Lock()

    def next_step(self, body: dict, key: str):
        with self._lock:
            self.requests.append(body)
            self.keys.append(key)
            self.times.append(time.monotonic())
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        return step(body) if callable(step) else step

    def done(self) -> None:
        with self._lock:
            self.in_flight -= 1

    def prompt(self, number: int = -1) -> str:
        return "\n".join(message.get("content") or "" for message in self.requests[number]["messages"])


@contextlib.contextmanager
def serving(*steps) -> Iterator[Endpoint]:
    """Serve a script; `endpoint.url` is the base URL."""
    endpoint = Endpoint(*steps)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args) -> None:
            pass

        def do_GET(self) -> None:
            self._json(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in endpoint.models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            step = endpoint.next_step(body, self.headers.get("Authorization", ""))
            try:
                self._answer(step, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                endpoint.done()

        def _answer(self, step, body: dict) -> None:
            if isinstance(step, Status):
                self._json(step.code, {"error": {"message": step.message, **step.error}}, step.headers)
            elif isinstance(step, Hang):
                time.sleep(step.seconds)
                self.close_connection = True
            elif isinstance(step, Raw):
                self.send_response(200)
                self.send_header("Content-Type", step.content_type)
                self.send_header("Content-Length", str(len(step.body)))
                self.end_headers()
                self.wfile.write(step.body)
            else:
                self._stream(step, body)

        def _stream(self, step: Say, body: dict) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
            for start in range(0, len(step.text), step.piece):
                if step.cut_after is not None and start >= step.cut_after:
                    self.close_connection = True
                    return
                self._event(
                    head | {"choices": [{"index": 0, "delta": {"content": step.text[start : start + step.piece]}, "finish_reason": None}]}
                )
                if step.pause:
                    time.sleep(step.pause)
            if step.refusal:
                self._event(head | {"choices": [{"index": 0, "delta": {"refusal": step.refusal}, "finish_reason": None}]})
            if step.tool_calls:
                self._event(head | {"choices": [{"index": 0, "delta": {"tool_calls": step.tool_calls}, "finish_reason": None}]})
            self._event(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": step.finish}]})
            if step.usage and (body.get("stream_options") or {}).get("include_usage"):
                usage = {"prompt_tokens": step.usage[0], "completion_tokens": step.usage[1], "total_tokens": sum(step.usage)}
                self._event(head | {"choices": [], "usage": usage})
            self._chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def _event(self, payload: dict) -> None:
            self._chunk(b"data: " + json.dumps(payload).encode() + b"\n\n")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def _json(self, status: int, payload: dict, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(payload).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
