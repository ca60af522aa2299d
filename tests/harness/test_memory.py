"""Shared memory: what is sealed stays, what is poisoned shows."""

from __future__ import annotations

import mmap
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelevolve_lab.harness import memory
from kernelevolve_lab.harness.memory import BIG_POISON, NAN_POISON, Arena
from kernelevolve_lab.languages.abi import ITEMSIZE
from kernelevolve_lab.records import TensorSpec

SPECS = st.lists(
    st.builds(TensorSpec, shape=st.lists(st.integers(0, 40), max_size=3).map(tuple), dtype=st.sampled_from(sorted(ITEMSIZE))),
    min_size=1,
    max_size=6,
)


@given(SPECS)
def test_tensors_lie_apart_and_aligned(specs):
    placed, size = memory.layout(specs)
    ends = 0
    for tensor in placed:
        assert tensor.offset >= ends and tensor.offset % 64 == 0
        ends = tensor.offset + tensor.bytes
    assert ends <= size and size % 4096 == 0
    assert len({tensor.offset % 4096 for tensor in placed}) == len(placed)


def test_a_sealed_set_cannot_be_changed_by_anybody():
    fd = memory.create("inputs", 8192)
    with mmap.mmap(fd, 8192) as writable:
        writable[:5] = b"hello"
    assert not memory.is_sealed(fd, 8192)
    memory.seal(fd, memory.SEAL_ALL)
    assert memory.is_sealed(fd, 8192) and not memory.is_sealed(fd, 4096)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 8192)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    with pytest.raises(PermissionError):
        os.pwrite(again, b"x", 0)
    os.close(again)
    os.close(fd)


def test_an_arena_cannot_be_cut_under_the_judge():
    arena = Arena(8192)
    with pytest.raises(PermissionError):
        os.ftruncate(arena.fd, 0)
    arena.close()


FLOATS = {"float32": np.float32, "float64": np.float64, "float16": np.float16}


@pytest.mark.parametrize("dtype", FLOATS)
def test_poison_is_nan_or_large(dtype):
    item = ITEMSIZE[dtype]
    assert np.isnan(np.frombuffer(NAN_POISON[item] * 3, FLOATS[dtype])).all()
    assert (np.frombuffer(BIG_POISON[item] * 3, FLOATS[dtype]) > 100).all()


def test_bfloat16_poison_is_nan():
    bits = int.from_bytes(NAN_POISON[2], "little") << 16
    assert np.isnan(np.array([bits], np.uint32).view(np.float32)[0])


@given(SPECS, st.integers(0, 2**32))
def test_sprinkled_words_are_found_until_they_are_overwritten(specs, seed):
    placed, size = memory.layout(specs)
    arena, rng = Arena(size), np.random.default_rng(seed)
    arena.poison(placed, NAN_POISON)
    sprinkled = arena.sprinkle(placed, rng)
    assert arena.unwritten(sprinkled) == sprinkled.shape[1]
    for tensor in placed:
        if tensor.bytes >= 8:
            last = (tensor.offset + tensor.bytes) // 4 - 1
            assert last in sprinkled[0]
    assert all(any(t.offset <= 4 * w and 4 * w + 4 <= t.offset + t.bytes for t in placed) for w in sprinkled[0])
    arena.poison(placed, BIG_POISON)
    assert arena.unwritten(sprinkled) <= 1
    arena.close()
