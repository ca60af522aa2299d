"""The channel between the judge and a Python worker: frames of JSON with file descriptors beside them. Nothing in it can execute.

Tensors never travel here: they lie in shared memory, whose descriptors do. Both ends use this file, so it needs the standard library alone.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

MAX_FRAME = 16 << 20
MAX_FDS = 16
_LENGTH = struct.Struct("<I")
_CREDENTIALS = struct.Struct("iII")
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_FDS * 4) + socket.CMSG_SPACE(_CREDENTIALS.size)


class ChannelClosed(Exception):
    """The other end is gone."""


class ChannelTimeout(Exception):
    """The other end did not answer in time."""


class ProtocolError(Exception):
    """The other end sent something that is not a frame."""


class Channel:
    """One end of a stream socket that carries frames: four bytes of length, then a JSON object."""

    def __init__(self, sock: socket.socket):
        self._socket = sock
        self.peer_pid = 0
        """The process that sent the last frame, as the kernel says; 0 before that, and where `watch_peer` was not called."""

    def watch_peer(self) -> None:
        """Have the kernel say who sends."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one frame; the descriptors are duplicated into the other process."""
        body = json.dumps(message).encode()
        if len(body) > MAX_FRAME:
            raise ProtocolError(f"a frame of {len(body)} bytes; at most {MAX_FRAME} are allowed")
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        data = _LENGTH.pack(len(body)) + body
        try:
            sent = self._socket.sendmsg([data], ancillary)
            if sent < len(data):
                self._socket.sendall(data[sent:])
        except TimeoutError as error:
            raise ChannelTimeout("the other end does not read") from error
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self, timeout: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """Wait for one frame; the descriptors are the caller's to close."""
        deadline = None if timeout is None else time.monotonic() + timeout
        fds: list[int] = []
        try:
            head = self._read(_LENGTH.size, deadline, fds)
            (length,) = _LENGTH.unpack(head)
            if length > MAX_FRAME:
                raise ProtocolError(f"a frame of {length} bytes; at most {MAX_FRAME} are allowed")
            try:
                message = json.loads(self._read(length, deadline, fds))
            except ValueError as error:
                raise ProtocolError("a frame that is not JSON") from error
            if not isinstance(message, dict):
                raise ProtocolError("a frame that is not an object")
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return message, fds

    def _read(self, size: int, deadline: float | None, fds: list[int]) -> bytes:
        pieces = bytearray()
        while len(pieces) < size:
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise ChannelTimeout("no answer in time")
            self._socket.settimeout(remaining)
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(size - len(pieces), _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
            except TimeoutError as error:
                raise ChannelTimeout("no answer in time") from error
            except OSError as error:
                raise ChannelClosed(str(error)) from error
            for level, kind, raw in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    received = array.array("i")
                    received.frombytes(raw[: len(raw) - len(raw) % received.itemsize])
                    fds.extend(received)
                elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    self.peer_pid = _CREDENTIALS.unpack(raw)[0]
            if flags & socket.MSG_CTRUNC:
                raise ProtocolError("more descriptors than a frame may carry")
            if not data:
                raise ChannelClosed("the other end closed")
            pieces += data
        with contextlib.suppress(OSError):
            self._socket.settimeout(None)
        return bytes(pieces)


def pair() -> tuple[Channel, socket.socket]:
    """The judge's end, and the socket to hand to the worker."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), theirs
