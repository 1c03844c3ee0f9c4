"""One machine's replica on the standby: its disks, its points, and who may write to it."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Self

import msgspec

from hotspare.block.file import failure_of, make_name_durable
from hotspare.errors import HotspareError, PointNotFound, SourceLost
from hotspare.platforms.replica.holds import held_points, only_one
from hotspare.platforms.replica.record import (
    RECORD,
    GroupMark,
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
    put_on_top,
    take_layer,
)
from hotspare.replication.standby.merger import Merger
from hotspare.replication.standby.served_disks import ServedDisks
from hotspare.replication.standby.state import STATE, ReplicaState
from hotspare.replication.standby.storage_daemon import StorageDaemon

_SPARES = "spares"


class Replica(ServedDisks):
    """A replica in a folder. Its methods may be called by several threads, and take turns."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        """Open what is in the folder, see ``create``."""
        self._record = read_record(folder)
        super().__init__(folder, identity)
        self._merger = Merger(self)
        self._spares: dict[str, str] = {}
        """Empty images upon others, for the next point."""

    def before_change(self, daemon: StorageDaemon) -> None:
        """Stop giving back space: somebody needs the disks."""
        self._merger.interrupt(daemon)

    def adopt(self, daemon: StorageDaemon) -> None:
        """Go on with a daemon that runs: an agent may have died before it noted what the daemon has done."""
        self._merger.end_those_of_before(daemon)
        known = {node["node-name"] for node in daemon.ask("query-named-block-nodes", flat=True)}
        for chain in self.state.chains:
            for layer in chain.layers:
                if node_name(layer) in known:
                    continue
                if layer != chain.top:
                    self._merger.note(daemon, chain.name, layer)
                    continue
                # It was noted, but then not put on top.
                kept = msgspec.structs.replace(chain, layers=chain.layers[:-1])
                self.change(chains=tuple(kept if one == chain else one for one in self.state.chains))
                (self.folder / layer).unlink(missing_ok=True)

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
    def machine_name(self) -> str:
        """Name of the machine, for messages."""
        return self._record.machine_name

    @property
    def record(self) -> ReplicaRecord:
        """Its points and what they are of."""
        return self._record

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

    def receive(self, disks: Mapping[str, int], seed: Path | None = None) -> frozenset[str]:
        """Say which disks the machine has from now on, each with its size in bytes.

        One that is new, or of another size, begins as zeroes; one that is not named any more leaves. The
        others go on. Gives the names of those that nothing was written to since they began.

        Args:
            disks: names and sizes.
            seed: a folder on the same file system. A disk that is new begins as ``NAME.qcow2`` from there, if
                there is such an image of its size; it is moved here.

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
                if seed is not None and (image := seed / f"{name}.qcow2").exists():
                    layer = take_layer(image, self.folder, name, size)
                else:
                    layer = new_layer(self.folder, name, size, None)
                    blank.append(name)
                chains.append(Chain(name=name, size=size, layers=(layer,)))
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

    # Points

    def make_point(self, point: ReplicaPoint, *, of_whole: bool = False) -> ReplicaPoint:
        """Make a point of all disks in one instant, durable when this returns.

        Args:
            point: all but its images; its disks are those of ``receive``. One with the same id that is
                there already is given back, so that it can be asked for twice.
            of_whole: refuse when what is on top is not whole. A storage daemon that has died unnoticed may
                have lost what it had acknowledged, so it is looked at first.

        Raises:
            NoSpace: there is no room for the images that take the writes from now on.
            HotspareError: the disks are not those of the replica, or are not whole.
        """
        with self.turn:
            for known in self._record.points:
                if known.id == point.id:
                    return known
            daemon = self.daemon()
            if of_whole and not self._state.whole:
                raise HotspareError(
                    f"The replica of {self._record.machine_name} is not whole",
                    meaning="The point was not made",
                )
            chains = {chain.name: chain for chain in self._state.chains}
            if {disk.name: disk.size for disk in point.disks} != {c.name: c.size for c in chains.values()}:
                raise HotspareError(
                    f"The point {point.id} has other disks than the replica of {self._record.machine_name}",
                    meaning="It was not made",
                )
            self._grow(daemon)
            disks = tuple(msgspec.structs.replace(disk, image=chains[disk.name].top) for disk in point.disks)
            made: ReplicaPoint = msgspec.structs.replace(point, disks=disks)
            self.write_points((*self._record.points, made))
            return made

    def make_ready(self) -> None:
        """Do before a point what takes time: make the images that it needs, write out what was written."""
        with self.turn:
            self.daemon()
            folder = self.folder / _SPARES
            if not self._spares:
                shutil.rmtree(folder, ignore_errors=True)  # of an agent that was killed
                folder.mkdir(mode=0o700)
            for chain in self._state.chains:
                if chain.top not in self._spares:
                    self._spares[chain.top] = new_layer(folder, chain.name, chain.size, chain.top)
            tops = [self.folder / chain.top for chain in self._state.chains]
        for top in tops:
            _make_durable(top)

    def _next_layer(self, chain: Chain) -> str:
        spare = self._spares.pop(chain.top, "")
        if not spare:
            return new_layer(self.folder, chain.name, chain.size, chain.top)
        (self.folder / _SPARES / spare).rename(self.folder / spare)
        make_name_durable(self.folder / spare)
        return spare

    def _grow(self, daemon: StorageDaemon) -> None:
        """Put an empty image on top of each disk."""
        self.before_change(daemon)
        before = self._state.chains
        grown: list[Chain] = []
        try:
            for chain in before:
                layer = self._next_layer(chain)
                grown.append(msgspec.structs.replace(chain, layers=(*chain.layers, layer)))
            # Noted before it is so: empty images on top harm nobody; writes to one not noted would be lost.
            self.change(chains=tuple(grown))
            tops = [(old.top, new.top) for old, new in zip(before, grown, strict=True)]
            put_on_top(daemon, self.folder, tops)
        except BaseException as error:
            if isinstance(error, SourceLost):
                # It may do so still, whenever it wakes up. Started anew, it has on top what is noted.
                daemon.kill()
            if daemon.is_running:  # else the next start opens them, empty
                self.change(chains=before)
                for chain in grown:
                    (self.folder / chain.top).unlink(missing_ok=True)
            raise

    def mark_point(self, name: str, taken_at: datetime, mark: GroupMark) -> None:
        """Say of a point that it is of one instant with others of its id; durable when this returns."""
        self._say({name}, lambda _point: {"taken_at": taken_at, "group": mark})

    def rate_point(self, name: str, consistency: str, warnings: Collection[str]) -> None:
        """Say anew of a point how good it is, with more warnings; durable when this returns."""
        self._say(
            {name}, lambda point: {"consistency": consistency, "warnings": (*point.warnings, *warnings)}
        )

    def unmark_points(self, ids: Collection[str]) -> None:
        """Let points be of this machine alone."""
        self._say(ids, lambda _point: {"group": None})

    def _say(self, ids: Collection[str], what: Callable[[ReplicaPoint], dict[str, object]]) -> None:
        with self.turn:
            if any(point.id in ids for point in self._record.points):
                points = [
                    msgspec.structs.replace(point, **what(point)) if point.id in ids else point
                    for point in self._record.points
                ]
                self.write_points(points)

    def needed_points(self) -> set[str]:
        """Give the ids of points that somebody uses, and that stay."""
        with self.turn, only_one(self.folder):
            return {*self._state.pinned, *held_points(self.folder)}

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

    def remove(self) -> None:
        """Remove the replica with all of its points and disks."""
        with self.turn:
            with suppress(HotspareError):
                self.close_exports()
            self.stop_daemon()
            (self.folder / RECORD).unlink(missing_ok=True)  # the first: what is half removed is no replica
            shutil.rmtree(self.folder, ignore_errors=True)

    def write_points(self, points: Collection[ReplicaPoint]) -> None:
        """Put points in the place of those that there are, durably."""
        record: ReplicaRecord = msgspec.structs.replace(self._record, points=tuple(points))
        write_record(self.folder, record)
        self._record = record


def _make_durable(image: Path) -> None:
    """Have an image written out that others go on writing to; does nothing when it has just gone."""
    with suppress(FileNotFoundError):
        descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            raise failure_of(image, "write", error) from error
        finally:
            os.close(descriptor)
