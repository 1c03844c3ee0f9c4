"""What a dirty bitmap says has changed."""

from collections.abc import Iterator

from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.protocol import BASE_ALLOCATION, Allocation
from hotspare.block.nbd.status import merged, next_step, paired
from hotspare.errors import SourceLost

DIRTY = 1 << 0
"""The flag of the contexts ``qemu:dirty-bitmap:NAME`` (QEMU's docs/interop/nbd.txt)."""


def changed_extents(client: NbdClient, bitmap: str) -> Iterator[Extent]:
    """Yield what a bitmap has marked, in order, with gaps where nothing changed; in constant memory.

    A changed range that reads as zeroes now is ``ZERO``: it was something else before and must not be
    dropped. Everything else that changed is ``DATA``.

    Args:
        client: a connection that negotiated both ``base:allocation`` and ``bitmap``.
        bitmap: name of the context, such as ``qemu:dirty-bitmap:vda``.

    Raises:
        SourceLost: the server does not have the bitmap (at once), or went away (while iterating).
    """
    if bitmap not in client.contexts or BASE_ALLOCATION not in client.contexts:
        raise SourceLost(
            f"The server does not tell what changed: of {bitmap!r} and {BASE_ALLOCATION!r} it has only "
            f"{', '.join(client.contexts) or 'neither'}",
            hint="The bitmap is gone or was not exported: make a full backup of this disk",
        )
    return merged(_changed_runs(client, bitmap))


def _changed_runs(client: NbdClient, bitmap: str) -> Iterator[Extent]:
    position = 0
    while position < client.size:
        status = client.block_status(position, next_step(position, client.size))
        for length, allocation, dirty in paired(status[BASE_ALLOCATION], status[bitmap]):
            if dirty & DIRTY:
                kind = ExtentKind.ZERO if allocation & Allocation.ZERO else ExtentKind.DATA
                yield Extent(position, length, kind)
            position += length
