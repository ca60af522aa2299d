"""The channel carries JSON and descriptors, and survives whatever the other end sends."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelevolve_lab.harness import channel
from kernelevolve_lab.harness.channel import Channel, ChannelClosed, ChannelTimeout, ProtocolError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def _pair() -> tuple[Channel, Channel, socket.socket]:
    ours, theirs = channel.pair()
    return ours, Channel(theirs), theirs


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_what_is_sent_arrives(message):
    ours, theirs, _ = _pair()
    ours.send(message)
    assert theirs.receive(1.0) == (message, [])
    ours.close()
    theirs.close()


def test_descriptors_travel_beside_the_frame():
    ours, theirs, _ = _pair()
    fd = os.memfd_create("x")
    os.write(fd, b"hello")
    ours.send({"a": 1}, (fd,))
    message, (received,) = theirs.receive(1.0)
    assert message == {"a": 1} and received != fd and os.pread(received, 5, 0) == b"hello"
    for each in (fd, received):
        os.close(each)


def test_a_large_frame_arrives_whole():
    ours, theirs, raw = _pair()
    import threading

    message = {"text": "x" * 5_000_000}
    sender = threading.Thread(target=ours.send, args=(message,))
    sender.start()
    assert theirs.receive(10.0)[0] == message
    sender.join()
    raw.close()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (struct.pack("<I", channel.MAX_FRAME + 1), ProtocolError),
        (struct.pack("<I", 4) + b"nope", ProtocolError),
        (struct.pack("<I", 2) + b"[]", ProtocolError),
        (struct.pack("<I", 2) + b"\xff\xfe", ProtocolError),
        (struct.pack("<I", 100) + b"{", ChannelTimeout),
        (b"\x01", ChannelTimeout),
    ],
)
def test_what_is_no_frame_is_refused(data, error):
    ours, theirs, raw = _pair()
    raw.sendall(data)
    with pytest.raises(error):
        ours.receive(0.1)
    theirs.close()


def test_descriptors_of_a_bad_frame_are_not_kept():
    ours, theirs, raw = _pair()
    before = set(os.listdir("/proc/self/fd"))
    fd = os.memfd_create("x")
    socket.send_fds(raw, [struct.pack("<I", 4) + b"nope"], [fd])
    os.close(fd)
    with pytest.raises(ProtocolError):
        ours.receive(1.0)
    assert set(os.listdir("/proc/self/fd")) == before
    theirs.close()


def test_the_end_of_the_other_side_is_seen():
    ours, theirs, _ = _pair()
    theirs.close()
    with pytest.raises(ChannelClosed):
        ours.receive(1.0)
    with pytest.raises(ChannelClosed):
        ours.send({"a": "x" * 100})
        ours.send({"a": "x" * 100})
