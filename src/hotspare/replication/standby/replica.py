"""One machine's replica on the standby: its disks, its points, and who may write to it."""

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from hotspare.errors import HotspareError, NoSpace, PermissionRefused, PointNotFound
from hotspare.platforms.replica.holds import held_points, only_one
from hotspare.platforms.replica.record import (
    RECORD,
    ReplicaPoint,
    ReplicaRecord,
    read_record,
    write_record,
)
from hotspare.replication.kept import write_struct
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import Tenure
from hotspare.replication.standby.chain import (
    Chain,
    new_layer,
    node_name,
    open_chain,
    put_on_top,
)
from hotspare.replication.standby.exports import Exports, close_exports, open_exports, open_server
from hotspare.replication.standby.merger import Merger
from hotspare.replication.standby.state import STATE, ReplicaState
from hotspare.replication.standby.storage_daemon import StorageDaemon


class Replica:
    """A replica in a folder. Its methods may be called by several threads, and take turns."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        """Open what is in the folder, see ``open``."""
        self.folder = folder
        self._identity = identity
        self.turn = threading.RLock()
        """Held by whoever changes something."""
        self._daemon: StorageDaemon | None = None
        self._merger = Merger(self)
        self._record = read_record(folder)
        self._state = msgspec.json.decode((folder / STATE).read_bytes(), type=ReplicaState)

    @classmethod
    def create(
        cls,
        folder: Path,
        identity: Identity,
        *,
        protection: str,
        machine_id: str,
        machine_name: str,
        tenure: Tenure,
        port: int,
    ) -> Self:
        """Make an empty replica; one that is there already is opened as it is."""
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        if not (folder / STATE).exists():
            record = ReplicaRecord(protection=protection, machine_id=machine_id, machine_name=machine_name)
            write_record(folder, record)
            write_struct(folder / STATE, ReplicaState(tenure=tenure, port=port))
        return cls(folder, identity)

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether there is a replica in a folder."""
        return (folder / STATE).exists() and (folder / RECORD).exists()

    # What it is

    @property
    def record(self) -> ReplicaRecord:
        """Its points and what they are of."""
        return self._record

    @property
    def state(self) -> ReplicaState:
        """All else."""
        return self._state

    def points(self) -> list[ReplicaPoint]:
        """List its points, the oldest first."""
        return list(self._record.points)

    def point(self, name: str) -> ReplicaPoint:
        """Find a point by the beginning of its id. Raises ``PointNotFound``."""
        found = [point for point in self._record.points if name and point.id.startswith(name)]
        if len(found) != 1:
            raise PointNotFound(
                f"The replica of {self._record.machine_name} has {len(found) or 'no'} points {name!r}",
                meaning="Nothing was done",
                hint=f'See "hotspare replica points {self._record.machine_name}"',
            )
        return found[0]

    def newest_images(self) -> dict[str, Path]:
        """Give for each disk the image whose chain is the newest whole state: the top's, else a point's.

        Raises:
            PointNotFound: nothing is whole yet.
        """
        with self.turn:
            if self._state.whole:
                return {chain.name: self.folder / chain.top for chain in self._state.chains}
            if not self._record.points:
                raise PointNotFound(
                    f"The replica of {self._record.machine_name} has not been whole yet",
                    meaning="There is nothing to start or to restore",
                    hint="Wait for the end of the first copy",
                )
            return {disk.name: self.folder / disk.image for disk in self._record.points[-1].disks}

    # Who may write

    def check_tenure(self, tenure: Tenure) -> None:
        """Raise ``PermissionRefused`` unless this is the tenure that may write."""
        if tenure != self._state.tenure:
            raise PermissionRefused(
                f"The replica of {self._record.machine_name} belongs to tenure {self._state.tenure.epoch} of"
                f" host {self._state.tenure.holder}, not {tenure.epoch} of {tenure.holder}",
                meaning="It was not changed",
                hint="Another host has taken the machine over; see hotspare replica status",
            )

    def pass_on(self, tenure: Tenure) -> None:
        """Let a later tenure write, and nobody else: exports are closed first.

        Raises:
            PermissionRefused: it is not later than the one that there is.
        """
        with self.turn:
            if tenure == self._state.tenure:
                return
            if tenure.epoch <= self._state.tenure.epoch:
                self.check_tenure(tenure)
            self.close_exports()
            self.change(tenure=tenure)

    # Disks

    def receive(self, disks: Mapping[str, int]) -> frozenset[str]:
        """Say which disks the machine has from now on, each with its size in bytes.

        One that is new, or of another size, begins as zeroes; one that is not named any more leaves. The
        others go on. Gives the names of those that nothing was written to since they began.

        Raises:
            NoSpace, PermissionRefused, SourceLost: an image cannot be made.
        """
        with self.turn:
            now = {chain.name: chain for chain in self._state.chains}
            if {name: chain.size for name, chain in now.items()} == dict(disks):
                return frozenset(self._state.blank)
            self.close_exports()
            self.stop_daemon()
            chains, retired, blank = [], list(self._state.retired), []
            for name, size in disks.items():
                old = now.pop(name, None)
                if old is not None and old.size == size:
                    chains.append(old)
                    blank += [name] if name in self._state.blank else []
                    continue
                if old is not None:
                    retired.append(old)
                layer = new_layer(self.folder, name, size, None)
                chains.append(Chain(name=name, size=size, layers=(layer,)))
                blank.append(name)
            retired.extend(now.values())
            self.change(
                chains=tuple(chains), retired=tuple(retired), blank=tuple(blank), whole=False, base=""
            )
            return frozenset(blank)

    def set_whole(self, whole: bool) -> None:
        """Note, durably, whether what is on top is a whole machine at each instant from now on.

        Until it is, writes are expected, so no disk is blank any more.
        """
        with self.turn:
            if whole != self._state.whole or self._state.blank:
                self.change(whole=whole, blank=())

    def advance(self, base: str, *, whole: bool) -> None:
        """Note, durably, which of the source's bitmaps mark all that is lacking here."""
        with self.turn:
            if (base, whole) != (self._state.base, self._state.whole):
                self.change(base=base, whole=whole)

    # Serving

    def serve(self, tenure: Tenure, *, durable: bool = False) -> Exports:
        """Serve all disks for writing to the holder, over NBD with TLS; idempotent.

        Args:
            tenure: must be the replica's.
            durable: a write is answered only when it is on the disk.

        Raises:
            PermissionRefused: somebody else may write.
            PlatformUnavailable: the storage daemon does not start.
        """
        with self.turn:
            self.check_tenure(tenure)
            daemon = self.daemon()
            exports = self._state.exports
            if exports is None or exports.durable != durable:
                close_exports(daemon)
                exports = open_exports(daemon, self._state, durable=durable)
                self.change(exports=exports)
            return exports

    def close_exports(self) -> None:
        """Let nobody write any more; connections are cut. Does nothing when none are open."""
        with self.turn:
            daemon = self._daemon or StorageDaemon.find(self.folder)
            if daemon is not None and daemon.is_running:
                self._daemon = daemon
                self._merger.interrupt(daemon)
                close_exports(daemon)
            if self._state.exports is not None:
                self.change(exports=None)

    def daemon(self) -> StorageDaemon:
        """Give the storage daemon, with all disks open; started when it does not run.

        A start is a new generation. What was on top is not whole any more when the one before was killed: it
        may have had writes in its memory that it had acknowledged.
        """
        with self.turn:
            if self._daemon is not None and self._daemon.is_running:
                return self._daemon
            if self._daemon is not None:
                self._daemon.kill()  # it is dead, and now forgotten too
                self._daemon = None
            else:
                self._daemon = StorageDaemon.find(self.folder)
            if self._daemon is not None:
                self._adopt(self._daemon)
            else:
                self._daemon = self._started()
            return self._daemon

    def _started(self) -> StorageDaemon:
        before = self._state
        durable = before.exports is not None and before.exports.durable
        self.change(
            generation=before.generation + 1,
            whole=before.whole and (before.clean or durable),
            exports=None,
            clean=False,
        )
        daemon = StorageDaemon.start(self.folder)
        try:
            for chain in self._state.chains:
                open_chain(daemon, self.folder, chain)
            holder = self._state.tenure.holder
            self._identity.write_qemu_credentials(self.folder / "tls", trusted=[holder], server=True)
            open_server(daemon, self.folder / "tls", self._state.port)
        except BaseException:
            daemon.kill()
            raise
        return daemon

    def _adopt(self, daemon: StorageDaemon) -> None:
        """Go on with a daemon that runs: an agent may have died before it noted what the daemon has done."""
        self._merger.end_those_of_before(daemon)
        known = {node["node-name"] for node in daemon.ask("query-named-block-nodes", flat=True)}
        for chain in self._state.chains:
            for layer in chain.layers:
                if node_name(layer) in known:
                    continue
                if layer != chain.top:
                    self._merger.note(daemon, chain.name, layer)
                    continue
                # It was noted, but then not put on top.
                kept = msgspec.structs.replace(chain, layers=chain.layers[:-1])
                self.change(chains=tuple(kept if one == chain else one for one in self._state.chains))
                (self.folder / layer).unlink(missing_ok=True)

    def answers(self, seconds: float) -> bool:
        """Tell whether the storage daemon serves the disks, and answers within that time."""
        if not self.turn.acquire(timeout=seconds):
            return True  # it is at work for somebody else, who will learn how it is
        try:
            daemon = self._daemon
            if daemon is None and (daemon := StorageDaemon.find(self.folder)) is not None:
                self._adopt(daemon)
                self._daemon = daemon
            if daemon is None or not daemon.is_running or self._state.exports is None:
                return False
            daemon.ask("query-block-exports", timeout=seconds)
        except HotspareError:
            return False
        else:
            return True
        finally:
            self.turn.release()

    def stop_daemon(self) -> None:
        """Have all be written out, and end the storage daemon; does nothing when none runs."""
        with self.turn:
            daemon = self._daemon or StorageDaemon.find(self.folder)
            self._daemon = None
            if daemon is not None:
                self._merger.interrupt(daemon)
            if daemon is not None and daemon.stop():
                self.change(clean=True, exports=None)

    # Points

    def make_point(self, point: ReplicaPoint) -> ReplicaPoint:
        """Make a point of all disks in one instant, durable when this returns.

        Args:
            point: all but its images; its disks are those of ``receive``. One with the same id that is
                there already is given back, so that it can be asked for twice.

        Raises:
            NoSpace: there is no room for the images that take the writes from now on.
            HotspareError: the disks are not those of the replica.
        """
        with self.turn:
            for known in self._record.points:
                if known.id == point.id:
                    return known
            chains = {chain.name: chain for chain in self._state.chains}
            if {disk.name: disk.size for disk in point.disks} != {c.name: c.size for c in chains.values()}:
                raise HotspareError(
                    f"The point {point.id} has other disks than the replica of {self._record.machine_name}",
                    meaning="It was not made",
                )
            self._grow()
            disks = tuple(msgspec.structs.replace(disk, image=chains[disk.name].top) for disk in point.disks)
            made: ReplicaPoint = msgspec.structs.replace(point, disks=disks)
            self.write_points((*self._record.points, made))
            return made

    def _grow(self) -> None:
        """Put an empty image on top of each disk."""
        daemon = self.daemon()
        self._merger.interrupt(daemon)
        before = self._state.chains
        grown: list[Chain] = []
        try:
            for chain in before:
                layer = new_layer(self.folder, chain.name, chain.size, chain.top)
                grown.append(msgspec.structs.replace(chain, layers=(*chain.layers, layer)))
            # Noted before it is so: empty images on top harm nobody; writes to one not noted would be lost.
            self.change(chains=tuple(grown))
            tops = [(old.top, new.top) for old, new in zip(before, grown, strict=True)]
            put_on_top(daemon, self.folder, tops)
        except BaseException:
            if daemon.is_running:  # else the next start opens them, empty
                self.change(chains=before)
                for chain in grown:
                    (self.folder / chain.top).unlink(missing_ok=True)
            raise

    def remove_points(self, ids: Collection[str]) -> None:
        """Forget points and give back the space of what only they needed; those in use stay.

        Giving back space may take long. Whatever else is asked of the replica meanwhile goes first, and what
        is left then is given back with the next call.
        """
        with self.turn, only_one(self.folder):
            needed = {*self._state.pinned, *held_points(self.folder)}
            kept = [p for p in self._record.points if p.id not in ids or p.id in needed]
            if len(kept) != len(self._record.points):
                # First they are no points any more: merging makes them unusable halfway.
                self.write_points(kept)
            self._remove_retired()
        self._merger.merge()

    def _remove_retired(self) -> None:
        needed = {disk.image for point in self._record.points for disk in point.disks}
        for chain in self._state.retired:
            if needed.isdisjoint(chain.layers):
                self.change(retired=tuple(one for one in self._state.retired if one != chain))
                for layer in chain.layers:
                    (self.folder / layer).unlink(missing_ok=True)

    @contextmanager
    def pinned(self, point: ReplicaPoint, why: str) -> Iterator[None]:
        """Keep a point, and the images that it is made of as they are, while the block runs."""
        self.pin(point.id, why)
        try:
            yield
        finally:
            self.unpin(point.id)

    def pin(self, point: str, why: str) -> None:
        """Keep a point until ``unpin``, also over restarts of the agent."""
        with self.turn:
            self.point(point)
            self.change(pinned={**self._state.pinned, point: why})

    def unpin(self, point: str) -> None:
        """Let a point be removed again; does nothing when it was not pinned."""
        with self.turn:
            self.change(pinned={name: why for name, why in self._state.pinned.items() if name != point})

    # End

    def let_go(self) -> None:
        """Leave the storage daemon at work, for the next agent."""
        with self.turn:
            if self._daemon is not None:
                self._daemon.let_go()
                self._daemon = None

    def remove(self) -> None:
        """Remove the replica with all of its points and disks."""
        with self.turn:
            with suppress(HotspareError):
                self.close_exports()
            self.stop_daemon()
            (self.folder / RECORD).unlink(missing_ok=True)
            for path in (*self.folder.glob("*.qcow2"), *self.folder.glob("tls/*")):
                path.unlink(missing_ok=True)
            for path in self.folder.glob("*.*"):
                path.unlink(missing_ok=True)

    def chain(self, name: str) -> Chain:
        """Give the images of one disk."""
        return next(chain for chain in self._state.chains if chain.name == name)

    def change(self, **changes: object) -> None:
        """Change the state, durably."""
        state = msgspec.structs.replace(self._state, **changes)
        try:
            write_struct(self.folder / STATE, state)
        except OSError as error:
            kind = NoSpace if error.errno in {28, 122} else HotspareError
            raise kind(f"{self.folder / STATE} cannot be written: {error.strerror}") from error
        self._state = state

    def write_points(self, points: Collection[ReplicaPoint]) -> None:
        """Put points in the place of those that there are, durably."""
        record: ReplicaRecord = msgspec.structs.replace(self._record, points=tuple(points))
        write_record(self.folder, record)
        self._record = record
