"""The secrets of a repository, and every key that is derived from them.

Keys are derived with HKDF-SHA256 (RFC 5869). Each sealed object carries 32 random bytes, its seed, and is
sealed with AES-256-GCM under a key of its own, derived from the epoch's key and the seed; nonces are
positions within the object. So no nonce state outlives a process, and writers never need to agree on one.
"""

import secrets
from collections.abc import Iterable
from typing import Self

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hotspare.errors import RepositoryDamaged

KEY_SIZE = 32
SEED_SIZE = 32
TAG_SIZE = 16
_EPOCH_STEP_MAX = 1 << 16


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """What every slot gives to those who open it."""

    id_key: bytes
    """Keys the chunk ids, for the life of the repository."""
    epochs: dict[int, bytes]
    """Sealing keys by epoch."""
    current: int
    """The epoch that new objects are sealed under."""
    slots: dict[str, bytes] = {}
    """Public halves of the slots that are trusted, by slot id. New epochs are sealed to these only."""
    removed: tuple[str, ...] = ()
    """Ids of slots that were removed: one that comes back is not trusted."""

    @classmethod
    def merge(cls, found: Iterable["Secrets"]) -> "Secrets":
        """Join what several people's changes, made at the same time perhaps, have left.

        Keys and slots are joined, never lost; a slot that anybody removed stays removed.
        """
        parts = list(found)
        removed = {slot for part in parts for slot in part.removed}
        slots = {slot: public for part in parts for slot, public in part.slots.items() if slot not in removed}
        return cls(
            id_key=parts[0].id_key,
            epochs={number: key for part in parts for number, key in part.epochs.items()},
            current=max(part.current for part in parts),
            slots=slots,
            removed=tuple(sorted(removed)),
        )

    def with_new_epoch(self) -> Self:
        """Add the key of a further epoch, which is not used before it is ``current``.

        Its number leaps, so that two people who do this at the same moment do not give it to two keys.
        """
        number = max(self.epochs) + 1 + secrets.randbelow(_EPOCH_STEP_MAX)
        return msgspec.structs.replace(self, epochs={**self.epochs, number: secrets.token_bytes(KEY_SIZE)})


class Keyring:
    """The keys of one open repository."""

    def __init__(self, repository_id: str, unlocked: Secrets) -> None:
        self.repository_id = bytes.fromhex(repository_id)
        self.secrets = unlocked
        self.epoch = unlocked.current
        self._machine_key = hkdf(unlocked.id_key, b"", b"hotspare machine folder")
        self._config_key = hkdf(unlocked.id_key, b"", b"hotspare config")

    def chunk_id(self, plaintext: memoryview | bytes) -> bytes:
        """Give the keyed BLAKE3-256 of a chunk."""
        return blake3(plaintext, key=self.secrets.id_key).digest()

    def machine_folder(self, machine_id: str) -> str:
        """Give the folder name of a machine's points, which tells nothing to who has no key."""
        return blake3(machine_id.encode(), key=self._machine_key).digest(16).hex()

    def config_mac(self, line: bytes) -> str:
        """Give the hexadecimal MAC over the first line of ``config``."""
        return blake3(line, key=self._config_key).hexdigest()

    def sealer(self, epoch: int, seed: bytes, purpose: bytes) -> AESGCM:
        """Give the cipher of one object.

        Raises:
            RepositoryDamaged: there is no key of that epoch.
        """
        key = self.secrets.epochs.get(epoch)
        if key is None:
            raise RepositoryDamaged(
                f"An object is sealed with key epoch {epoch}, which this key slot does not have",
                hint="If the keys were rotated just now, run the command again; else see 'hotspare key list'",
            )
        return AESGCM(hkdf(key, seed, b"hotspare " + purpose))


def new_secrets(id_key: bytes | None = None) -> Secrets:
    """Draw the secrets of a new repository; with ``id_key``, one that calls its chunks as another does."""
    return Secrets(
        id_key=id_key or secrets.token_bytes(KEY_SIZE),
        epochs={1: secrets.token_bytes(KEY_SIZE)},
        current=1,
    )


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """Give 32 bytes of HKDF-SHA256."""
    return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=salt or None, info=info).derive(key)
