"""What was found out about restore points by trying them: small records beside each, as points never change.

``boot/<point id>`` tells how it went when the machine was started from the point, ``screens/<point id>`` has
a picture of its console, and ``scans/<point id>`` tells what a malware scanner found. The last try counts.
"""

from collections.abc import Container, Iterator
from contextlib import suppress
from typing import Literal, TypeVar

import msgspec

from hotspare.errors import ObjectNotFound, PermissionRefused, RepositoryDamaged
from hotspare.repository.decode import Moment
from hotspare.repository.format import BOOT, POINTS, SCANS, SCREENS
from hotspare.repository.keys import Keyring
from hotspare.repository.record import open_record, seal_record
from hotspare.storage.backend import Backend

CheckOutcome = Literal["passed", "failed", "not-done"]
Life = Literal["agent", "activity", "none"]
Verdict = Literal["clean", "suspicious", "not-scanned"]
Content = TypeVar("Content")
SCREEN_SIZE_MAX = 8 * 1024 * 1024


class CheckRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at in a machine that was started for a trial."""

    name: str
    """``agent``, ``tcp:80``, ``guest:orders``…"""
    outcome: CheckOutcome
    seconds: float
    detail: str = ""
    """What was seen, or what was wrong."""
    output: str = ""
    """The end of what a script printed."""


class BootRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``boot/<point id>``."""

    at: Moment
    """When it began."""
    passed: bool
    """It came to life, and every check passed."""
    life: Life
    """What told that it had come to life: its agent answered; or it only worked on its disks and went on."""
    life_seconds: float
    """From power on until then, or until it was given up."""
    checks: tuple[CheckRecord, ...]
    problem: str = ""
    """Why it did not come to life."""
    host: str = ""
    """Where it was tried."""
    together: tuple[str, ...] = ()
    """Ids of the restore points that were started in the same network."""
    console: str = ""
    """The end of what its first serial port wrote, where it has not passed."""
    warnings: tuple[str, ...] = ()


class ScanFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a scanner did not like."""

    path: str
    """In the machine; empty where the scanner named no file."""
    said: str


class ScanRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Content of ``scans/<point id>``."""

    at: Moment
    verdict: Verdict
    scanner: str
    """The command."""
    since: str | None
    """Id of the scanned restore point whose files were taken for known; None: all files were looked at."""
    files: int
    bytes: int
    not_scanned: int = 0
    """Files that were to be looked at and could not."""
    findings: tuple[ScanFinding, ...] = ()
    remarks: tuple[str, ...] = ()
    """What limits what the verdict says."""


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one restore point."""

    boot: BootRecord | None = None
    scan: ScanRecord | None = None


def put_boot(
    backend: Backend, keyring: Keyring, point_id: str, record: BootRecord, screen: bytes | None
) -> None:
    """Note how a trial went, in place of an earlier one.

    Args:
        backend: of the repository.
        keyring: its keys.
        point_id: of the restore point.
        record: what came of it.
        screen: a picture of the console, PNG; None when there is none.

    Raises:
        PermissionRefused: the store is append-only or read-only from here.
    """
    if screen is not None and len(screen) <= SCREEN_SIZE_MAX:
        _put(backend, keyring, SCREENS + point_id, screen)
    else:
        backend.delete(SCREENS + point_id)
    _put(backend, keyring, BOOT + point_id, record)


def put_scan(backend: Backend, keyring: Keyring, point_id: str, record: ScanRecord) -> None:
    """Note what a scan found, in place of an earlier one. Raises as ``put_boot``."""
    _put(backend, keyring, SCANS + point_id, record)


def read_boot(backend: Backend, keyring: Keyring, point_id: str) -> BootRecord | None:
    """Give the last trial of a point; None without one. Raises ``RepositoryDamaged``."""
    return _read(backend, keyring, BOOT + point_id, BootRecord)


def read_scan(backend: Backend, keyring: Keyring, point_id: str) -> ScanRecord | None:
    """Give the last scan of a point; None without one. Raises ``RepositoryDamaged``."""
    return _read(backend, keyring, SCANS + point_id, ScanRecord)


def read_screen(backend: Backend, keyring: Keyring, point_id: str) -> bytes | None:
    """Give the picture of the last trial, PNG; None without one. Raises ``RepositoryDamaged``."""
    return _read(backend, keyring, SCREENS + point_id, bytes)


def read_tested(backend: Backend, keyring: Keyring, point_id: str) -> Tested:
    """Give what is known of one point. Raises ``RepositoryDamaged``."""
    return Tested(boot=read_boot(backend, keyring, point_id), scan=read_scan(backend, keyring, point_id))


def read_all_tested(backend: Backend, keyring: Keyring) -> dict[str, Tested]:
    """Give what is known of all points that were tried, by id; what cannot be read is passed over."""
    found: dict[str, Tested] = {}
    for item in backend.list(BOOT):
        point_id = item.name.removeprefix(BOOT)
        if (boot := _read_if_whole(backend, keyring, item.name, BootRecord)) is not None:
            found[point_id] = Tested(boot=boot)
    for item in backend.list(SCANS):
        point_id = item.name.removeprefix(SCANS)
        if (scan := _read_if_whole(backend, keyring, item.name, ScanRecord)) is not None:
            found[point_id] = msgspec.structs.replace(found.get(point_id, Tested()), scan=scan)
    return found


def forget_tested(backend: Backend, point_id: str) -> None:
    """Remove what is known of a point that is gone."""
    for prefix in (BOOT, SCREENS, SCANS):
        backend.delete(prefix + point_id)


def drop_orphans(backend: Backend) -> None:
    """Remove what is known of points that are gone: whoever forgot one may have been stopped in between."""
    # The records first: of a point that was made since there can be none in this list.
    records = list(_all_records(backend))
    there = {item.name.rpartition("/")[2] for item in backend.list(POINTS)} if records else set()
    for name in records:
        if name.partition("/")[2] not in there:
            backend.delete(name)


def copy_tested(
    source: Backend, source_keys: Keyring, target: Backend, target_keys: Keyring, points: Container[str]
) -> None:
    """Let copied points have what is known of the originals, unless more is known of a copy.

    Args:
        source: where the originals are.
        source_keys: its keys.
        target: where the copies are; nothing is done if records cannot be put there.
        target_keys: its keys.
        points: ids of those that both have.
    """
    for point_id, known in read_all_tested(source, source_keys).items():
        if point_id not in points:
            continue
        there = _read_if_whole(target, target_keys, BOOT + point_id, BootRecord)
        scanned = _read_if_whole(target, target_keys, SCANS + point_id, ScanRecord)
        with suppress(PermissionRefused):
            if known.boot is not None and (there is None or there.at < known.boot.at):
                screen = _read_if_whole(source, source_keys, SCREENS + point_id, bytes)
                put_boot(target, target_keys, point_id, known.boot, screen)
            if known.scan is not None and (scanned is None or scanned.at < known.scan.at):
                put_scan(target, target_keys, point_id, known.scan)


def unreadable_tested(backend: Backend, keyring: Keyring) -> Iterator[str]:
    """Yield the names of records that are not what was written."""
    for prefix, kind in ((BOOT, BootRecord), (SCREENS, bytes), (SCANS, ScanRecord)):
        for item in backend.list(prefix):
            try:
                _read(backend, keyring, item.name, kind)
            except RepositoryDamaged:
                yield item.name


def _all_records(backend: Backend) -> Iterator[str]:
    for prefix in (BOOT, SCREENS, SCANS):
        yield from (item.name for item in backend.list(prefix))


def _put(backend: Backend, keyring: Keyring, name: str, content: object) -> None:
    backend.put(name, [seal_record(keyring, name, content)])


def _read(backend: Backend, keyring: Keyring, name: str, kind: type[Content]) -> Content | None:
    try:
        return open_record(keyring, name, backend.get(name), kind, damage=_damage(name))
    except ObjectNotFound:
        return None


def _read_if_whole(backend: Backend, keyring: Keyring, name: str, kind: type[Content]) -> Content | None:
    try:
        return _read(backend, keyring, name, kind)
    except RepositoryDamaged:
        return None


def _damage(name: str) -> RepositoryDamaged:
    return RepositoryDamaged(
        f"The record {name} is not what was written",
        meaning="It is not known how the restore point's last test went; the point itself is not affected",
        hint="Test it again: that replaces the record",
    )
