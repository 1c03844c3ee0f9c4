"""The partition table of a master boot record, with logical partitions.

Layout: a boot sector that ends with 55 AA, four entries of 16 bytes from byte 446 on. An extended partition
begins a chain of further such sectors, one for each logical partition. Numbers are given as Linux gives them:
logical ones count from 5 in the order of the chain. All places are in sectors, of a size that the table does
not tell.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hotspare.guest.volumes.window import Bytes

PROTECTIVE = 0xEE
"""Type of the entry that hides a GPT from old programs."""
LDM = 0x42
"""Type of a partition that belongs to Windows' dynamic disks."""
PARTITIONS_MAX = 256
"""As in Linux; a table with more is not believed."""

_EXTENDED = frozenset({0x05, 0x0F, 0x85})
_ENTRIES_AT = 446
_SIGNATURE = b"\x55\xaa"


class MbrEntry(NamedTuple):
    """One partition; its place is in sectors."""

    number: int
    type: int
    start: int
    length: int

    @property
    def end(self) -> int:
        """First sector after it."""
        return self.start + self.length


@dataclass(slots=True)
class Mbr:
    """What a master boot record says."""

    signature: int
    """The disk's, by which Windows and ``PARTUUID`` know it."""
    entries: list[MbrEntry]
    """Primary and logical ones, without extended ones and empty slots."""
    extended: list[MbrEntry] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    """Sectors of the chains of logical partitions."""
    problems: list[str] = field(default_factory=list)
    """Why it cannot be believed wholly."""

    @property
    def protects_gpt(self) -> bool:
        """Whether it says that there is a GPT."""
        return any(entry.type == PROTECTIVE for entry in self.entries)


def read_mbr(disk: Bytes, sector: int) -> Mbr | None:
    """Read the table in the first sector, with logical partitions for sectors of that size.

    Returns:
        None where there is none: no signature, or entries that no table has, such as a boot sector's program.
    """
    boot = disk.read(0, 512)
    slots = _slots(boot)
    if slots is None:
        return None
    mbr = Mbr(int.from_bytes(boot[440:444], "little"), [])
    for slot in slots:
        if slot.type not in _EXTENDED:
            mbr.entries.append(slot)
            continue
        mbr.extended.append(slot)
    following = 5
    for slot in mbr.extended:
        for logical in _logical(disk, sector, slot, mbr):
            mbr.entries.append(logical._replace(number=following))
            following += 1
            if following > PARTITIONS_MAX:
                mbr.problems.append("it has too many logical partitions")
                return mbr
    return mbr


def _slots(sector: bytes) -> list[MbrEntry] | None:
    """Give the four entries of a boot sector that are not empty."""
    if len(sector) < 512 or sector[510:512] != _SIGNATURE:
        return None
    found = []
    for number in range(4):
        entry = sector[_ENTRIES_AT + 16 * number :][:16]
        if entry[0] not in {0x00, 0x80}:
            return None
        start, length = int.from_bytes(entry[8:12], "little"), int.from_bytes(entry[12:16], "little")
        if entry[4] and length:
            found.append(MbrEntry(number + 1, entry[4], start, length))
    return found


def _logical(disk: Bytes, sector: int, extended: MbrEntry, mbr: Mbr) -> Iterator[MbrEntry]:
    """Follow the chain of one extended partition. Each link is read once, so that a loop ends."""
    seen: set[int] = set()
    here = extended.start
    while here not in seen and len(seen) < PARTITIONS_MAX:
        seen.add(here)
        mbr.links.append(here)
        slots = _slots(disk.read(here * sector, 512))
        if slots is None:
            mbr.problems.append(f"the chain of its logical partitions breaks off at sector {here}")
            return
        for slot in slots:
            if slot.type not in _EXTENDED:
                yield slot._replace(start=here + slot.start)
        link = next((slot for slot in slots if slot.type in _EXTENDED), None)
        if link is None:
            return
        here = extended.start + link.start
    mbr.problems.append("the chain of its logical partitions does not end")
