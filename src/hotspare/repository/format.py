"""What a repository is made of: object names, versions, feature flags.

The specification is docs/repository-format.md; tests/compat holds repositories of each version.
"""

import re

import msgspec

from hotspare.errors import RepositoryDamaged, RepositoryTooNew
from hotspare.repository.decode import decode_json
from hotspare.units import GIB, KIB, MIB

FORMAT_NAME = "hotspare-repository"
FORMAT_VERSION = 1

CONFIG = "config"
KEYS = "keys/"
DATA = "data"
META = "meta"
INDEX = "index/"
POINTS = "points/"
KEPT = "kept/"
BOOT = "boot/"
SCREENS = "screens/"
SCANS = "scans/"
SESSIONS = "sessions/"
CONDEMNED = "gc/condemned/"
EXPELLED = "gc/expelled/"
SETTLED = "gc/settled/"
FORGOTTEN_SESSIONS = "gc/forgotten/"
PARITY = "parity/"
DAMAGED = "damaged/"
LOCKS = "locks/"
FORGOTTEN = "forgotten/"
LOCKED_KINDS = (KEYS, DATA + "/", META + "/", POINTS)
"""What a restore needs beside ``CONFIG``: stored locked in a repository with object lock."""

CHUNK_ID_SIZE = 32
HOLE = bytes(CHUNK_ID_SIZE)
"""The reserved chunk id of a chunk that reads as zeroes and is stored nowhere."""

DEFAULT_CHUNK_SIZE = 256 * KIB
CHUNK_SIZE_MIN = 64 * KIB
CHUNK_SIZE_MAX = 8 * MIB
PARITY_MAX = 50
PAGE_IDS = 2048
"""Chunk ids in one page of a disk's map."""
DISK_SIZE_MAX = 1 << 56
"""64 PiB; larger sizes in a record are taken for damage."""
STATE_SIZE_MAX = 1 * GIB
"""Of a piece of state outside of disks, which is read into memory as a whole."""
RECORD_SIZE_MAX = 64 * MIB
"""No config, key slot or restore point is larger; more is refused before it is read."""
SEGMENT_SIZE_MAX = 2 * GIB - 1
LOCK_SECONDS_MAX = 100 * 366 * 86_400

DELTA_FEATURE = "delta"
"""Entries may be deltas upon others."""
STATE_FEATURE = "state"
"""Restore points may hold state outside of disks, whose chunks a collector must know of."""
EXTRAS_FEATURE = "extras"
"""Restore points may hold what we have noted down beside the machine's own data; likewise."""
KNOWN_READ_FEATURES: frozenset[str] = frozenset({DELTA_FEATURE})
LOCK_FEATURE = "lock"
"""What a restore needs is stored locked, and kept so."""
KNOWN_WRITE_FEATURES: frozenset[str] = frozenset({LOCK_FEATURE})
KNOWN_GC_FEATURES: frozenset[str] = frozenset({STATE_FEATURE, EXTRAS_FEATURE})

_HEX_64 = re.compile(r"[0-9a-f]{64}")


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """Names of format features that a program must know before it may do something."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    gc: tuple[str, ...] = ()


class StoreRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the store was seen to do when the repository was made; None where it was not tried."""

    durability: str
    """``fsync``, ``best-effort`` or ``store`` (the word of an object store)."""
    conditional_put: bool | None = None
    object_lock: bool | None = None


class RepositoryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of the ``config`` object."""

    format: str
    version: int
    id: str
    """32 hexadecimal digits."""
    chunk_size: int
    """Bytes; a power of two."""
    created: str
    """ISO 8601, UTC."""
    parity: int = 0
    """Parity sectors for every hundred sectors of a pack; 0 for none."""
    lock_seconds: int = 0
    """For how long objects are locked; 0 for not at all."""
    features: Features = Features()
    store: StoreRecord | None = None


def decode_config(line: bytes, where: str) -> RepositoryConfig:
    """Read the first line of ``config``.

    Raises:
        RepositoryDamaged: it is no configuration.
        RepositoryTooNew: its version or a read feature is unknown.
    """
    damaged = f"The repository at {where} has a config object that cannot be read"
    try:
        config = decode_json(line, RepositoryConfig)
    except msgspec.DecodeError as error:
        raise RepositoryDamaged(
            f"{damaged}: {error}", hint="Restore the object 'config' from a copy of the repository"
        ) from error
    if config.format != FORMAT_NAME:
        raise RepositoryDamaged(f"{damaged}: it is not of format {FORMAT_NAME}")
    unknown = sorted(set(config.features.read) - KNOWN_READ_FEATURES)
    if config.version > FORMAT_VERSION or unknown:
        needs = (
            f"format version {config.version}" if config.version > FORMAT_VERSION else f"feature {unknown[0]}"
        )
        raise RepositoryTooNew(
            f"The repository at {where} needs {needs}, which this version of Hotspare does not know",
            meaning="Nothing was read or changed",
            hint="Upgrade Hotspare on this host",
        )
    chunk_size_ok = (
        CHUNK_SIZE_MIN <= config.chunk_size <= CHUNK_SIZE_MAX
        and config.chunk_size & (config.chunk_size - 1) == 0
    )
    sizes_ok = chunk_size_ok and 0 <= config.parity <= PARITY_MAX
    sizes_ok = sizes_ok and 0 <= config.lock_seconds <= LOCK_SECONDS_MAX
    if config.version < 1 or not sizes_ok or not re.fullmatch(r"[0-9a-f]{32}", config.id):
        raise RepositoryDamaged(f"{damaged}: a value in it is out of range")
    return config


def check_may_write(config: RepositoryConfig, where: str) -> None:
    """Raise ``RepositoryTooNew`` when writing needs a feature that we do not know."""
    unknown = sorted(set(config.features.write) - KNOWN_WRITE_FEATURES)
    if unknown:
        raise RepositoryTooNew(
            f"Writing to the repository at {where} needs feature {unknown[0]}",
            meaning="It can be read with this version, but nothing was written",
            hint="Upgrade Hotspare on this host",
        )


def check_may_collect(config: RepositoryConfig, where: str) -> None:
    """Raise ``RepositoryTooNew`` when collecting garbage needs a feature that we do not know."""
    check_may_write(config, where)
    unknown = sorted(set(config.features.gc) - KNOWN_GC_FEATURES)
    if unknown:
        raise RepositoryTooNew(
            f"Collecting garbage in the repository at {where} needs feature {unknown[0]}",
            meaning="Nothing was deleted; backups and restores are possible with this version",
            hint="Upgrade Hotspare on this host",
        )


def is_locked_kind(name: str) -> bool:
    """Tell whether an object is one that a restore needs."""
    return name == CONFIG or name.startswith(LOCKED_KINDS)


def pack_name(kind: str, digest: bytes) -> str:
    """Give the object name of a pack; ``kind`` is ``DATA`` or ``META``, ``digest`` its BLAKE3."""
    digits = digest.hex()
    return f"{kind}/{digits[:2]}/{digits}"


def parse_pack_name(name: str) -> tuple[str, bytes] | None:
    """Give kind and digest of a pack's object name, or None for any other name."""
    kind, _, rest = name.partition("/")
    if kind not in {DATA, META}:
        return None
    folder, _, digits = rest.partition("/")
    if not _HEX_64.fullmatch(digits) or digits[:2] != folder:
        return None
    return kind, bytes.fromhex(digits)
