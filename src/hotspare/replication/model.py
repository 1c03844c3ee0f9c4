"""The words of replication: what is protected and how, and how it goes.

All of these travel between agents and to the command line as JSON, and are kept in state folders.
"""

from enum import StrEnum
from typing import Literal

import msgspec

from hotspare.replication.lease.terms import Terms

DEFAULT_PORT = 10861
"""The agent's; each replica takes one of the ports after it for its disks."""
PORTS = 100
"""How many ports from the agent's on are used at most."""
DEFAULT_RETENTION = "all for 1m, 1m for 1h, 1h for 1d"
DEFAULT_STALL_LIMIT = 5.0
"""Seconds that a guest's writes may wait for a standby that is silent."""


class Mode(StrEnum):
    """How a replica follows its machine."""

    SYNC = "sync"
    """Each write is on both hosts before the guest learns that it is done."""
    INTERVAL = "interval"
    """Every some seconds, what has changed is sent."""


class Phase(StrEnum):
    """How far the protection of a machine is."""

    WAITING = "waiting"
    """The machine is off, or has not been looked at yet: nothing is written that had to be sent."""
    SEEDING = "seeding"
    """What the replica began with is compared with the machine's disks."""
    SYNCING = "syncing"
    """The first copy is made."""
    PROTECTED = "protected"
    """The replica is as new as the mode promises."""
    DEGRADED = "degraded"
    """The machine runs without its replica, which is older by what has been written since."""
    RESYNCING = "resyncing"
    """What was written meanwhile is sent."""
    STOPPED = "stopped"
    """The user has stopped it."""
    STANDBY = "standby"
    """The replica is here, and the machine on another host."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another host's agent, as far as we know it since we were paired."""

    id: str
    """Stands in its certificate."""
    name: str
    """What people call that host."""
    address: str
    """Host name or IP address."""
    port: int = DEFAULT_PORT


class DiskSize(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a protected machine."""

    name: str
    """As the platform calls it: ``vda``."""
    size: int
    """Bytes."""


class FailoverPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What happens when the source is lost; see ``replication/failover``."""

    automatic: bool = False
    fence_command: str = ""
    """Run by the standby before it takes over; must end with status 0 when the source is surely off."""
    network_map: dict[str, str] = {}
    """Network or bridge of the source: the one of the standby."""
    addresses: dict[str, str] = {}
    """What a network card gets inside the guest, by its MAC address: ``10.0.0.5/24 via 10.0.0.1``."""
    after_start: str = ""
    """Run by the standby after the machine was started there (DNS, say)."""
    terms: Terms = Terms()
    """How the lease is counted that keeps two hosts from running it."""


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's place in a group: machines that have points of one instant, and fail over together.

    What is of the group, not of the machine, is the same at all members.
    """

    name: str
    """Of the group."""
    interval: float = 60.0
    """Of the group: seconds between two points."""
    retention: str = DEFAULT_RETENTION
    """Of the group: which of its points stay."""
    pause_limit: float = 1.0
    """Of the group: seconds that its machines may stand still for a point; else there is none."""
    rank: int = 0
    """Machines of lower rank are started first."""
    wait: Literal["agent", "start"] = "agent"
    """What the next machine waits for: this one's guest agent, or only its start."""
    wait_seconds: float = 180.0
    """How long it waits for that at most."""
    delay: float = 0.0
    """Seconds that it waits after that."""


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants for one machine. Kept by the source's agent, and a copy by the standby's."""

    id: str
    """Sixteen hexadecimal digits; the replica has the same."""
    machine_id: str
    """The platform's identity (libvirt: the UUID)."""
    machine: str
    """Its name."""
    mode: Mode
    source: str
    """Id of the host that runs it, when all is well."""
    standby: str
    """Id of the host that keeps the replica."""
    witness: str = ""
    """Id of the third agent; empty for none."""
    platform: str = "qemu:///system"
    """URI on both hosts."""
    disks: tuple[str, ...] = ()
    """Names of the disks that are replicated; empty for all."""
    folder: str = ""
    """Where the standby keeps the replica; empty for its state folder."""
    seed: str = ""
    """Folder on the standby with images restored there before, ``vda.qcow2``: what it begins with."""
    interval: float = 60.0
    """Seconds: between two points in sync mode; between two shipments in interval mode."""
    application_interval: float = 0.0
    """Seconds between two points for which applications inside are quiesced; 0 for never."""
    retention: str = DEFAULT_RETENTION
    """Which points stay, as ``thinning.py`` reads it."""
    bandwidth: int = 0
    """Bytes per second: in sync mode for the first copy and for catching up, in interval mode for all that is
    sent; 0 for no limit."""
    stall_limit: float = DEFAULT_STALL_LIMIT
    """Seconds that writes of the guest may wait for a silent standby; then it goes on without."""
    durable: bool = False
    """Sync mode: each write is on the standby's disk, not only in its memory, before it counts as done."""
    failover: FailoverPolicy = FailoverPolicy()
    group: Membership | None = None
    """None for a machine on its own."""
    stopped: bool = False
    """The user has stopped it."""


class NamedProtection(msgspec.Struct, frozen=True, kw_only=True):
    """Names one, by machine or id."""

    protection: str


class Tenure(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Who may run a machine, counted up each time that changes."""

    epoch: int
    holder: str
    """Id of a host."""


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """What would be lost if the source were lost now."""

    bytes: int
    """Written since and not on the replica; an upper bound, in the granularity of bitmaps."""
    seconds: float
    """How old the replica's newest whole state is; 0 when each write is on both."""


class DiskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far one disk is."""

    name: str
    size: int
    bytes_done: int = 0
    """Of the copy that is made now."""
    bytes_to_do: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How one protection goes, as its source's agent sees it."""

    protection: Protection
    phase: Phase
    since: float
    """When the phase began: seconds since 1970."""
    reason: str = ""
    """Why it is not protected, in words; empty when it is."""
    lag: Lag | None = None
    """None when it cannot be known."""
    disks: tuple[DiskStatus, ...] = ()
    newest_point: str = ""
    points: int = 0
    bytes_sent: int = 0
    """Since the agent was started: by copies and for catching up, without what the mirror sends."""
    bytes_compared: int = 0
    """Since the agent was started: where the replica may have had most already."""
    paused_seconds: float = 0.0
    """For how long the guest stood still when mirroring was begun last."""
    tenure: Tenure | None = None
