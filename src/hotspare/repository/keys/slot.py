"""One way into a repository.

Every slot has an X25519 key pair (RFC 7748). Its private half is wrapped by what its holder has or knows: a
passphrase by Argon2id (RFC 9106), a key file by HKDF; that of a recovery key is on paper only. The
repository's secrets are sealed to the public half, with a fresh key pair each time, so that whoever has
the repository open can give new secrets to every slot without knowing anybody's passphrase.
"""

import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass

import argon2.low_level
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hotspare.repository.decode import decode_msgpack
from hotspare.repository.keys.keyring import KEY_SIZE, Secrets, hkdf
from hotspare.repository.keys.recovery import looks_like_recovery_key, parse_recovery_key

PASSPHRASE = "passphrase"  # noqa: S105 - the name of a kind of slot
KEY_FILE = "key-file"
RECOVERY = "recovery"
_NO_NONCE = bytes(12)
"""Of a key that seals once."""


@dataclass(frozen=True, slots=True)
class Passphrase:
    """What somebody knows."""

    text: str
    kind = PASSPHRASE


@dataclass(frozen=True, slots=True)
class KeyFile:
    """32 random bytes from a file."""

    content: bytes
    kind = KEY_FILE


@dataclass(frozen=True, slots=True)
class RecoveryKey:
    """A private X25519 key from paper."""

    private: bytes
    kind = RECOVERY


Credential = Passphrase | KeyFile | RecoveryKey


def typed_credential(text: str) -> Credential:
    """Tell a recovery key from a passphrase. Raises ``ConfigError`` for a mistyped recovery key."""
    if looks_like_recovery_key(text):
        return RecoveryKey(parse_recovery_key(text))
    return Passphrase(text)


class Kdf(msgspec.Struct, frozen=True, kw_only=True):
    """Argon2id parameters. The defaults are the second recommendation of RFC 9106, section 4."""

    salt: str
    """Base64."""
    passes: int = 3
    memory_kib: int = 65536
    lanes: int = 4

    def derive(self, passphrase: str) -> bytes:
        """Give the key that wraps a slot's private half."""
        return argon2.low_level.hash_secret_raw(
            passphrase.encode(),
            b64decode(self.salt),
            time_cost=self.passes,
            memory_cost=self.memory_kib,
            parallelism=self.lanes,
            hash_len=KEY_SIZE,
            type=argon2.low_level.Type.ID,
        )

    def is_sane(self) -> bool:
        """Refuse parameters that would hang or exhaust the reader before anything is proven."""
        return 1 <= self.passes <= 64 and 8 <= self.memory_kib <= 4 << 20 and 1 <= self.lanes <= 64


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """AES-256-GCM ciphertext, both in base64."""

    nonce: str
    body: str


class KeySlot(msgspec.Struct, frozen=True, kw_only=True):
    """One ``keys/<slot id>-<batch>`` object."""

    kind: str
    created: str
    public: str
    """Base64."""
    kdf: Kdf | None = None
    """Of a passphrase."""
    private: Sealed | None = None
    """The private half, wrapped; None for a recovery key."""
    ephemeral: str = ""
    """Public half of the key pair that ``sealed`` was sealed with; base64."""
    sealed: str = ""
    """The repository's secrets; base64."""

    def is_usable(self) -> bool:
        """Whether somebody who has the right credential could open it."""
        if self.kind == PASSPHRASE:
            return self.kdf is not None and self.kdf.is_sane() and self.private is not None
        return self.kind == RECOVERY or (self.kind == KEY_FILE and self.private is not None)


def new_kdf() -> Kdf:
    """Give the parameters of a new passphrase's slot."""
    return Kdf(salt=_base64(secrets.token_bytes(16)))


def make_slot(credential: Credential, repository_id: str, created: str) -> KeySlot:
    """Make a slot that nothing is sealed to yet."""
    if isinstance(credential, RecoveryKey):
        public = X25519PrivateKey.from_private_bytes(credential.private).public_key().public_bytes_raw()
        return KeySlot(kind=RECOVERY, created=created, public=_base64(public))
    pair = X25519PrivateKey.generate()
    public = pair.public_key().public_bytes_raw()
    kdf = new_kdf() if isinstance(credential, Passphrase) else None
    nonce = secrets.token_bytes(12)
    wrapped = AESGCM(_wrapping_key(credential, kdf)).encrypt(
        nonce, pair.private_bytes_raw(), _private_context(repository_id, public)
    )
    return KeySlot(
        kind=credential.kind,
        created=created,
        public=_base64(public),
        kdf=kdf,
        private=Sealed(nonce=_base64(nonce), body=_base64(wrapped)),
    )


def open_private(slot: KeySlot, credential: Credential, repository_id: str) -> bytes | None:
    """Give the private half of a slot, or None when the credential does not fit."""
    if slot.kind != credential.kind or not slot.is_usable():
        return None
    try:
        public = b64decode(slot.public)
        if isinstance(credential, RecoveryKey):
            private = credential.private
        else:
            assert slot.private is not None  # noqa: S101 - is_usable has looked
            private = AESGCM(_wrapping_key(credential, slot.kdf)).decrypt(
                b64decode(slot.private.nonce),
                b64decode(slot.private.body),
                _private_context(repository_id, public),
            )
        found = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    except (InvalidTag, ValueError, argon2.exceptions.Argon2Error):
        return None
    return private if found == public else None


def seal_secrets(slot: KeySlot, unlocked: Secrets, repository_id: str) -> KeySlot:
    """Give the slot with the repository's secrets sealed to its public half.

    Raises:
        ValueError: the public half is none.
    """
    pair = X25519PrivateKey.generate()
    ephemeral, public = pair.public_key().public_bytes_raw(), b64decode(slot.public)
    key = _sealing_key(pair, X25519PublicKey.from_public_bytes(public), ephemeral, public)
    sealed = AESGCM(key).encrypt(_NO_NONCE, msgspec.msgpack.encode(unlocked), _context(repository_id))
    return msgspec.structs.replace(slot, ephemeral=_base64(ephemeral), sealed=_base64(sealed))


def open_secrets(slot: KeySlot, private: bytes, repository_id: str) -> Secrets | None:
    """Give what is sealed to a slot, or None when it cannot be opened."""
    try:
        ephemeral, public = b64decode(slot.ephemeral), b64decode(slot.public)
        pair = X25519PrivateKey.from_private_bytes(private)
        key = _sealing_key(pair, X25519PublicKey.from_public_bytes(ephemeral), ephemeral, public)
        plain = AESGCM(key).decrypt(_NO_NONCE, b64decode(slot.sealed), _context(repository_id))
        unlocked = decode_msgpack(plain, Secrets)
    except (InvalidTag, ValueError, msgspec.DecodeError):
        return None
    keys = (unlocked.id_key, *unlocked.epochs.values())
    sound = unlocked.current in unlocked.epochs and all(len(each) == KEY_SIZE for each in keys)
    return unlocked if sound else None


def _wrapping_key(credential: Passphrase | KeyFile, kdf: Kdf | None) -> bytes:
    if isinstance(credential, KeyFile):
        return hkdf(credential.content, b"", b"hotspare key file")
    if kdf is None:
        raise ValueError("a passphrase slot without parameters")
    return kdf.derive(credential.text)


def _sealing_key(pair: X25519PrivateKey, peer: X25519PublicKey, ephemeral: bytes, public: bytes) -> bytes:
    return hkdf(pair.exchange(peer), ephemeral + public, b"hotspare slot secrets")


def _context(repository_id: str) -> bytes:
    return b"hotspare key slot " + repository_id.encode()


def _private_context(repository_id: str, public: bytes) -> bytes:
    return b"hotspare slot private key " + repository_id.encode() + public


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
