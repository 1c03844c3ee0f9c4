"""Packs' tables: what is read is what was sealed, and nothing broken is believed."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import RepositoryDamaged
from hotspare.repository.codec import DELTA, RAW
from hotspare.repository.keys import Keyring, new_secrets
from hotspare.repository.pack import HEAD, Entry, PackBuilder, open_table, read_table

KEYRING = Keyring("00" * 16, new_secrets())


def pack() -> tuple[bytes, list[Entry]]:
    builder = PackBuilder(KEYRING, "data")
    builder.add(bytes([1]) * 32, RAW, b"one")
    builder.add(bytes([2]) * 32, DELTA, b"two", bytes([1]) * 32)
    builder.add(bytes([3]) * 32, RAW, b"three")
    sealed = builder.finish()
    return bytes(builder.data), sealed.entries


def test_the_table_tells_every_entry_and_the_base_of_a_delta() -> None:
    data, entries = pack()
    assert list(read_table(KEYRING, "data/x", data)) == entries
    assert [entry.base for entry in entries] == [b"", bytes([1]) * 32, b""]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 16), st.integers(1, 255), st.booleans())
def test_an_altered_or_cut_pack_has_no_table_or_the_same(at: int, flip: int, cut: bool) -> None:
    data, entries = pack()
    at %= len(data)
    broken = data[:at] if cut else data[:at] + bytes((data[at] ^ flip,)) + data[at + 1 :]
    with contextlib.suppress(RepositoryDamaged):
        assert list(read_table(KEYRING, "data/x", broken)) == entries


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_rows_that_break_off_are_damage(table: bytes) -> None:
    seed = bytes(32)
    sealed = KEYRING.sealer(1, seed, b"pack").encrypt(
        HEAD.size.to_bytes(12, "big"), table, KEYRING.repository_id + b"table"
    )
    try:
        entries = list(open_table(KEYRING, "data/x", 1, seed, HEAD.size, sealed))
    except RepositoryDamaged:
        return
    assert sum(41 + len(entry.base) for entry in entries) == len(table)


@pytest.mark.parametrize("size", [41 + 31, 41 + 33, 40])
def test_a_base_that_is_cut_is_damage(size: int) -> None:
    row = bytes(40) + bytes((DELTA,)) + bytes(80)
    seed = bytes(32)
    sealed = KEYRING.sealer(1, seed, b"pack").encrypt(
        HEAD.size.to_bytes(12, "big"), row[:size], KEYRING.repository_id + b"table"
    )
    with pytest.raises(RepositoryDamaged, match="broken row"):
        list(open_table(KEYRING, "data/x", 1, seed, HEAD.size, sealed))
