"""The frozen view of a running machine: a backup job in pull mode; see libvirt's "Backup XML format"."""

import re
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing, suppress
from typing import Any

import libvirt

from hotspare.block.extent import Extent
from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.extents import changed_extents
from hotspare.block.nbd.protocol import BASE_ALLOCATION
from hotspare.errors import HotspareError, NoSpace, SourceLost
from hotspare.platforms.libvirt.checkpoints import Checkpoints
from hotspare.platforms.libvirt.connection import explained, is_gone
from hotspare.platforms.libvirt.increment import DiskPlan
from hotspare.platforms.libvirt.scratch import RunFolder, check_free
from hotspare.platforms.platform import Consistency, IoTotals, Machine, SnapshotDisk, StateFile, Token

_POLL_SECONDS = 0.1
"""How often the scratch file system is looked at: at 2 GiB/s it loses 200 MiB between two looks."""
_END_SECONDS = 30.0
_TELL_AGAIN_SECONDS = 2.0
"""How often libvirt is told to end a job."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25
"""Seconds between two looks whether it has ended."""
_SETTLE_SECONDS = 0.5
"""When QEMU goes, libvirt drops its job a moment before it calls the machine stopped."""
_KINDS = {"rd": "read", "wr": "write", "fl": "flush"}
"""How libvirt's statistics call a kind of operation; times are in nanoseconds."""
_BROKEN_DISK = re.compile(r"for disk '([^']+)'")


class PullSnapshot:
    """All disks of a running machine in one instant, served by its own QEMU; a ``Snapshot``.

    A thread watches the scratch file system all the while: when that is full, QEMU lets the *guest's*
    writes fail, so the job is aborted before.
    """

    def __init__(
        self,
        machine: Machine,
        checkpoints: Checkpoints,
        run: RunFolder,
        plans: Sequence[DiskPlan],
        checkpoint: str | None,
        reserve: int,
    ) -> None:
        self.machine = machine
        self.disks: Sequence[SnapshotDisk] = [_snapshot_disk(plan, checkpoint) for plan in plans]
        self.consistency = Consistency.CRASH
        self.frozen_seconds = 0.0
        self.warnings: Sequence[str] = ()
        self.state: Sequence[StateFile] = ()
        self._domain = checkpoints.domain
        self._checkpoints = checkpoints
        self._run = run
        self._checkpoint = checkpoint
        self._reserve = reserve
        self._committed = False
        self._released = False
        self._failure: HotspareError | None = None
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="scratch-watcher", daemon=True)
        self._watcher.start()

    def changed(self, disk: str) -> Iterator[Extent]:
        """Yield all extents for a full, and those since the token for an increment."""
        snapshot_disk = self._disk(disk)
        if snapshot_disk.full_because is not None:
            with closing(self.reader(disk)) as client:
                yield from client.extents(0, client.size)
            return
        bitmap = f"qemu:dirty-bitmap:backup-{disk}"
        with closing(NbdClient.connect(self._run.socket, disk, contexts=(BASE_ALLOCATION, bitmap))) as client:
            yield from changed_extents(client, bitmap)

    def reader(self, disk: str) -> NbdClient:
        """Open the whole frozen disk."""
        return NbdClient.connect(self._run.socket, self._disk(disk).name)

    def guest_io(self) -> dict[str, IoTotals] | None:
        """Count what QEMU did for the guest on the disks that are backed up."""
        try:
            # For all disks at once: each question holds up the guest's I/O in QEMU for some milliseconds.
            found = self._domain.connect().domainListGetStats([self._domain], libvirt.VIR_DOMAIN_STATS_BLOCK)
        except libvirt.libvirtError:
            return None
        return _totals(found[0][1], {disk.name for disk in self.disks}) if found else None

    def check(self) -> None:
        """Raise if the machine stopped, the job ended, libvirt is lost or scratch space runs low."""
        if self._failure is not None:
            raise self._failure
        if not job_serves(self._domain, str(self._run.socket)):
            raise self._why_the_job_ended()
        check_free(self._run.path, self._reserve)

    def _why_the_job_ended(self) -> HotspareError:
        time.sleep(_SETTLE_SECONDS)
        with explained(f"The machine {self.machine.name} cannot be looked at"):
            active = self._domain.isActive()
        what = f"The backup job of {self.machine.name} has ended: by another program, or with a restart"
        if not active:
            what = f"The machine {self.machine.name} stopped during the backup"
        return SourceLost(
            what,
            meaning="This restore point was given up; older ones are not touched",
            hint="Run the backup again",
        )

    def commit(self) -> None:
        """Let the new checkpoint take the place of the older ones of this repository."""
        self._committed = True
        keep = {self._checkpoint} if self._checkpoint else set()
        # What fails here fails after the restore point is safe; the next run's sweep mends it.
        with suppress(libvirt.libvirtError, HotspareError):
            for name in self._checkpoints.names() - keep:
                self._checkpoints.remove(name)

    def release(self) -> None:
        """End the job, take the new checkpoint back unless committed, and remove the scratch files."""
        if self._released:
            return
        self._released = True
        self._stop.set()
        self._watcher.join()
        ended = end_job(self._domain, str(self._run.socket))
        if self._checkpoint and not self._committed:
            self._checkpoints.remove(self._checkpoint)
        if ended:
            self._run.remove()
        else:
            self._run.leave()

    def _disk(self, name: str) -> SnapshotDisk:
        return next(disk for disk in self.disks if disk.name == name)

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            try:
                check_free(self._run.path, self._reserve)
            except NoSpace as failure:
                self._failure = failure
                end_job(self._domain, str(self._run.socket))
                return
            except OSError:
                return  # the folder is gone, and with it the job that it was for


def _totals(statistics: Mapping[str, Any], disks: Set[str]) -> dict[str, IoTotals] | None:
    """Take what counts of some disks out of libvirt's statistics; None when the machine is off."""
    totals = {}
    for number in range(statistics.get("block.count", 0)):
        block = f"block.{number}"
        name = statistics.get(f"{block}.name")
        if name not in disks:
            continue
        if f"{block}.rd.reqs" not in statistics:
            return None
        for key, kind in _KINDS.items():
            operations, took = (statistics.get(f"{block}.{key}.{what}", 0) for what in ("reqs", "times"))
            totals[f"{name} {kind}"] = IoTotals(operations, took)
    return totals or None


def _snapshot_disk(plan: DiskPlan, checkpoint: str | None) -> SnapshotDisk:
    disk = plan.disk
    token = None
    if checkpoint is not None and plan.tracked:
        token = Token(value=checkpoint, disk_identity=plan.identity, size=disk.size)
    return SnapshotDisk(disk.name, disk.size, token, plan.full_because)


def backup_xml(plans: Sequence[DiskPlan], others: Sequence[str], run: RunFolder) -> str:
    """Describe the job.

    The mode is told disk by disk: one for the whole job would make a single lost bitmap fail all disks.
    """
    root = ET.Element("domainbackup", mode="pull")
    ET.SubElement(root, "server", transport="unix", socket=str(run.socket))
    disks = ET.SubElement(root, "disks")
    for plan in plans:
        disk = ET.SubElement(disks, "disk", name=plan.disk.name, backup="yes", type="file")
        disk.set("backupmode", "incremental" if plan.since else "full")
        if plan.since:
            disk.set("incremental", plan.since)
        ET.SubElement(disk, "driver", type="qcow2")
        ET.SubElement(disk, "scratch", file=str(run.scratch_file(plan.disk.name)))
    for name in others:
        ET.SubElement(disks, "disk", name=name, backup="no")
    return ET.tostring(root, encoding="unicode")


def broken_disk(error: libvirt.libvirtError) -> str | None:
    """Name the disk whose bitmap libvirt found missing or broken; empty when it does not say which.

    Gives None for all other errors.
    """
    if error.get_error_code() != libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT:
        return None
    named = _BROKEN_DISK.search(str(error))
    return named[1] if named else ""


def job_socket(domain: libvirt.virDomain) -> str | None:
    """Give the socket of the backup job on a domain (empty when it has none); None without a job.

    Raises:
        PlatformUnavailable: libvirt does not answer any more; QEMU's job may go on.
    """
    try:
        job = ET.fromstring(domain.backupGetXMLDesc(0))  # noqa: S314 - libvirt's own XML
    except libvirt.libvirtError:
        if is_gone(domain.connect()):
            with explained(
                "libvirt was lost during a backup",
                meaning="Older restore points are not touched, and the guest runs on",
                hint="Run the backup again: it clears away what this one has left",
            ):
                raise
        return None
    server = job.find("server")
    return "" if server is None else server.get("socket", "")


def job_serves(domain: libvirt.virDomain, socket: str) -> bool:
    """Tell whether the backup job at that socket still runs."""
    return job_socket(domain) == socket


def end_job(domain: libvirt.virDomain, socket: str) -> bool:
    """End the backup job at that socket, and only that one; tell whether it is gone.

    That may take long: on busy hosts libvirt 9.0 was seen to need more than half a minute to notice the end
    (perhaps since one thread handles the events of all machines). False too when libvirt is lost.
    """
    deadline = time.monotonic() + _END_SECONDS
    told, pause = -_TELL_AGAIN_SECONDS, _FIRST_PAUSE
    with suppress(HotspareError):
        while job_serves(domain, socket):
            now = time.monotonic()
            if now > deadline:
                return False
            # Each call wants the machine for itself, as does libvirt's thread that is to note the end: who
            # calls again and again keeps it from that.
            if now - told >= _TELL_AGAIN_SECONDS:
                told = now
                with suppress(libvirt.libvirtError):
                    domain.abortJob()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True
    return False
