"""Delta payloads: what goes in comes out, and nothing else is believed."""

import contextlib
import random

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.repository import delta
from hotspare.repository.codec import DELTA, decode

KIB = 1024


@st.composite
def changes(draw: st.DrawFn) -> tuple[bytes, bytes, int]:
    """A base, what became of it, and the shift that they are compared with."""
    shift = draw(st.sampled_from([delta.PAGE_SHIFT, delta.CHUNK_SHIFT]))
    size = draw(st.integers(0, 40)) << shift
    size += draw(st.integers(0, (1 << shift) - 1))
    base = random.Random(draw(st.integers(0, 5))).randbytes(size)
    plaintext = bytearray(base)
    for _ in range(draw(st.integers(0, 6))):
        if size:
            at = draw(st.integers(0, size - 1))
            patch = draw(st.binary(min_size=1, max_size=300))[: size - at]
            plaintext[at : at + len(patch)] = patch
    return base, bytes(plaintext), shift


@settings(max_examples=300, deadline=None)
@given(changes(), st.booleans())
def test_a_delta_upon_its_base_gives_the_chunk(change: tuple[bytes, bytes, int], base_at_hand: bool) -> None:
    base, plaintext, shift = change
    old, new = memoryview(base), memoryview(plaintext)
    changed = delta.changed_blocks(old, new, shift)
    step = 1 << shift
    assert changed.tolist() == [
        base[at : at + step] != plaintext[at : at + step] for at in range(0, len(base), step)
    ]
    payload = delta.encode(new, changed, shift, old if base_at_hand else None)
    assert delta.decode(payload, base) == plaintext
    assert decode(DELTA, payload, len(base), base) == plaintext


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_broken_payload_is_refused_or_gives_the_size_of_the_base(data: st.DataObject) -> None:
    base, plaintext, shift = data.draw(changes())
    changed = delta.changed_blocks(memoryview(base), memoryview(plaintext), shift)
    payload = bytearray(delta.encode(memoryview(plaintext), changed, shift, memoryview(base)))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    for broken in (bytes(payload), bytes(payload[:cut]), bytes(payload) + b"more"):
        with contextlib.suppress(ValueError):
            assert len(delta.decode(broken, base)) == len(base)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 20000))
def test_junk_is_refused_or_gives_the_size_of_the_base(junk: bytes, size: int) -> None:
    with contextlib.suppress(ValueError):
        assert len(delta.decode(junk, bytes(size))) == size


def payload_of(frame: bytes, *, form: int = delta.CHUNK_SHIFT, bitmap: bytes = b"\x80") -> bytes:
    return bytes((form,)) + bitmap + frame


BASE = bytes(3 * 4096 + 100)
FRAME = zstandard.ZstdCompressor().compress(b"x" * 4096)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "empty"),
        (payload_of(FRAME, form=delta.CHUNK_SHIFT | 0x40), "form"),
        (payload_of(FRAME, form=3), "form"),
        (payload_of(FRAME, form=17), "form"),
        (bytes((delta.CHUNK_SHIFT,)), "bitmap"),
        (payload_of(FRAME, bitmap=b"\x88"), "bitmap"),
        (payload_of(FRAME, bitmap=b"\xc0"), "another size"),
        (payload_of(FRAME, bitmap=b"\x10"), "another size"),
        (payload_of(zstandard.ZstdCompressor().compress(bytes(1 << 30))), "another size"),
        (
            payload_of(zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 4096)),
            "another size",
        ),
        (payload_of(FRAME + b"z"), "unused|extra"),
        (payload_of(b"no frame"), "magic|header|frame|error"),
    ],
)
def test_each_way_to_be_wrong_is_named(payload: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=f"(?i){why}"):
        delta.decode(payload, BASE)


def test_a_changed_row_costs_the_row_not_the_block() -> None:
    base = random.Random(1).randbytes(256 * KIB)
    plaintext = bytearray(base)
    plaintext[70000:70060] = random.Random(2).randbytes(60)
    changed = delta.changed_blocks(memoryview(base), memoryview(plaintext), delta.CHUNK_SHIFT)

    assert np.flatnonzero(changed).tolist() == [70000 // 4096]
    assert len(delta.encode(memoryview(plaintext), changed, delta.CHUNK_SHIFT, memoryview(base))) < 120
    without = delta.encode(memoryview(plaintext), changed, delta.CHUNK_SHIFT, None)
    assert 4096 < len(without) < 4200


def test_a_delta_without_a_base_is_no_chunk() -> None:
    with pytest.raises(ValueError, match="codec 2"):
        decode(DELTA, payload_of(FRAME), 1 << 20)
