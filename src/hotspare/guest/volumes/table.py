"""The partition table of a disk, whichever it has, and how far it can be believed.

What a table leaves in doubt is told as a reason to keep everything of the disk, or of single partitions.
"""

from dataclasses import dataclass, field, replace

from hotspare.guest.volumes.gpt import Gpt, has_header, read_backup, read_primary
from hotspare.guest.volumes.mbr import LDM, PROTECTIVE, Mbr, MbrEntry, read_mbr
from hotspare.guest.volumes.signatures import identify
from hotspare.guest.volumes.window import Bytes, Window

SECTORS = (512, 4096)
"""Bytes of a sector, as disks have them."""

_LOOKED_AT = 16
"""Partitions whose content is asked which sectors a table counts in."""
_LDM = "it is part of a dynamic disk of Windows (LDM)"
_FOREIGN_TYPES = {
    "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3": ("ldm", _LDM),
    "af9b60a0-1431-4f62-bc68-3311714a69ad": ("ldm", _LDM),
    "e75caf8f-f680-4cee-afa3-b001e56efc2d": ("storage-spaces", "it is part of a storage pool of Windows"),
}
"""GPT types whose partitions are no volumes, whatever their first sector looks like."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A run of bytes of a disk that a table gives to one partition."""

    number: int
    start: int
    end: int
    """First byte after it."""
    uuid: str = ""
    label: str = ""
    container: str = ""
    """What it is by its type, where that counts more than its content: ``ldm``, ``storage-spaces``."""
    doubt: str | None = None
    """Why nothing in it may be called unused."""


@dataclass(slots=True)
class Table:
    """All partitions of a disk."""

    kind: str
    """``gpt`` or ``dos``."""
    partitions: list[Partition]
    doubt: str | None = None
    """Why nothing on the whole disk may be called unused."""
    remarks: list[str] = field(default_factory=list)


def read_table(disk: Bytes) -> Table | None:
    """Read the partition table of a disk; None if it has none.

    Raises:
        SourceLost, StorageError, RepositoryDamaged: the disk cannot be read.
    """
    mbr = read_mbr(disk, SECTORS[0])
    table = _gpt_table(disk, mbr)
    if table is None and mbr is not None and (mbr.entries or mbr.extended):
        table = _mbr_table(disk, mbr)
    if table is not None:
        _check_places(table, disk.size)
    return table


def _gpt_table(disk: Bytes, mbr: Mbr | None) -> Table | None:
    valid = [gpt for gpt in (read_primary(disk, sector) for sector in SECTORS) if gpt]
    if valid:
        gpt = valid[0]
        table = _of_gpt(gpt)
        _compare_with_backup(disk, gpt, table)
        if len(valid) > 1:
            table.doubt = "the disk has two partition tables, for sectors of 512 and of 4096 bytes"
    elif (mbr is not None and mbr.protects_gpt) or any(has_header(disk, sector) for sector in SECTORS):
        backups = [gpt for gpt in (read_backup(disk, sector) for sector in SECTORS) if gpt]
        if not backups:
            return _unreadable_gpt(mbr)
        gpt = backups[0]
        table = _of_gpt(gpt)
        # Linux would not use the copy, Windows would: the disk may be in use in another way.
        table.doubt = "the partition table (GPT) is damaged; its copy at the end of the disk was used"
    else:
        return None
    if mbr is None or not mbr.protects_gpt:
        table.doubt = "the disk has a GPT that no protective MBR announces"
    else:
        _compare_with_hybrid(mbr, table, gpt.sector)
    return table


def _unreadable_gpt(mbr: Mbr | None) -> Table | None:
    """Tell of a GPT that is lost, unless an MBR with real partitions makes the disk usable."""
    if mbr is not None and any(entry.type != PROTECTIVE for entry in mbr.entries):
        return None
    return Table("gpt", [], doubt="the partition table (GPT) and its copy are damaged")


def _of_gpt(gpt: Gpt) -> Table:
    partitions = []
    for entry in gpt.entries:
        container, doubt = _FOREIGN_TYPES.get(entry.type, ("", None))
        start, end = entry.first * gpt.sector, (entry.last + 1) * gpt.sector
        if not gpt.first_usable <= entry.first <= entry.last <= gpt.last_usable:
            doubt = "it lies where the partition table lies"
        partitions.append(Partition(entry.number, start, end, entry.uuid, entry.name, container, doubt))
    return Table("gpt", partitions)


def _compare_with_backup(disk: Bytes, gpt: Gpt, table: Table) -> None:
    backup = read_backup(disk, gpt.sector, gpt.other_header)
    if backup is None:
        table.remarks.append(
            "the copy of the partition table (GPT) at the end of the disk is missing or damaged"
        )
    elif (backup.disk_uuid, backup.entries) != (gpt.disk_uuid, gpt.entries):
        table.remarks.append(
            "the partition table (GPT) differs from its copy at the end of the disk; the first was used"
        )


def _compare_with_hybrid(mbr: Mbr, table: Table, sector: int) -> None:
    """Doubt the partitions that an MBR beside the GPT describes in another way."""
    others = [entry for entry in mbr.entries if entry.type != PROTECTIVE] + mbr.extended
    if not others:
        return
    table.remarks.append("the disk has a hybrid MBR beside its GPT; the GPT was used")
    known = {(one.start, one.end) for one in table.partitions}
    for entry in others:
        start, end = entry.start * sector, entry.end * sector
        if (start, end) not in known:
            table.partitions = [
                replace(one, doubt="the MBR and the GPT of the disk disagree about it")
                if one.start < end and start < one.end
                else one
                for one in table.partitions
            ]


def _mbr_table(disk: Bytes, mbr: Mbr) -> Table:
    """Count in sectors of 512 bytes, unless only with 4096 something is where the table points to."""
    table = _of_mbr(mbr, SECTORS[0])
    larger = read_mbr(disk, SECTORS[1])
    if larger is None or not larger.entries:
        return table
    other = _of_mbr(larger, SECTORS[1])
    if any(one.end > disk.size for one in other.partitions) or not _recognised(disk, other):
        return table
    if _recognised(disk, table):
        table.doubt = "the partition table makes sense for sectors of 512 and of 4096 bytes"
        return table
    other.remarks.append("the partition table was read for sectors of 4096 bytes")
    return other


def _of_mbr(mbr: Mbr, sector: int) -> Table:
    partitions = []
    for entry in mbr.entries:
        start, end = entry.start * sector, entry.end * sector
        container, doubt = ("ldm", _LDM) if entry.type == LDM else ("", None)
        if not _well_placed(entry, mbr):
            doubt = (
                "it lies where the table of logical partitions lies, or outside of their extended partition"
            )
        own = f"{mbr.signature:08x}-{entry.number:02x}" if mbr.signature else ""
        partitions.append(Partition(entry.number, start, end, own, "", container, doubt))
    table = Table("dos", partitions)
    if mbr.problems:
        table.doubt = f"the partition table is damaged: {mbr.problems[0]}"
    return table


def _well_placed(entry: MbrEntry, mbr: Mbr) -> bool:
    """Tell whether a logical partition is inside an extended one, a primary one outside, none on a link."""
    if any(entry.start <= link < entry.end for link in mbr.links):
        return False
    if entry.number > 4:
        return any(one.start < entry.start and entry.end <= one.end for one in mbr.extended)
    return not any(entry.start < one.end and one.start < entry.end for one in mbr.extended)


def _recognised(disk: Bytes, table: Table) -> bool:
    """Tell whether any partition begins with something known."""
    places = ((one.start, min(one.end, disk.size)) for one in table.partitions[:_LOOKED_AT])
    return any(start < end and identify(Window(disk, start, end)).content for start, end in places)


def _check_places(table: Table, disk_size: int) -> None:
    """Doubt partitions that share bytes or reach beyond the disk; drop those without any byte on it."""
    inside: list[Partition] = []
    for one in sorted(table.partitions, key=lambda one: one.start):
        if one.start < min(one.end, disk_size):
            inside.append(one)
        else:
            table.remarks.append(f"partition {one.number} does not lie on the disk")
    reached, checked = 0, []
    for at, one in enumerate(inside):
        follows = inside[at + 1].start if at + 1 < len(inside) else one.end
        doubt = one.doubt
        if one.start < reached or one.end > follows:
            doubt = "it shares bytes with another partition"
        elif one.end > disk_size:
            doubt = "it reaches beyond the end of the disk"
        reached = max(reached, one.end)
        checked.append(replace(one, end=min(one.end, disk_size), doubt=doubt))
    table.partitions = sorted(checked, key=lambda one: one.number)
