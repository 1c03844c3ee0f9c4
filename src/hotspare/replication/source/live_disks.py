"""The disks of a running machine, to be read while it goes on writing to them.

QEMU's own NBD server offers them, read-only, on a socket of ours. What is read is no single instant: blocks
that change meanwhile are marked in a bitmap, and read again.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.protocol import BASE_ALLOCATION
from hotspare.errors import HotspareError
from hotspare.replication.source.monitor import Monitor
from hotspare.replication.source.tracking import bitmap_name

_DIRTY = 1
_STEP = 1 << 30
_TIMEOUT = 30.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class LiveDisks:
    """Disks that can be read at the moment."""

    socket: Path
    exports: Mapping[str, str]
    bitmap: str | None
    """Name of the bitmap that goes with them."""

    def open(self, disk: str) -> NbdClient:
        """Open one for reading."""
        contexts = [BASE_ALLOCATION, *([f"qemu:dirty-bitmap:{self.bitmap}"] if self.bitmap else [])]
        return NbdClient.connect(self.socket, self.exports[disk], contexts=contexts, timeout=_TIMEOUT)

    def marked(self, reader: NbdClient) -> Iterator[Extent]:
        """Yield what the bitmap marks of a disk, in order; what reads as zeroes now is ``ZERO``."""
        context = f"qemu:dirty-bitmap:{self.bitmap}"
        if context not in reader.contexts:
            raise HotspareError(f"QEMU does not offer the bitmap {self.bitmap}")
        position = 0
        while position < reader.size:
            length = min(_STEP, reader.size - position)
            for run, flags in reader.block_status(position, length)[context]:
                if flags & _DIRTY:
                    yield from reader.extents(position, run)
                position += run


@contextmanager
def live_disks(
    monitor: Monitor, protection: str, nodes: Mapping[str, str], folder: Path, serial: str | None = None
) -> Iterator[LiveDisks]:
    """Offer disks for reading while the block runs.

    Args:
        monitor: of the machine's QEMU.
        protection: id.
        nodes: for each disk its node.
        folder: for the socket; QEMU may write there.
        serial: of bitmaps that note nothing any more, to be offered with the disks.

    Raises:
        HotspareError: QEMU's server is in use, for instance by a backup of the machine.
    """
    socket = folder / "disks.sock"
    bitmap = bitmap_name(protection, serial) if serial else None
    end_live_disks(monitor, protection)
    socket.unlink(missing_ok=True)
    monitor.ask("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}}, max_connections=0)
    try:
        exports = {}
        for disk, node in nodes.items():
            exports[disk] = f"{protection}-{disk}"
            arguments: dict[str, object] = {"bitmaps": [bitmap]} if bitmap else {}
            monitor.ask(
                "block-export-add",
                type="nbd",
                id=_export_id(protection, disk),
                node_name=node,
                name=exports[disk],
                **arguments,
            )
        yield LiveDisks(socket, exports, bitmap)
    finally:
        with suppress(HotspareError):  # the machine is gone, and all of this with it
            monitor.ask("nbd-server-stop")
        socket.unlink(missing_ok=True)


def end_live_disks(monitor: Monitor, protection: str) -> None:
    """End what an agent that was killed has left."""
    exports = monitor.ask("query-block-exports")
    if any(export["id"].startswith(_export_id(protection, "")) for export in exports):
        monitor.ask("nbd-server-stop")


def _export_id(protection: str, disk: str) -> str:
    return f"hotspare-{protection[:8]}-live-{disk}"


def changed_bytes(extents: list[Extent]) -> int:
    """Give how many bytes of extents have to be sent."""
    return sum(extent.length for extent in extents if extent.kind is ExtentKind.DATA)
