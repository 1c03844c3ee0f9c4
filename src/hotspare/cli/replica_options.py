"""The options of ``hotspare replica create``: how a machine is kept on a second host."""

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Group, Parameter

from hotspare.cli.options import Repeatable, Switch
from hotspare.cli.quantities import parse_bytes, parse_duration
from hotspare.replication.lease.terms import Terms
from hotspare.replication.model import DEFAULT_RETENTION, FailoverPolicy, Membership, Mode, Protection

_HOW = Group.create_ordered("How it is kept")


@Parameter(name="*", group=_HOW)
@dataclass(frozen=True, kw_only=True)
class Manner:
    """All of them, beside machine and host."""

    mode: Mode = Mode.SYNC
    """How the replica follows."""
    every: str = "60s"
    """Sync: time between two points to step back to. Interval: time between two shipments."""
    consistent_every: str | None = None
    """Time between two points for which file systems are frozen and hooks run; else never."""
    keep: str = DEFAULT_RETENTION
    """Which points stay."""
    disk: Repeatable = ()
    """Just these disks; may be given again."""
    bandwidth: str | None = None
    """Most bytes per second, 50MiB/s. Sync: of the first copy and of catching up. Interval: always."""
    stall_limit: str = "5s"
    """How long writes of the guest wait for a standby that is silent. Then it goes on alone."""
    durable: Switch = False
    """Sync: a write counts as done only when it is on the standby's disk, not just in its memory."""
    folder: Path | None = None
    """Where the standby keeps the replica."""
    seed: Path | None = None
    """Folder on the standby, on the file system of the replica, with images that were restored there before
    ("hotspare restore POINT --disk vda=FOLDER/vda.qcow2"). They are taken over; only what differs is sent."""
    witness: str = ""
    """Name of the host that decides, with the standby, whether the source is lost."""
    lease: str = "4s"
    """With a witness: how long it promises not to let the standby take over; see docs/failover.md."""
    beat: str = "0.5s"
    """Time between two such promises."""
    silence: str = "1.5s"
    """After this long without an answer a host counts as gone."""
    group: str = ""
    """Name of a group that it is in: its machines have points of one instant, and fail over together."""
    platform: str = "qemu:///system"
    """URI of libvirt."""

    def protection(self, machine: str, standby: str) -> Protection:
        """Say it in the agents' words; the source's agent fills in what it knows better.

        Raises:
            UsageError: an amount cannot be read.
        """
        terms = Terms(
            lease=parse_duration(self.lease),
            beat=parse_duration(self.beat),
            silence=parse_duration(self.silence),
        )
        return Protection(
            id="",
            machine_id="",
            machine=machine,
            mode=self.mode,
            source="",
            standby=standby,
            witness=self.witness,
            platform=self.platform,
            disks=self.disk,
            folder=str(self.folder or ""),
            seed=str(self.seed or ""),
            interval=parse_duration(self.every),
            application_interval=parse_duration(self.consistent_every) if self.consistent_every else 0.0,
            retention=self.keep,
            bandwidth=parse_bytes(self.bandwidth) if self.bandwidth else 0,
            stall_limit=parse_duration(self.stall_limit),
            durable=self.durable,
            failover=FailoverPolicy(terms=terms),
            group=self._membership(),
        )

    def _membership(self) -> Membership | None:
        if not self.group:
            return None
        return Membership(name=self.group, interval=parse_duration(self.every), retention=self.keep)


DEFAULT_MANNER = Manner()
