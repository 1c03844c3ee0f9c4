"""How a volume was left: flags of $Volume, and the restart pages of $LogFile."""

from enum import Enum

from hotspare.guest.unused.ntfs.boot import STRIDE, Fields, repaired
from hotspare.guest.unused.ntfs.record import DATA, VOLUME_INFORMATION
from hotspare.guest.unused.ntfs.table import LOG_FILE, VOLUME, MasterFileTable
from hotspare.guest.unused.unused import KeepAll
from hotspare.units import KIB

_FLAGS = {
    0x0001: "it is marked dirty",
    0x0002: "its log is to be resized",
    0x0004: "it is to be upgraded when it is mounted",
    0x0008: "it was mounted by Windows NT 4",
    0x0010: "its change journal is being deleted",
    0x0020: "its object ids are to be repaired",
    0x4000: "it is being checked",
    0x8000: "it was changed by a check of the disk, and not mounted since",
}
_EMPTY_HEAD = 256 * KIB
_PAGE_MAX = 64 * KIB
_NO_CLIENT = 0xFFFF
_IS_CLEAN = 0x0002
LFS_OLD, LFS_NEW = (1, 1), (2, 0)
"""Versions of the log. Windows 8 and later write the new one while a volume is mounted."""


class LogState(Enum):
    """What the log says of how the volume was left."""

    CLEAN = "clean"
    """Dismounted, with everything written."""
    EMPTIED = "emptied"
    """Nothing is in it: the volume is new, or a Linux program mounted it, and may have it still mounted."""
    IN_USE = "in use"
    """Mounted by Windows, or left by a crash."""


def refuse_marked(table: MasterFileTable) -> None:
    """Look at the version of the file system and its flags.

    Raises:
        KeepAll: it is unknown, or marked in any way.
    """
    found = [part for part in table.record(VOLUME).attributes if part.kind == VOLUME_INFORMATION]
    if len(found) != 1 or found[0].content is None:
        raise KeepAll("its version is not to be found")
    fields = Fields(found[0].content)
    major, minor, flags = fields.u8(8), fields.u8(9), fields.u16(10)
    if (major, minor) not in {(3, 0), (3, 1)}:
        raise KeepAll(f"it is of the unknown version {major}.{minor}")
    for flag, meaning in _FLAGS.items():
        if flags & flag:
            raise KeepAll(meaning)
    if flags:
        raise KeepAll(f"it has unknown flags ({flags:#x})")


def read_log(table: MasterFileTable) -> LogState:
    """Say how the volume was left.

    Raises:
        KeepAll: the log is damaged or of an unknown version.
    """
    log = table.stream(table.record(LOG_FILE), DATA)
    if log is None or not log.is_plain or log.initialized < _EMPTY_HEAD:
        raise KeepAll("its log is damaged")
    head = log.read(table.volume, 0, _EMPTY_HEAD)
    if head == b"\xff" * _EMPTY_HEAD:
        return LogState.EMPTIED
    size = Fields(head).u32(0x10)
    if size.bit_count() != 1 or not STRIDE <= size <= _PAGE_MAX:
        raise KeepAll("its log is damaged")
    # Two copies, written in turn: a torn or missing one leaves open what the newest said.
    _, state = max(_read_restart(head[at : at + size]) for at in (0, size))
    return LogState(state)


def _read_restart(octets: bytes) -> tuple[int, str]:
    """Give the log's newest sequence number and its state, by one restart page."""
    page = Fields(repaired(octets, b"RSTR"))
    minor, major = page.u16(0x1A), page.u16(0x1C)
    if page.u32(0x10) != len(octets) or (major, minor) not in {LFS_OLD, LFS_NEW}:
        raise KeepAll(f"its log is of the unknown version {major}.{minor}")
    area = page.u16(0x18)
    number, client, flags = page.u64(area), page.u16(area + 0x0C), page.u16(area + 0x0E)
    clean = client == _NO_CLIENT or bool(flags & _IS_CLEAN)
    # After a shutdown that is more than "Fast Startup", Windows leaves the old version behind.
    return number, (LogState.CLEAN if clean and (major, minor) == LFS_OLD else LogState.IN_USE).value
