"""The replicas on a standby host, as machines that are off."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import msgspec

from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, MachineNotFound, PointNotFound, SourceLost, UsageError
from hotspare.platforms.choice import with_chosen_disks
from hotspare.platforms.placement import TargetPlan
from hotspare.platforms.platform import (
    Finding,
    Machine,
    MachineMarks,
    PowerState,
    Remnant,
    Snapshot,
    SnapshotRequest,
    SweepRequest,
    Target,
    TargetRequest,
)
from hotspare.platforms.replica.holds import hold_for_reading, only_one
from hotspare.platforms.replica.record import RECORD, ReplicaPoint, ReplicaRecord, read_record
from hotspare.platforms.replica.snapshot import ReplicaSnapshot

_DEEP = ("", "*/", "*/*/")
"""Where below the folder records are looked for."""


class ReplicaPlatform:
    """A ``Platform``: each replica in or below a folder is a machine, as it was at its newest point."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.uri = f"replica://{quote(str(self.folder))}"

    def probe(self) -> list[Finding]:
        """Look at the folder, the records in it, and the program that serves images."""
        readable = self.folder.is_dir() and os.access(self.folder, os.R_OK | os.X_OK)
        hint = "Name the folder of the agent's replicas, and run as root"
        findings = [Finding("folder", readable, str(self.folder), "" if readable else hint)]
        for path in self._folders():
            try:
                record = read_record(path)
                findings.append(Finding(record.machine_name, True, f"{len(record.points)} points"))
            except HotspareError as error:
                findings.append(Finding(path.name, False, error.what, error.hint or "Look into the folder"))
        program = shutil.which("qemu-nbd")
        missing = "" if program else "apt install qemu-utils"
        return [*findings, Finding("qemu-nbd", bool(program), program or "not installed", missing)]

    def machines(self) -> list[Machine]:
        """List the replicas that have a point, by name."""
        found = [self._describe(record) for _, record in self._replicas() if record.points]
        return sorted(found, key=lambda machine: machine.name)

    def inspect(self, name: str) -> Machine:
        """Describe the replica of the machine of that name or id, as it was at its newest point."""
        return self._describe(self._find(name)[1])

    def _find(self, name: str) -> tuple[Path, ReplicaRecord]:
        replicas = self._replicas()
        for folder, record in replicas:
            if name in (record.machine_name, record.machine_id):
                if record.points:
                    return folder, record
                raise MachineNotFound(
                    f"The replica of {name} in {self.folder} has no point yet",
                    meaning="Nothing was done",
                    hint="Wait until its first copy is through",
                )
        names = ", ".join(sorted(record.machine_name for _, record in replicas))
        raise MachineNotFound(
            f"There is no replica of {name!r} in {self.folder}",
            meaning="Nothing was done",
            hint=f"There are: {names or 'none'}",
        )

    def _folders(self) -> list[Path]:
        return sorted({path.parent for deep in _DEEP for path in self.folder.glob(deep + RECORD)})

    def _replicas(self) -> list[tuple[Path, ReplicaRecord]]:
        return [(folder, read_record(folder)) for folder in self._folders()]

    def _describe(self, record: ReplicaRecord, point: ReplicaPoint | None = None) -> Machine:
        point = point or record.points[-1]
        here = {disk.name for disk in point.disks}
        return msgspec.structs.replace(
            point.machine,
            id=record.machine_id,
            name=record.machine_name,
            platform=self.uri,
            state=PowerState.OFF,
            disks=tuple(disk for disk in point.machine.disks if disk.name in here),
        )

    def mark(self, name: str, marks: MachineMarks) -> Machine:
        """Refuse: marks are the source's."""
        del marks
        machine = self.inspect(name)
        raise UsageError(
            f"{machine.name} is a replica, which cannot keep marks of its own",
            meaning="Nothing was changed",
            hint="Mark the machine on its own host: the replica follows with the next point",
        )

    def use(self, at: datetime) -> None:
        """Nothing runs here."""
        del at

    @contextmanager
    def open_snapshot(
        self, machine: Machine, request: SnapshotRequest, cancellation: Cancellation
    ) -> Iterator[Snapshot]:
        """Open the newest point for reading; it stays, whatever is thinned out meanwhile.

        Raises:
            MachineNotFound: the replica is gone.
            UsageError: no disk of it is chosen.
            SourceLost: an image is not there.
        """
        cancellation.check()
        folder, record = self._find(machine.id)
        with only_one(folder):
            record = read_record(folder)
            if not record.points:
                raise SourceLost(
                    f"The replica of {machine.name} has lost its points", meaning="Nothing was done"
                )
            point = record.points[-1]
            hold = hold_for_reading(folder, point.id)
        snapshot = self._open(folder, record, point, request, hold)
        try:
            yield snapshot
        finally:
            snapshot.release()

    @contextmanager
    def open_point(self, name: str, point: str = "") -> Iterator[ReplicaSnapshot]:
        """Open one point of the replica of that name or id, in full; the newest when none is named.

        Args:
            name: of the machine.
            point: beginning of the point's id.

        Raises:
            MachineNotFound: there is no such replica.
            PointNotFound: it has no such point, or several.
        """
        folder, _ = self._find(name)
        with only_one(folder):
            record = read_record(folder)
            found = [one for one in record.points if one.id.startswith(point)]
            if not found or (point and len(found) > 1):
                raise PointNotFound(
                    f"The replica of {record.machine_name} has {len(found) or 'no'} points {point!r}",
                    meaning="Nothing was done",
                    hint=f"See: hotspare replica points {record.machine_name}",
                )
            hold = hold_for_reading(folder, found[-1].id)
        request = SnapshotRequest(point_id="", repository_id="", since={})
        snapshot = self._open(folder, record, found[-1], request, hold)
        try:
            yield snapshot
        finally:
            snapshot.release()

    def _open(
        self, folder: Path, record: ReplicaRecord, point: ReplicaPoint, request: SnapshotRequest, hold: int
    ) -> ReplicaSnapshot:
        chosen = with_chosen_disks(self._describe(record, point), request.disks)
        if not chosen.disks:
            os.close(hold)
            raise UsageError(
                f"No disk of the replica of {chosen.name} can be backed up: {'; '.join(chosen.left_out)}",
                meaning="Nothing was done",
            )
        return ReplicaSnapshot(folder, chosen, record, point, request.since, request.repository_id, hold)

    def sweep(self, request: SweepRequest) -> list[Remnant]:
        """Find nothing: what a dead reader held is not held any more."""
        del request
        return []

    def plan_target(self, machine: Machine, request: TargetRequest) -> TargetPlan:
        """Refuse; see ``create_target``."""
        raise self._no_target(machine, request)

    def create_target(self, machine: Machine, request: TargetRequest) -> Target:
        """Refuse: replicas are made by replication only."""
        raise self._no_target(machine, request)

    def _no_target(self, machine: Machine, request: TargetRequest) -> UsageError:
        return UsageError(
            f"{machine.name} cannot be restored as {request.name} among replicas",
            meaning="Nothing was done",
            hint="Restore it to a platform that runs machines, such as qemu:///system",
        )

    def start(self, name: str) -> None:
        """Refuse: starting a replica is a failover."""
        raise UsageError(
            f"{name} is a replica, which is not started like a machine",
            meaning="Nothing was done",
            hint="A failover starts it, and sees to it that its source does not run",
        )

    def close(self) -> None:
        """Do nothing: nothing is held open."""
