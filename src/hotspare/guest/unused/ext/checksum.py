"""The checksums of ext2/3/4, of many structures at once.

Both are computed as the kernel does, without a final inversion: CRC-32C (Castagnoli) for ``metadata_csum``,
CRC-16 (ARC) for the group descriptors of ``uninit_bg``. Rows are worked on side by side, one byte of all of
them in each step; long rows are cut into pieces, whose sums are put together again by the linearity of a CRC.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Sums = NDArray[np.uint32]

_PIECE = 128
"""Bytes: 32 pieces of a 4 KiB bitmap are worked on at once."""


def _table(polynomial: int) -> Sums:
    """Give what each value of a byte adds to a reflected CRC."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(polynomial), table >> 1).astype(np.uint32)
    return table


_CRC32C = _table(0x82F63B78)
_CRC16 = _table(0xA001)
_CRC32C_LIST: list[int] = _CRC32C.tolist()
_CRC16_LIST: list[int] = _CRC16.tolist()


def crc32c(rows: Bytes, start: Sums | int) -> Sums:
    """Sum every row of an array of shape (count, length from 4). ``start``: one for all, or one for each."""
    count, length = rows.shape
    pieces = -(-length // _PIECE)
    padded = np.zeros((count, pieces * _PIECE), dtype=np.uint8)
    padded[:, -length:] = rows
    # To start from something is to add it to the first four bytes; from 0 on, zeroes in front change nothing.
    padded[:, -length:][:, :4] ^= np.asarray(start, dtype="<u4").reshape(-1, 1).view(np.uint8)
    columns = np.ascontiguousarray(padded.reshape(count * pieces, _PIECE).T)
    sums = _advanced(_CRC32C, np.zeros(count * pieces, dtype=np.uint32), columns).reshape(count, pieces)
    whole = sums[:, 0]
    tables = _after_a_piece()
    for number in range(1, pieces):
        shifted = tables[0][whole & 0xFF] ^ tables[1][(whole >> 8) & 0xFF]
        whole = shifted ^ tables[2][(whole >> 16) & 0xFF] ^ tables[3][whole >> 24] ^ sums[:, number]
    return whole


def crc32c_of(data: bytes, start: int) -> int:
    """Sum one short run of bytes, going on from ``start``."""
    return _sum_of(data, start, _CRC32C_LIST)


def crc16(rows: Bytes, start: int) -> Sums:
    """Sum every row of an array of shape (count, length), going on from ``start``."""
    states = np.full(len(rows), start, dtype=np.uint32)
    return _advanced(_CRC16, states, np.ascontiguousarray(rows.T))


def crc16_of(data: bytes, start: int) -> int:
    """Sum one short run of bytes, going on from ``start``."""
    return _sum_of(data, start, _CRC16_LIST)


def _sum_of(data: bytes, start: int, table: list[int]) -> int:
    # For one row, the steps of numpy cost more than those of a plain loop.
    state = start
    for octet in data:
        state = table[(state ^ octet) & 0xFF] ^ (state >> 8)
    return state


def _advanced(table: Sums, states: Sums, columns: Bytes) -> Sums:
    for column in columns:
        states = table[(states ^ column) & 0xFF] ^ (states >> 8)
    return states


@cache
def _after_a_piece() -> Sums:
    """Give what a CRC-32C becomes by a piece of zeroes: shape (4, 256), for each value of its four bytes."""
    values = np.arange(256, dtype=np.uint32)
    states = np.stack([values << np.uint32(8 * byte) for byte in range(4)]).reshape(-1)
    return _advanced(_CRC32C, states, np.zeros((_PIECE, 1), dtype=np.uint8)).reshape(4, 256)
