"""Sealed records: points, sessions, damage that was found, and what collectors leave for each other.

    magic (8) | epoch (4) | seed (32) | sealed msgpack

The object's name is part of what is authenticated, so a record cannot pass for another.
"""

import secrets
import struct
from typing import NamedTuple, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag

from hotspare.errors import RepositoryDamaged
from hotspare.repository.decode import decode_msgpack
from hotspare.repository.format import RECORD_SIZE_MAX
from hotspare.repository.keys import SEED_SIZE, Keyring
from hotspare.repository.pack import nonce_at

HEAD = struct.Struct(">8sI32s")

Content = TypeVar("Content")


class RecordForm(NamedTuple):
    """What tells one sort of record from another."""

    magic: bytes
    purpose: bytes
    """Part of what the record's key is derived from."""
    size_max: int = RECORD_SIZE_MAX
    """Bytes; a longer one is not looked at."""


NOTE = RecordForm(b"HSRECO\x00\x01", b"record")
"""Sessions, and everything that collectors of garbage leave."""
POINT = RecordForm(b"HSPOIN\x00\x01", b"restore point")


def seal_record(keyring: Keyring, name: str, content: object, form: RecordForm = NOTE) -> bytes:
    """Give the bytes of the record that is to be stored as ``name``."""
    seed = secrets.token_bytes(SEED_SIZE)
    sealed = keyring.sealer(keyring.epoch, seed, form.purpose).encrypt(
        nonce_at(HEAD.size), msgspec.msgpack.encode(content), _context(keyring, name)
    )
    return HEAD.pack(form.magic, keyring.epoch, seed) + sealed


def open_record(
    keyring: Keyring,
    name: str,
    data: bytes,
    kind: type[Content],
    form: RecordForm = NOTE,
    damage: RepositoryDamaged | None = None,
) -> Content:
    """Read a record. Raises ``damage``, or else a ``RepositoryDamaged`` that fits notes."""
    damage = damage or RepositoryDamaged(
        f"The record {name} is not what was written",
        meaning="No garbage is collected while it is so; restore points are not affected",
        hint="Restore the object from a copy of the repository",
    )
    if not HEAD.size < len(data) <= form.size_max or data[:8] != form.magic:
        raise damage
    _, epoch, seed = HEAD.unpack_from(data)
    try:
        plain = keyring.sealer(epoch, seed, form.purpose).decrypt(
            nonce_at(HEAD.size), data[HEAD.size :], _context(keyring, name)
        )
        return decode_msgpack(plain, kind)
    except (InvalidTag, msgspec.DecodeError) as error:
        raise damage from error


def _context(keyring: Keyring, name: str) -> bytes:
    return keyring.repository_id + name.encode()
