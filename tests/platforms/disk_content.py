"""Reading what a snapshot gives, the slow and sure way."""

from contextlib import closing

from hotspare.block.extent import Extent, ExtentKind
from hotspare.platforms.platform import Snapshot

STEP = 4 * 1024 * 1024


def whole_disk(snapshot: Snapshot, disk: str) -> bytes:
    """Read all of a disk."""
    with closing(snapshot.reader(disk)) as reader:
        content = bytearray(reader.size)
        view = memoryview(content)
        for at in range(0, reader.size, STEP):
            reader.read_into(at, view[at : at + STEP])
    return bytes(content)


def applied(snapshot: Snapshot, disk: str, before: bytes) -> bytes:
    """Give what a disk becomes when just what ``changed`` yields is copied over what it was before."""
    content = bytearray(before)
    view = memoryview(content)
    with closing(snapshot.reader(disk)) as reader:
        for extent in snapshot.changed(disk):
            if extent.kind is ExtentKind.ZERO:
                view[extent.offset : extent.end] = bytes(extent.length)
            else:
                reader.read_into(extent.offset, view[extent.offset : extent.end])
    return bytes(content)


def covered(extents: list[Extent], kind: ExtentKind, offset: int, length: int) -> bool:
    """Tell whether a range lies within extents of that kind."""
    missing = [offset]
    for extent in extents:
        if extent.kind is kind and extent.offset <= missing[0] < extent.end:
            missing[0] = extent.end
    return missing[0] >= offset + length
