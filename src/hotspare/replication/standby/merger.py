"""Gives back the space of images that no point needs any more, while a replica takes writes."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from hotspare.errors import HotspareError
from hotspare.platforms.replica.record import ReplicaPoint
from hotspare.replication.standby.chain import Chain, begin_merge, merge_job, node_name
from hotspare.replication.standby.storage_daemon import StorageDaemon

if TYPE_CHECKING:
    from hotspare.replication.standby.replica import Replica

_POLL_SECONDS = 0.02


class Merger:
    """Merges images of one replica, one after the other, in the thread of whoever asks for it.

    It holds the replica only for moments: making a point or taking over must not wait for it.
    """

    def __init__(self, replica: "Replica") -> None:
        self._replica = replica
        self._job = ""
        self._work = ("", "")
        """Disk and image that the job is about."""

    def merge(self) -> None:
        """Merge what can be; ends early when somebody else needs the replica, or is merging.

        Raises:
            HotspareError: the storage daemon fails; the points are whole all the same.
        """
        while self._merge_one():
            pass

    def _merge_one(self) -> bool:
        with self._replica.turn:
            found = self._find()
            if self._job or found is None:
                return False
            chain, layer = found
            daemon = self._replica.daemon()
            try:
                job = self._job = begin_merge(daemon, chain, layer)
            except HotspareError as error:
                if "not in this backing file chain" not in str(error):
                    raise
                # It was merged already, by an agent that died before it noted that.
                self.note(daemon, chain.name, layer)
                return True
            self._work = (chain.name, layer)
        while True:
            time.sleep(_POLL_SECONDS)
            with self._replica.turn:
                if self._job != job:
                    return False  # interrupted
                if self._has_ended(job):
                    self._job = ""
                    self._replica.daemon().finish_job(job)
                    self.note(self._replica.daemon(), *self._work)
                    return True

    def _has_ended(self, job: str) -> bool:
        jobs = self._replica.daemon().ask("query-jobs")
        return all(one["status"] == "concluded" for one in jobs if one["id"] == job)

    def interrupt(self, daemon: StorageDaemon) -> None:
        """Stop merging; the caller holds the replica. What is half merged is merged again later."""
        job, self._job = self._job, ""
        if not job:
            return
        with suppress(HotspareError):  # it has just ended
            daemon.ask("job-cancel", id=job)
        with suppress(HotspareError):  # an error says that it was cancelled
            daemon.finish_job(job)
            self.note(daemon, *self._work)

    def end_those_of_before(self, daemon: StorageDaemon) -> None:
        """End what an agent that died was merging; the caller holds the replica."""
        for job in daemon.ask("query-jobs"):
            for chain in self._replica.state.chains:
                for layer in chain.layers:
                    if job["id"] == merge_job(layer):
                        self._job, self._work = job["id"], (chain.name, layer)
                        self.interrupt(daemon)

    def _find(self) -> tuple[Chain, str] | None:
        """Find an image that can be merged into the one below, which no point shows; never the top."""
        needed = _images(self._replica.points())
        for chain in self._replica.state.chains:
            for below, layer in zip(chain.layers, chain.layers[1:-1], strict=False):
                if below not in needed:
                    return chain, layer
        return None

    def note(self, daemon: StorageDaemon, disk: str, layer: str) -> None:
        """Note that the image below shows now what this one did, which goes."""
        replica = self._replica
        with suppress(HotspareError):  # it may be closed already
            # Else it stays above what it was merged into, and the next merge would change its file.
            daemon.ask("blockdev-del", node_name=node_name(layer))
        chain = replica.chain(disk)
        below = chain.layers[chain.layers.index(layer) - 1]
        replica.write_points([_renamed(point, layer, below) for point in replica.points()])
        merged = msgspec.structs.replace(chain, layers=tuple(one for one in chain.layers if one != layer))
        replica.change(chains=tuple(merged if one == chain else one for one in replica.state.chains))
        (replica.folder / layer).unlink(missing_ok=True)


def _images(points: Sequence[ReplicaPoint]) -> set[str]:
    return {disk.image for point in points for disk in point.disks}


def _renamed(point: ReplicaPoint, old: str, new: str) -> ReplicaPoint:
    disks = tuple(
        msgspec.structs.replace(disk, image=new) if disk.image == old else disk for disk in point.disks
    )
    renamed: ReplicaPoint = msgspec.structs.replace(point, disks=disks)
    return renamed
