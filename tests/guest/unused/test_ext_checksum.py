"""Checksums of many rows at once, against those of single bytes after another and against known values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.guest.unused.ext.checksum import crc16, crc16_of, crc32c, crc32c_of

ALL = 0xFFFFFFFF


def test_known_values() -> None:
    """The check values of the catalogue of CRCs; ext leaves the final inversion out."""
    assert crc32c_of(b"123456789", ALL) ^ ALL == 0xE3069283
    assert crc16_of(b"123456789", 0) == 0xBB3D
    assert crc32c_of(bytes(32), ALL) ^ ALL == 0x8A9136AA  # RFC 3720, B.4


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(4, 700), st.integers(0, ALL), st.integers(0, 1000))
def test_rows_are_summed_as_single_bytes_are(count: int, length: int, start: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 256, (count, length), dtype=np.uint8)
    data = [row.tobytes() for row in rows]
    assert crc32c(rows, start).tolist() == [crc32c_of(one, start) for one in data]
    assert crc16(rows, start & 0xFFFF).tolist() == [crc16_of(one, start & 0xFFFF) for one in data]
    starts = np.arange(start, start + count, dtype=np.int64).astype(np.uint32)
    assert crc32c(rows, starts).tolist() == [
        crc32c_of(one, int(first)) for one, first in zip(data, starts, strict=True)
    ]


@pytest.mark.parametrize("cut", [4, 128, 1000, 4092])
def test_a_sum_goes_on_where_another_ended(cut: int) -> None:
    data = np.random.default_rng(1).integers(0, 256, (3, 4096 + cut), dtype=np.uint8)
    assert crc32c(data[:, cut:], crc32c(data[:, :cut], ALL)).tolist() == crc32c(data, ALL).tolist()
