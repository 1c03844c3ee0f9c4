"""Reading every pack, and comparing it with its name: needs no key, and finds all damage there can be.

A pack, an index segment and a parity object can be proven by who has nothing but the store.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import msgspec
from blake3 import blake3

from hotspare import events
from hotspare.block.pipeline import WORKERS, ordered_map
from hotspare.cancellation import Cancellation
from hotspare.errors import ObjectNotFound, RepositoryDamaged, StorageError
from hotspare.repository.format import DATA, INDEX, META, PARITY, parse_pack_name
from hotspare.repository.parity import damaged_parity, lost_sectors, parity_name, read_parity, rebuild
from hotspare.storage.backend import Backend, ObjectInfo

SUBJECT = "repository"


class ScrubbedPack(NamedTuple):
    """One pack, looked at."""

    name: str
    size: int
    detail: str
    """What is wrong with it; empty when nothing is."""
    parity: str
    """What is wrong with its parity object; empty when nothing is, or when it has none."""
    whole: bytes | None = None
    """Of a damaged pack that its parity can repair: what it was."""


class ScrubReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was read, and which objects are damaged."""

    packs: int
    segments: int
    parities: int
    bytes: int
    damaged: dict[str, str]
    """By the object's name, what is wrong with it."""
    repairable: tuple[str, ...]
    """Damaged packs that parity can give back, by name."""


def list_packs(backend: Backend) -> list[ObjectInfo]:
    """Give all packs of the store, by name."""
    return [item for kind in (DATA, META) for item in backend.list(kind + "/")]


def scrub_store(backend: Backend, listener: events.Listener, cancellation: Cancellation) -> ScrubReport:
    """Read all packs, parity objects and index segments, and compare each with its hash. Needs no key.

    Raises:
        Interrupted: ``cancellation`` was requested.
    """
    listener(events.PhaseStarted(SUBJECT, "check"))
    packs = list_packs(backend)
    with_parity = {item.name for item in backend.list(PARITY)}
    damaged: dict[str, str] = {}
    repairable = []
    for pack in scrub_packs(backend, packs, with_parity, listener, cancellation):
        if pack.detail:
            damaged[pack.name] = pack.detail
        if pack.parity:
            damaged[parity_name(pack.name)] = pack.parity
        if pack.whole is not None:
            repairable.append(pack.name)
    segments = list(backend.list(INDEX))
    for item in segments:
        cancellation.check()
        detail = _wrong_hash(backend, item.name)
        if detail:
            damaged[item.name] = detail
    return ScrubReport(
        packs=len(packs),
        segments=len(segments),
        parities=len(with_parity),
        bytes=sum(item.size for item in (*packs, *segments)),
        damaged=damaged,
        repairable=tuple(repairable),
    )


def scrub_packs(
    backend: Backend,
    packs: Sequence[ObjectInfo],
    with_parity: set[str],
    listener: events.Listener,
    cancellation: Cancellation,
) -> Iterator[ScrubbedPack]:
    """Yield each pack, looked at, in the order given; several are read at a time."""
    total = sum(item.size for item in packs)
    listener(events.DiskStarted(SUBJECT, "packs", total, total, "verify"))

    def look(_worker: int, item: ObjectInfo) -> ScrubbedPack:
        return scrub_pack(backend, item.name, has_parity=parity_name(item.name) in with_parity)

    done = 0
    with closing(ordered_map(look, packs, range(WORKERS))) as looked_at:
        for pack in looked_at:
            yield pack
            done += pack.size
            listener(events.Progress(SUBJECT, "packs", done, done))
            cancellation.check()
    listener(events.DiskFinished(SUBJECT, "packs"))


def scrub_pack(backend: Backend, name: str, *, has_parity: bool) -> ScrubbedPack:
    """Read a pack and its parity."""
    parsed = parse_pack_name(name)
    if parsed is None:
        return ScrubbedPack(name, 0, "has a name that no pack can have", "")
    try:
        data = backend.get(name)
    except ObjectNotFound:
        data, detail = b"", "is missing"
    except StorageError as error:
        data, detail = b"", f"cannot be read: {error.what}"
    else:
        detail = "" if blake3(data).digest() == parsed[1] else "has other bytes than were written"
    if not has_parity:
        return ScrubbedPack(name, len(data), detail, "")
    try:
        parity = read_parity(parity_name(name), backend.get(parity_name(name)))
    except (RepositoryDamaged, StorageError) as error:
        return ScrubbedPack(name, len(data), detail, f"cannot be used: {error.what}")
    lost = damaged_parity(parity)
    wrong = f"has {lost} damaged sectors of {len(parity.sectors)}" if lost else ""
    if not detail:
        return ScrubbedPack(name, len(data), "", wrong)
    sectors = len(lost_sectors(parity, memoryview(data)))
    detail = f"{detail}: {sectors} of {parity.layout.sectors} sectors of {parity.layout.sector_size} bytes"
    return ScrubbedPack(name, len(data), detail, wrong, rebuild(parity, memoryview(data)))


def _wrong_hash(backend: Backend, name: str) -> str:
    try:
        expected = bytes.fromhex(name.rpartition("/")[2])
        return "" if blake3(backend.get(name)).digest() == expected else "has other bytes than were written"
    except ValueError:
        return "has a name that is no hash"
    except StorageError as error:
        return f"cannot be read: {error.what}"
