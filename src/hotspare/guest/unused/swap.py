"""Swap spaces: what a machine has paged out is worth nothing after it was started anew.

Layout: Linux' ``union swap_header`` of ``include/linux/swap.h``: the signature ends the first page, and a
header of numbers begins at byte 1024. A system that hibernates puts another signature in the same place.
"""

from typing import Literal

from hotspare.block.device import BlockReader
from hotspare.block.ranges import NOTHING, Ranges
from hotspare.guest.cached_reader import CachedReader
from hotspare.guest.unused.unused import KeepAll, Quiet, UnusedBlocks
from hotspare.guest.volumes.signatures import identify
from hotspare.guest.volumes.superblocks import HIBERNATION_MAGICS, PAGE_SIZES, SWAP_MAGICS

_HEADER_AT = 1024
_BAD_PAGES_AT = 1536
_VERSION = 1


def swap_unused(volume: BlockReader, quiet: Quiet) -> UnusedBlocks:  # noqa: ARG001
    """Call everything behind the first page scratch, unless a system may sleep in it.

    It makes no difference how quiet the machine is: nothing that is read at its start was paged out before.
    That is not so where the machine's memory is kept too; whoever restores memory must not leave swap out.

    Raises:
        KeepAll: it is not a swap space without any doubt.
        SourceLost, StorageError, RepositoryDamaged: it cannot be read.
    """
    reader = CachedReader(volume)
    page = _page_size(reader)
    identity = identify(reader)
    if identity.content != "swap" or identity.also:
        raise KeepAll(identity.keep_because or "it is no swap space")
    size = _size(reader, page)
    # The first page of the largest kind is kept, so that boot loaders and labels stay whatever the page is.
    scratch = Ranges.of([(max(PAGE_SIZES), size)]) if size > max(PAGE_SIZES) else NOTHING
    return UnusedBlocks("swap", size, free=NOTHING, scratch=scratch)


def _page_size(reader: CachedReader) -> int:
    """Find the one page size whose page ends with swap's signature. Raises ``KeepAll``."""
    pages = []
    for page in PAGE_SIZES:
        magic = reader.read(page - 10, 10)
        if magic.startswith(HIBERNATION_MAGICS):
            raise KeepAll("a hibernated system is stored in it")
        if magic in SWAP_MAGICS:
            pages.append(page)
            if magic != SWAP_MAGICS[0]:
                raise KeepAll("it is a swap space of the old kind")
    if len(pages) != 1:
        raise KeepAll(
            "it has no signature of swap" if not pages else "it has signatures for two sizes of pages"
        )
    return pages[0]


def _size(reader: CachedReader, page: int) -> int:
    """Give the bytes that the header says are used, in either byte order. Raises ``KeepAll``."""
    header = reader.read(_HEADER_AT, 12)
    order: Literal["little", "big"] = "little" if header[:4] == _VERSION.to_bytes(4, "little") else "big"
    version, last_page, bad_pages = (int.from_bytes(header[at : at + 4], order) for at in (0, 4, 8))
    if version != _VERSION:
        raise KeepAll("its header is of an unknown version")
    if bad_pages > (page - 10 - _BAD_PAGES_AT) // 4:
        raise KeepAll("its header has more bad pages than there is room for")
    size = (last_page + 1) * page
    if last_page < 1 or size > reader.size:
        raise KeepAll("its header speaks of another size than the volume has")
    return size
