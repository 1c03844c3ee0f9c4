"""What a machine runs on that was taken over: one more image on top of its replica.

The images below it, and so all points, stay as they are. When the machine has gone back, the replica goes on
from what this one holds.
"""

import time
from pathlib import Path

import msgspec

from hotspare.platforms.platform import Machine, StateFile
from hotspare.replication.kept import write_struct
from hotspare.replication.standby.chain import Chain, new_layer
from hotspare.replication.standby.replica import Replica

ACTIVE = "active.json"


class ActiveDisk(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of it."""

    name: str
    size: int
    image: str
    """File name in the replica's folder."""
    below: str
    """File name of the image that it lies upon."""


class Active(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken over, and from where; kept in the protection's folder."""

    epoch: int
    since: float
    """Seconds since 1970."""
    point: str
    """Id of the point whose definition it has, and whose content unless it began with the newest writes."""
    newest: bool
    """Whether it began with all writes that the replica had."""
    disks: tuple[ActiveDisk, ...]
    machine: Machine
    state: tuple[StateFile, ...]
    defined: bool = False
    """Whether the machine was defined here: from then on its UEFI variables and TPM state are its own."""
    ended: bool = False
    """Whether the machine has gone on elsewhere since: then this is old, and must not be started."""


def read_active(folder: Path) -> Active | None:
    """Give what is active here; None when nothing is."""
    path = folder / ACTIVE
    return msgspec.json.decode(path.read_bytes(), type=Active) if path.exists() else None


def runs_upon_replica(folder: Path) -> bool:
    """Tell whether a machine's disks here are images of its replica."""
    active = read_active(folder)
    return active is not None and not active.ended


def note_defined(folder: Path, active: Active) -> None:
    """Note that the machine was defined upon it."""
    write_struct(folder / ACTIVE, msgspec.structs.replace(active, defined=True))


def end_active(folder: Path) -> None:
    """Note that the machine goes on elsewhere; does nothing when nothing is active."""
    active = read_active(folder)
    if active is not None and not active.ended:
        write_struct(folder / ACTIVE, msgspec.structs.replace(active, ended=True))


def drop_active(folder: Path, replica: Replica) -> None:
    """Take away what the machine wrote here, which does not run any more; the replica and its points stay."""
    active = read_active(folder)
    if active is None:
        return
    (folder / ACTIVE).unlink()
    for disk in active.disks:
        (replica.folder / disk.image).unlink(missing_ok=True)


def make_active(folder: Path, replica: Replica, epoch: int, point_name: str = "") -> Active:
    """Put an image upon each disk of a replica, of which nobody may write any more. Raises ``PointNotFound``.

    Args:
        folder: of the protection.
        replica: its exports are closed, and its storage daemon is ended here.
        epoch: in which this host holds the machine.
        point_name: the point to begin with; empty for all that there is.
    """
    replica.close_exports()
    replica.stop_daemon()
    points = replica.points()
    chosen = replica.point(point_name) if point_name else None
    newest = chosen is None and replica.state.whole
    images = replica.newest_images()  # says so when there is nothing
    point = chosen or points[-1]
    if chosen is not None:
        images = {disk.name: replica.folder / disk.image for disk in chosen.disks}
    sizes = {disk.name: disk.size for disk in point.disks}
    if newest:
        sizes = {chain.name: chain.size for chain in replica.state.chains}
    disks = tuple(
        ActiveDisk(
            name=name,
            size=sizes[name],
            image=new_layer(replica.folder, name, sizes[name], image.name),
            below=image.name,
        )
        for name, image in images.items()
    )
    active = Active(
        epoch=epoch,
        since=time.time(),
        point=point.id,
        newest=newest,
        disks=disks,
        machine=point.machine,
        state=point.state,
    )
    write_struct(folder / ACTIVE, active)
    return active


def fold_back(folder: Path, replica: Replica) -> None:
    """Let the replica go on from what the machine wrote here, once it does not run here any more.

    Points that are newer than the one that it began with are dropped: they are of another history. Does
    nothing when nothing is active.
    """
    active = read_active(folder)
    if active is None:
        return
    with replica.turn:
        replica.close_exports()
        replica.stop_daemon()
        chains = []
        for disk in active.disks:
            old = next((chain for chain in replica.state.chains if chain.name == disk.name), None)
            layers = old.layers if old is not None and disk.below in old.layers else (disk.below,)
            kept = layers[: layers.index(disk.below) + 1]
            chains.append(Chain(name=disk.name, size=disk.size, layers=(*kept, disk.image)))
        in_use = {layer for chain in chains for layer in chain.layers}
        replica.write_points(
            [point for point in replica.points() if all(disk.image in in_use for disk in point.disks)]
        )
        dropped = {layer for chain in replica.state.chains for layer in chain.layers} - in_use
        replica.change(chains=tuple(chains), whole=False, base="", blank=(), clean=True)
        for layer in dropped:
            (replica.folder / layer).unlink(missing_ok=True)
    (folder / ACTIVE).unlink()
