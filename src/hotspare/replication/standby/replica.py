"""One machine's replica on the standby: its disks, its points, and who may write to it."""

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from hotspare.errors import HotspareError, NoSpace, PermissionRefused, PointNotFound
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
    merge_down,
    new_layer,
    node_name,
    open_chain,
    put_on_top,
)
from hotspare.replication.standby.exports import Exports, close_exports, open_exports, open_server
from hotspare.replication.standby.storage_daemon import StorageDaemon

_STATE = "state.json"


class ReplicaState(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica is beside its points; kept in ``state.json``, which each change replaces."""

    tenure: Tenure
    """Who may write to it; never goes back."""
    port: int
    """Where its disks are served."""
    whole: bool = False
    """Whether what is on top of all disks is a machine as after a power cut; else only points are."""
    generation: int = 0
    """Counts the starts of the storage daemon: who was connected before may not go on as if nothing was."""
    chains: tuple[Chain, ...] = ()
    """The disks that the machine has now."""
    retired: tuple[Chain, ...] = ()
    """Disks that it does not have any more, but points do."""
    exports: Exports | None = None
    """How the disks are served; None when they are not."""
    clean: bool = True
    """Whether the storage daemon has written out all that it held, if it does not run."""
    pinned: dict[str, str] = {}
    """Points that must not be removed (a rehearsal uses them): id and why."""


class Replica:
    """A replica in a folder. Its methods may be called by several threads, and take turns."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        """Open what is in the folder, see ``open``."""
        self.folder = folder
        self._identity = identity
        self._turn = threading.RLock()
        self._daemon: StorageDaemon | None = None
        self._record = read_record(folder)
        self._state = msgspec.json.decode((folder / _STATE).read_bytes(), type=ReplicaState)

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
        if not (folder / _STATE).exists():
            record = ReplicaRecord(protection=protection, machine_id=machine_id, machine_name=machine_name)
            write_record(folder, record)
            write_struct(folder / _STATE, ReplicaState(tenure=tenure, port=port))
        return cls(folder, identity)

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether there is a replica in a folder."""
        return (folder / _STATE).exists() and (folder / RECORD).exists()

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
        with self._turn:
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
        with self._turn:
            if tenure == self._state.tenure:
                return
            if tenure.epoch <= self._state.tenure.epoch:
                self.check_tenure(tenure)
            self.close_exports()
            self._change(tenure=tenure)

    # Disks

    def receive(self, disks: Mapping[str, int]) -> None:
        """Say which disks the machine has from now on, each with its size in bytes.

        One that is new, or of another size, begins as zeroes; one that is not named any more leaves. The
        others go on. While something changes, the replica is not whole.

        Raises:
            NoSpace, PermissionRefused, SourceLost: an image cannot be made.
        """
        with self._turn:
            now = {chain.name: chain for chain in self._state.chains}
            if {name: chain.size for name, chain in now.items()} == dict(disks):
                return
            self.close_exports()
            self.stop_daemon()
            chains, retired = [], list(self._state.retired)
            for name, size in disks.items():
                old = now.pop(name, None)
                if old is not None and old.size == size:
                    chains.append(old)
                    continue
                if old is not None:
                    retired.append(old)
                layer = new_layer(self.folder, name, size, None)
                chains.append(Chain(name=name, size=size, layers=(layer,)))
            retired.extend(now.values())
            self._change(chains=tuple(chains), retired=tuple(retired), whole=False)

    def set_whole(self, whole: bool) -> None:
        """Note, durably, whether what is on top is a whole machine at each instant from now on."""
        with self._turn:
            if whole != self._state.whole:
                self._change(whole=whole)

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
        with self._turn:
            self.check_tenure(tenure)
            daemon = self.daemon()
            exports = self._state.exports
            if exports is None or exports.durable != durable:
                close_exports(daemon)
                exports = open_exports(daemon, self._state, durable=durable)
                self._change(exports=exports)
            return exports

    def close_exports(self) -> None:
        """Let nobody write any more; connections are cut. Does nothing when none are open."""
        with self._turn:
            daemon = self._daemon or StorageDaemon.find(self.folder)
            if daemon is not None and daemon.is_running:
                self._daemon = daemon
                close_exports(daemon)
            if self._state.exports is not None:
                self._change(exports=None)

    def daemon(self) -> StorageDaemon:
        """Give the storage daemon, with all disks open; started when it does not run.

        A start is a new generation. What was on top is not whole any more when the one before was killed: it
        may have had writes in its memory that it had acknowledged.
        """
        with self._turn:
            if self._daemon is not None and self._daemon.is_running:
                return self._daemon
            first = self._daemon is None
            self._daemon = StorageDaemon.find(self.folder) if first else None
            if self._daemon is not None:
                self._adopt(self._daemon)
            else:
                self._daemon = self._started()
            return self._daemon

    def _started(self) -> StorageDaemon:
        before = self._state
        durable = before.exports is not None and before.exports.durable
        self._change(
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
        """Go on with a daemon that runs: an agent may have died between noting new images and using them."""
        known = {node["node-name"] for node in daemon.ask("query-named-block-nodes", flat=True)}
        chains = []
        for chain in self._state.chains:
            layers = [layer for layer in chain.layers if node_name(layer) in known]
            for unused in set(chain.layers) - set(layers):
                if unused != chain.layers[-1]:
                    raise HotspareError(f"The storage daemon of {self.folder} has lost {unused}")
                (self.folder / unused).unlink(missing_ok=True)
            chains.append(msgspec.structs.replace(chain, layers=tuple(layers)))
        if tuple(chains) != self._state.chains:
            self._change(chains=tuple(chains))

    @property
    def is_served(self) -> bool:
        """Whether the storage daemon runs."""
        return self._daemon is not None and self._daemon.is_running

    def stop_daemon(self) -> None:
        """Have all be written out, and end the storage daemon; does nothing when none runs."""
        with self._turn:
            daemon = self._daemon or StorageDaemon.find(self.folder)
            self._daemon = None
            if daemon is not None and daemon.stop():
                self._change(clean=True, exports=None)

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
        with self._turn:
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
            self._write_record((*self._record.points, made))
            return made

    def _grow(self) -> None:
        """Put an empty image on top of each disk."""
        daemon = self.daemon()
        before = self._state.chains
        grown: list[Chain] = []
        try:
            for chain in before:
                layer = new_layer(self.folder, chain.name, chain.size, chain.top)
                grown.append(msgspec.structs.replace(chain, layers=(*chain.layers, layer)))
            # Noted before it is so: empty images on top harm nobody; writes to one not noted would be lost.
            self._change(chains=tuple(grown))
            tops = [(old.top, new.top) for old, new in zip(before, grown, strict=True)]
            put_on_top(daemon, self.folder, tops)
        except BaseException:
            if daemon.is_running:  # else the next start opens them, empty
                self._change(chains=before)
                for chain in grown:
                    (self.folder / chain.top).unlink(missing_ok=True)
            raise

    def remove_points(self, ids: Collection[str]) -> None:
        """Forget points and give back the space of what only they needed; pinned ones stay."""
        with self._turn:
            kept = [p for p in self._record.points if p.id not in ids or p.id in self._state.pinned]
            if len(kept) != len(self._record.points):
                # First they are no points any more: merging makes them unusable halfway.
                self._write_record(kept)
            self._merge_unneeded()
            self._remove_retired()

    def _merge_unneeded(self) -> None:
        for chain in self._state.chains:
            while (layer := self._mergeable(self._chain(chain.name))) is not None:
                self._merge(self._chain(chain.name), layer)

    def _mergeable(self, chain: Chain) -> str | None:
        """Give an image that can be merged into the one below, which no point shows; never the top."""
        needed = {disk.image for point in self._record.points for disk in point.disks}
        for below, layer in zip(chain.layers, chain.layers[1:-1], strict=False):
            if below not in needed:
                return layer
        return None

    def _merge(self, chain: Chain, layer: str) -> None:
        below = chain.layers[chain.layers.index(layer) - 1]
        merge_down(self.daemon(), chain, layer)
        # The lower one shows now what the upper did.
        self._write_record(
            tuple(
                msgspec.structs.replace(
                    point,
                    disks=tuple(
                        msgspec.structs.replace(disk, image=below) if disk.image == layer else disk
                        for disk in point.disks
                    ),
                )
                for point in self._record.points
            )
        )
        self._change_chain(
            msgspec.structs.replace(chain, layers=tuple(one for one in chain.layers if one != layer))
        )
        (self.folder / layer).unlink(missing_ok=True)

    def _remove_retired(self) -> None:
        needed = {disk.image for point in self._record.points for disk in point.disks}
        for chain in self._state.retired:
            if needed.isdisjoint(chain.layers):
                self._change(retired=tuple(one for one in self._state.retired if one != chain))
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
        with self._turn:
            self.point(point)
            self._change(pinned={**self._state.pinned, point: why})

    def unpin(self, point: str) -> None:
        """Let a point be removed again; does nothing when it was not pinned."""
        with self._turn:
            self._change(pinned={name: why for name, why in self._state.pinned.items() if name != point})

    # End

    def let_go(self) -> None:
        """Leave the storage daemon at work, for the next agent."""
        with self._turn:
            if self._daemon is not None:
                self._daemon.let_go()
                self._daemon = None

    def remove(self) -> None:
        """Remove the replica with all of its points and disks."""
        with self._turn:
            with suppress(HotspareError):
                self.close_exports()
            self.stop_daemon()
            (self.folder / RECORD).unlink(missing_ok=True)
            for path in (*self.folder.glob("*.qcow2"), *self.folder.glob("tls/*")):
                path.unlink(missing_ok=True)
            for path in self.folder.glob("*.*"):
                path.unlink(missing_ok=True)

    def _chain(self, name: str) -> Chain:
        return next(chain for chain in self._state.chains if chain.name == name)

    def _change_chain(self, chain: Chain) -> None:
        self._change(chains=tuple(chain if one.name == chain.name else one for one in self._state.chains))

    def _change(self, **changes: object) -> None:
        state = msgspec.structs.replace(self._state, **changes)
        try:
            write_struct(self.folder / _STATE, state)
        except OSError as error:
            kind = NoSpace if error.errno in {28, 122} else HotspareError
            raise kind(f"{self.folder / _STATE} cannot be written: {error.strerror}") from error
        self._state = state

    def _write_record(self, points: Collection[ReplicaPoint]) -> None:
        record: ReplicaRecord = msgspec.structs.replace(self._record, points=tuple(points))
        write_record(self.folder, record)
        self._record = record
