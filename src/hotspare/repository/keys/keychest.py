"""All key slots of a repository, as they lie in its store.

A change (a slot more, a slot less, new epoch) is a *batch*: for every slot one new object
``keys/<slot id>-<batch>``, each with the same secrets sealed to it. Who opens a slot joins what all its
objects hold, so that changes that two people make at the same moment are both kept. Objects of a batch are
deleted only by a later change that knows all that was in them.
"""

import re
import secrets
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import msgspec

from hotspare.errors import ObjectNotFound, RepositoryDamaged, UsageError, WrongKey
from hotspare.repository.decode import decode_json
from hotspare.repository.format import KEYS, RECORD_SIZE_MAX
from hotspare.repository.keys.keyring import Keyring, Secrets
from hotspare.repository.keys.slot import (
    RECOVERY,
    Credential,
    KeyFile,
    KeySlot,
    RecoveryKey,
    make_slot,
    open_private,
    open_secrets,
    seal_secrets,
)
from hotspare.storage.backend import Backend

_NAME = re.compile(re.escape(KEYS) + r"([0-9a-f]{16})-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class StoredSlot:
    """One key pair, and the objects of it. Two pairs under one id are two slots, of which one is forged."""

    id: str
    slot: KeySlot
    objects: tuple[tuple[str, KeySlot], ...]
    """Batch and content."""


def read_slots(backend: Backend) -> list[StoredSlot]:
    """Give every slot that can be read; one unreadable slot must not shut out those who hold another."""
    found: dict[tuple[str, str], list[tuple[str, KeySlot]]] = {}
    for item in backend.list(KEYS):
        match = _NAME.fullmatch(item.name)
        if match is None or item.size > RECORD_SIZE_MAX:
            continue
        try:
            slot = decode_json(backend.get(item.name), KeySlot)
        except (msgspec.DecodeError, ObjectNotFound):
            continue
        found.setdefault((match[1], slot.public), []).append((match[2], slot))
    return [StoredSlot(slot_id, objects[-1][1], tuple(objects)) for (slot_id, _), objects in found.items()]


class Keychest:
    """The key slots of a repository that is open."""

    def __init__(self, backend: Backend, repository_id: str, unlocked: Secrets, opened_with: str) -> None:
        self.secrets = unlocked
        self.opened_with = opened_with
        """Id of the slot that was opened."""
        self._backend = backend
        self._repository_id = repository_id
        self._known_batches: set[str] = set()

    @classmethod
    def create(
        cls, backend: Backend, repository_id: str, unlocked: Secrets, credential: Credential, created: str
    ) -> Self:
        """Make the first slot of a repository."""
        chest = cls(backend, repository_id, unlocked, "")
        chest.opened_with = chest.add(credential, created)
        return chest

    @classmethod
    def open(
        cls, backend: Backend, repository_id: str, line: bytes, mac: bytes, credential: Credential
    ) -> Self:
        """Open the first slot that the credential fits.

        Args:
            backend: the store.
            repository_id: from its config.
            line: first line of its config.
            mac: what the config says is the line's MAC: only secrets that agree are believed.
            credential: what the user has.

        Raises:
            WrongKey: it fits none.
            RepositoryDamaged: no slot can be used at all, or the config is not that of the secrets.
        """
        slots = read_slots(backend)
        if not any(stored.slot.kind == credential.kind and stored.slot.is_usable() for stored in slots):
            raise _no_slot(credential, any(stored.slot.is_usable() for stored in slots))
        altered = False
        for stored in slots:
            opened = _open_objects(stored, credential, repository_id)
            believed = {
                batch: unlocked
                for batch, unlocked in opened.items()
                if Keyring(repository_id, unlocked).config_mac(line).encode() == mac
                and unlocked.slots.get(stored.id) == _public(stored.slot)
            }
            if believed:
                chest = cls(backend, repository_id, Secrets.merge(believed.values()), stored.id)
                chest._known_batches = set(believed)
                return chest
            altered = altered or bool(opened)
        if altered:
            raise RepositoryDamaged(
                f"The config object of the repository at {backend.url} was altered",
                meaning="Nothing was read or written beyond it",
                hint="Restore the object 'config' from a copy of the repository",
            )
        raise _wrong(credential)

    def slots(self) -> list[StoredSlot]:
        """Give the slots that are in the store now."""
        return read_slots(self._backend)

    def trusts(self, stored: StoredSlot) -> bool:
        """Whether the slot was made by somebody who had the repository open, and was not removed."""
        public = self.secrets.slots.get(stored.id)
        return public is not None and _public(stored.slot) == public

    def add(self, credential: Credential, created: str | None = None) -> str:
        """Make a further slot and give its id."""
        slot_id = secrets.token_hex(8)
        slot = make_slot(credential, self._repository_id, created or _now())
        public = _public(slot)
        changed = msgspec.structs.replace(self.secrets, slots={**self.secrets.slots, slot_id: public})
        self._write(changed, {slot_id: slot})
        return slot_id

    def remove(self, slot_id: str) -> None:
        """Delete a slot.

        Raises:
            UsageError: there is no such slot, or no passphrase or key file would be left.
        """
        stored = self.slots()
        if slot_id not in {each.id for each in stored}:
            raise UsageError(
                f"The repository has no key slot {slot_id}",
                meaning="Nothing was changed",
                hint="See 'hotspare key list'",
            )
        left = [each for each in stored if each.id != slot_id and self.trusts(each) and each.slot.is_usable()]
        if not any(each.slot.kind != RECOVERY for each in left):
            raise UsageError(
                f"{slot_id} is the last passphrase or key file that opens the repository",
                meaning="Nothing was changed",
                hint="Add another one first, with 'hotspare key add'",
            )
        slots = {each: public for each, public in self.secrets.slots.items() if each != slot_id}
        removed = tuple(sorted({*self.secrets.removed, slot_id}))
        self._write(msgspec.structs.replace(self.secrets, slots=slots, removed=removed))
        for each in stored:
            if each.id == slot_id:
                self._delete(each.id, [batch for batch, _ in each.objects])

    def replace(self, credential: Credential, slot_id: str) -> str:
        """Make a slot in place of another one; the old one goes once the new one is there."""
        added = self.add(credential)
        self.remove(slot_id)
        if self.opened_with == slot_id:
            self.opened_with = added
        return added

    def rotate(self) -> int:
        """Begin a new epoch and give its number.

        Every slot knows the new key before anything is sealed with it, wherever this is cut short.
        """
        changed = self.secrets.with_new_epoch()
        self._write(changed)
        self._write(msgspec.structs.replace(changed, current=max(changed.epochs)))
        return self.secrets.current

    def _write(self, changed: Secrets, new: dict[str, KeySlot] | None = None) -> None:
        """Seal changed secrets to every trusted slot, and delete what they make superfluous."""
        stored = {each.id: each for each in self.slots() if self.trusts(each)}
        slots = {each.id: each.slot for each in stored.values()} | (new or {})
        batch = secrets.token_hex(4)
        for slot_id, slot in slots.items():
            if slot_id in changed.slots:
                sealed = seal_secrets(slot, changed, self._repository_id)
                content = msgspec.json.format(msgspec.json.encode(sealed))
                self._backend.put(f"{KEYS}{slot_id}-{batch}", [content])
        self.secrets = changed
        for each in stored.values():
            self._delete(each.id, [batch for batch, _ in each.objects if batch in self._known_batches])
        self._known_batches = {batch}

    def _delete(self, slot_id: str, batches: Sequence[str]) -> None:
        for batch in batches:
            self._backend.delete(f"{KEYS}{slot_id}-{batch}")


def _open_objects(stored: StoredSlot, credential: Credential, repository_id: str) -> dict[str, Secrets]:
    """Give the secrets in each object of a slot, by batch; of none, when the credential does not fit."""
    private = None
    for tried in {(slot.kdf, slot.private): slot for _, slot in stored.objects}.values():
        private = private or open_private(tried, credential, repository_id)
    if private is None:
        return {}
    found = {batch: open_secrets(slot, private, repository_id) for batch, slot in stored.objects}
    return {batch: unlocked for batch, unlocked in found.items() if unlocked is not None}


def new_recovery_key() -> RecoveryKey:
    """Draw a recovery key."""
    return RecoveryKey(secrets.token_bytes(32))


def new_key_file() -> KeyFile:
    """Draw what a key file holds."""
    return KeyFile(secrets.token_bytes(32))


def _public(slot: KeySlot) -> bytes:
    try:
        return b64decode(slot.public, validate=True)
    except ValueError:
        return b""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _no_slot(credential: Credential, others: bool) -> WrongKey | RepositoryDamaged:
    if others:
        return WrongKey(
            f"The repository has no key slot of kind {credential.kind}",
            meaning="Nothing was read or written",
            hint="Open it with what it was made with: a passphrase, or HOTSPARE_KEY_FILE",
        )
    return RepositoryDamaged(
        "The repository has no usable key slot",
        meaning="Its data cannot be read without a key",
        hint="Restore the folder 'keys' from a copy of the repository",
    )


def _wrong(credential: Credential) -> WrongKey:
    if isinstance(credential, RecoveryKey):
        what, hint = "recovery key", "Compare the repository's id with the one on the paper"
    elif isinstance(credential, KeyFile):
        what, hint = "key file", "Check HOTSPARE_KEY_FILE"
    else:
        what = "passphrase"
        hint = "Check HOTSPARE_PASSPHRASE, HOTSPARE_PASSPHRASE_FILE or HOTSPARE_PASSPHRASE_COMMAND"
    return WrongKey(
        f"The {what} does not open this repository", meaning="Nothing was read or written", hint=hint
    )
