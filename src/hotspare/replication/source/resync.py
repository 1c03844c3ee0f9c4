"""Bringing the replica up to the machine while it runs, and going over to mirroring without losing a write.

    bitmaps of all disks begin -> what the ones before marked is sent -> again, until little is left
    -> the guest stands still for some milliseconds: the last of it is sent, the mirrors start -> it goes on

The guest never waits for the network in this, but for that one moment, which is bounded.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from hotspare.block.copy import copy_extents
from hotspare.block.device import BlockReader, BlockWriter
from hotspare.block.extent import Extent, ExtentKind
from hotspare.block.nbd.client import NbdClient
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, SourceLost
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.compare.bring_alike import CompareCounts, bring_alike
from hotspare.replication.model import Phase
from hotspare.replication.source.live_disks import LiveDisks, live_disks
from hotspare.replication.source.mirror import Mirror, MirrorTarget
from hotspare.replication.source.monitor import Monitor
from hotspare.replication.source.pause import paused
from hotspare.replication.source.standby_link import StandbyLink
from hotspare.replication.source.tracking import Tracking
from hotspare.replication.standby.service import Prepared
from hotspare.storage.wrappers.throttle import TokenBucket
from hotspare.units import KIB, MIB, format_bytes

_LITTLE = 4 * MIB
"""So much may be left when the guest is paused."""
_PASSES = 30
_PAUSE_SECONDS = 2.0
"""The longest time that the guest may stand still."""
_DISK_SECONDS = 10.0
"""How long the standby may take for one request, while the guest runs."""
_PIECE = 256 * KIB


@dataclass(slots=True)
class Progress:
    """How far it is. Written by the thread that works, read by others."""

    done: dict[str, int] = field(default_factory=dict)
    """Bytes of each disk that were looked at in the pass that is made now."""
    to_do: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    """Bytes since the beginning, over all passes."""
    compared: int = 0
    """Bytes that were compared with the replica's, likewise."""
    paused_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """Everything between one running machine and its replica."""

    monitor: Monitor
    nodes: Mapping[str, str]
    """For each disk, its node."""
    tracking: Tracking
    mirror: Mirror
    standby: StandbyLink
    protection: str
    uri: str
    folder: Path
    """For sockets and credentials; QEMU may go there."""


class CatchUp:
    """One attempt to bring the replica up to the machine; ends with running mirrors.

    Args:
        line: what is between both.
        prepared: what the standby has.
        bandwidth: bytes per second; 0 for no limit.
        progress: kept up to date.
        note: told the phase, and why it is in that.
        cancellation: looked at between pieces.
    """

    def __init__(
        self,
        line: Line,
        prepared: Prepared,
        bandwidth: int,
        progress: Progress,
        note: Callable[[Phase, str], None],
        cancellation: Cancellation,
    ) -> None:
        self._line = line
        self._prepared = prepared
        self._bucket = TokenBucket(bandwidth) if bandwidth else None
        self._progress = progress
        self._note = note
        self._cancellation = cancellation

    def run(self, before: Callable[[], ReplicaPoint], target: MirrorTarget) -> str:
        """Catch up, and give the serial of the bitmaps that note changes from then on.

        Args:
            before: describes the point that keeps what the replica has before anything is written to it.
            target: where the mirrors go.

        Raises:
            SourceLost: the machine stopped, or the standby went away.
            HotspareError: the standby is full, or QEMU refuses.
        """
        base = self._usable_base()
        self._line.standby.begin(before() if self._prepared.whole else None)
        if base is None:
            base = self._send_everything()
        else:
            self._note(Phase.RESYNCING, "what was written since is sent")
        base = self._send_changes(base)
        return self._go_over(base, target)

    def _usable_base(self) -> str | None:
        """Give the serial of bitmaps that note changes still and mark all that the replica lacks."""
        tracking, base = self._line.tracking, self._prepared.base
        usable = tracking.usable()
        if base not in usable:
            return None
        if tracking.is_noting(base):
            tracking.drop_all_but({base})
            return base
        # A pass was broken off: others note changes since its bitmaps stopped to.
        successors = [serial for serial in usable - {base} if tracking.is_noting(serial)]
        if len(successors) != 1:
            return None
        tracking.add(base, to=successors[0])
        self._line.standby.advance(successors[0], whole=False)
        tracking.drop_all_but({successors[0]})
        return successors[0]

    def _send_everything(self) -> str:
        serial = self._line.tracking.begin()
        self._line.tracking.drop_all_but({serial})
        blank = self._prepared.blank
        seeded = set(self._line.nodes) - blank
        why = f"{', '.join(sorted(seeded))} may have most of it already" if seeded else ""
        self._note(Phase.SEEDING if seeded else Phase.SYNCING, why)
        with self._live(None) as disks:
            for disk in self._line.nodes:
                with closing(disks.open(disk)) as source, closing(self._open(disk)) as target:
                    if disk in blank:
                        extents = source.extents(0, source.size)
                        data = [extent for extent in extents if extent.kind is ExtentKind.DATA]
                        self._send(disk, source, target, data)
                    else:
                        self._compare(disk, source, target)
        self._line.standby.advance(serial, whole=False)
        return serial

    def _send_changes(self, base: str) -> str:
        """Send what is marked, and what changes meanwhile, until that is little."""
        for _ in range(_PASSES):
            serial = self._line.tracking.begin(instead_of=base)
            with self._live(base) as disks:
                for disk in self._line.nodes:
                    with closing(disks.open(disk)) as source, closing(self._open(disk)) as target:
                        self._send(disk, source, target, list(disks.marked(source)))
            self._line.standby.advance(serial, whole=False)
            self._line.tracking.drop_all_but({serial})
            base = serial
            if sum(self._line.tracking.marked(base).values()) <= _LITTLE:
                return base
        left = sum(self._line.tracking.marked(base).values())
        raise HotspareError(
            f"The machine writes faster than the standby takes it: {format_bytes(left)} are left after"
            f" {_PASSES} passes",
            meaning="The replica stays behind; the machine is not slowed down",
            hint="Raise the bandwidth, or protect it in interval mode",
        )

    def _compare(self, disk: str, source: BlockReader, target: BlockWriter) -> None:
        """Send what differs; blocks that change meanwhile are marked, and sent again."""
        self._progress.done[disk], self._progress.to_do[disk] = 0, source.size
        compared, sent = self._progress.compared, self._progress.sent

        def note(counts: CompareCounts) -> None:
            if self._bucket is not None:
                self._cancellation.pause(self._bucket.charge(sent + counts.sent - self._progress.sent))
            self._progress.done[disk] = counts.compared
            self._progress.compared = compared + counts.compared
            self._progress.sent = sent + counts.sent

        with closing(self._line.standby.hasher(disk)) as theirs:
            bring_alike(source, target, theirs, on_progress=note, cancellation=self._cancellation)

    def _send(self, disk: str, source: BlockReader, target: BlockWriter, extents: list[Extent]) -> None:
        self._progress.done[disk] = 0
        self._progress.to_do[disk] = sum(extent.length for extent in extents)

        def note(piece: Extent) -> None:
            self._cancellation.check()
            self._progress.done[disk] += piece.length
            if piece.kind is ExtentKind.DATA:
                self._progress.sent += piece.length
                if self._bucket is not None:
                    self._cancellation.pause(self._bucket.charge(piece.length))

        copy_extents(source, target, extents, after_each=note)

    def _go_over(self, base: str, target: MirrorTarget) -> str:
        """Pause the guest, send the last of it, start the mirrors, and let it go on."""
        line = self._line
        with ExitStack() as stack:
            # What takes time is done before.
            targets = {
                disk: stack.enter_context(closing(self._open(disk, timeout=_PAUSE_SECONDS)))
                for disk in line.nodes
            }
            line.mirror.connect(target)
            with paused(line.monitor.domain, line.uri):
                began = time.monotonic()
                serial = line.tracking.begin(instead_of=base)
                with self._live(base) as disks:
                    for disk, writer in targets.items():
                        with closing(disks.open(disk)) as source:
                            self._send_last(disks, source, writer, began + _PAUSE_SECONDS)
                line.mirror.start()
            self._progress.paused_seconds = time.monotonic() - began
        try:
            line.standby.advance(serial, whole=True)
        except BaseException:
            line.mirror.cut()
            raise
        line.tracking.drop_all_but({serial})
        return serial

    def _send_last(self, disks: LiveDisks, source: NbdClient, target: NbdClient, deadline: float) -> None:
        buffer = memoryview(bytearray(_PIECE))
        for extent in disks.marked(source):
            if extent.kind is ExtentKind.ZERO:
                target.write_zeroes(extent.offset, extent.length)
                continue
            for at in range(extent.offset, extent.end, _PIECE):
                if time.monotonic() > deadline:
                    raise SourceLost("The standby became too slow while the guest stood still for it")
                data = buffer[: min(_PIECE, extent.end - at)]
                source.read_into(at, data)
                target.write(at, bytes(data))
                self._progress.sent += len(data)
        target.flush()

    def _live(self, serial: str | None) -> AbstractContextManager[LiveDisks]:
        line = self._line
        return live_disks(line.monitor, line.protection, line.nodes, line.folder, serial)

    def _open(self, disk: str, timeout: float = _DISK_SECONDS) -> NbdClient:
        return self._line.standby.open(self._prepared.exports, disk, timeout)
