"""Which machines of this host are replicated right now: a backup of them has to go to the standby.

An agent notes them down under ``/run``, which is emptied when the host starts, as are QEMU's mirrors.
"""

from contextlib import suppress
from pathlib import Path

import msgspec

from hotspare.errors import HotspareError
from hotspare.platforms.libvirt.runtime import runtime_folder
from hotspare.platforms.platform import Machine


class Replicated(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a machine that is replicated."""

    protection: str
    """Id of its protection; snapshots that are for it are let through."""
    standby: str
    """What people call the other host."""
    folder: str
    """Where the replicas are there."""


def _folder() -> Path:
    return runtime_folder() / "replicated"


def note_replicated(machine_id: str, replicated: Replicated) -> None:
    """Note that a machine is replicated, until ``forget_replicated`` or the next start of this host.

    What cannot be noted is not: then a backup gets libvirt's own words.
    """
    with suppress(OSError):
        _folder().mkdir(parents=True, exist_ok=True)
        (_folder() / machine_id).write_bytes(msgspec.json.encode(replicated))


def forget_replicated(machine_id: str) -> None:
    """Note that a machine is not replicated any more."""
    with suppress(OSError):
        (_folder() / machine_id).unlink()


def refuse_replicated(machine: Machine, repository_id: str) -> None:
    """Raise ``HotspareError`` for a machine that is replicated, unless it is for its own protection."""
    try:
        noted = msgspec.json.decode((_folder() / machine.id).read_bytes(), type=Replicated)
    except (OSError, msgspec.DecodeError):
        return
    if noted.protection == repository_id:
        return
    raise HotspareError(
        f"{machine.name} is replicated to {noted.standby}, and QEMU does not give its disks twice at a time",
        meaning="Nothing was backed up; replication goes on",
        hint=f"Back up its replica, on {noted.standby}: hotspare backup {machine.name}"
        f" --platform replica://{noted.folder}",
    )
