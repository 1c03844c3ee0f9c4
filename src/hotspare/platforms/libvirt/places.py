"""Where the disks of a restored machine go: folders, and libvirt's storage pools that are folders."""

import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import libvirt

from hotspare.block.new_images import format_to_write, partial_bytes
from hotspare.errors import TargetExists, UsageError
from hotspare.platforms.libvirt.connection import explained
from hotspare.platforms.placement import PlannedDisk
from hotspare.platforms.platform import Machine, MachineDisk, TargetRequest

_SYSTEM_FOLDER = Path("/var/lib/libvirt/images")

_FOLDER_POOLS = ("dir", "fs", "netfs")
"""Kinds of pools whose volumes are files; see libvirt's "Storage pool and volume XML format"."""


class _Place(NamedTuple):
    folder: Path
    pool: str = ""


def plan_disks(
    connection: libvirt.virConnect, machine: Machine, request: TargetRequest, uri: str
) -> tuple[PlannedDisk, ...]:
    """Say where each disk of ``machine`` would go.

    Raises:
        UsageError: there is no such pool, it cannot be used, or the machine has no such disk.
        TargetExists: one of the files is there.
    """
    unknown = sorted(request.placement.places.keys() - {disk.name for disk in machine.disks})
    if unknown:
        names = ", ".join(disk.name for disk in machine.disks) or "none"
        raise UsageError(
            f"The restore point has no disk {unknown[0]!r}",
            meaning="Nothing was written",
            hint=f"Its disks: {names}",
        )
    return tuple(
        _plan_disk(disk, request, _place_of(connection, disk.name, request, uri)) for disk in machine.disks
    )


def default_folder(uri: str) -> Path:
    """Give the folder for new disks: of the host, or of the user whose ``qemu:///session`` it is."""
    if urlsplit(uri).path != "/session":
        return _SYSTEM_FOLDER
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "libvirt" / "images"


def planned_disk(disk: MachineDisk, path: Path, image_format: str, pool: str = "") -> PlannedDisk:
    """Say what is free where a disk would go."""
    parent = next(one for one in path.parents if one.exists())
    return PlannedDisk(
        name=disk.name,
        size=disk.size,
        format=image_format,
        path=str(path),
        pool=pool,
        free=shutil.disk_usage(parent).free + partial_bytes(path),
        file_system=parent.stat().st_dev,
    )


def usable_pools(connection: libvirt.virConnect) -> tuple[str, ...]:
    """Name the storage pools that disks can be made in, in order."""
    with explained("The storage pools cannot be listed"):
        pools = [pool for pool in connection.listAllStoragePools() if pool.isActive()]
        kinds = {pool.name(): ET.fromstring(pool.XMLDesc()).get("type") for pool in pools}  # noqa: S314 - libvirt's
    return tuple(sorted(name for name, kind in kinds.items() if kind in _FOLDER_POOLS))


def refresh_pool(connection: libvirt.virConnect, name: str) -> None:
    """Have libvirt see the files that were put into a pool."""
    with explained(f"libvirt does not look at its storage pool {name}"):
        connection.storagePoolLookupByName(name).refresh()


def _plan_disk(disk: MachineDisk, request: TargetRequest, place: _Place) -> PlannedDisk:
    wanted = format_to_write(disk.format)
    path = place.folder / f"{request.name}-{disk.name}.{wanted}"
    if (path.exists() or path.is_symlink()) and not partial_bytes(path):
        raise TargetExists(
            f"{path} exists already",
            meaning="Nothing was written, and it was left alone",
            hint="Choose another name with --to, or another place with --folder, --pool or --place",
        )
    return planned_disk(disk, path, wanted, place.pool)


def _place_of(connection: libvirt.virConnect, disk: str, request: TargetRequest, uri: str) -> _Place:
    chosen = request.placement.places.get(disk) or request.placement.pool
    if "/" in chosen:
        return _Place(Path(chosen).absolute())
    if chosen:
        return _pool_folder(connection, chosen)
    return _Place((request.folder or default_folder(uri)).absolute())


def _pool_folder(connection: libvirt.virConnect, name: str) -> _Place:
    with explained("The storage pools cannot be listed"):
        pools = {pool.name(): pool for pool in connection.listAllStoragePools()}
        if name not in pools:
            raise UsageError(
                f"There is no storage pool {name!r} here",
                meaning="Nothing was written",
                hint=f"There are: {', '.join(sorted(pools)) or 'none'}. A folder is written with a slash",
            )
        if not pools[name].isActive():
            raise UsageError(
                f"The storage pool {name} is not active",
                meaning="Nothing was written",
                hint=f"Start it with: virsh pool-start {name}",
            )
        root = ET.fromstring(pools[name].XMLDesc())  # noqa: S314 - libvirt's own XML
    folder = root.findtext("target/path")
    if root.get("type") not in _FOLDER_POOLS or not folder:
        raise UsageError(
            f"The storage pool {name} is of type {root.get('type')}, but disks are made in folders only",
            meaning="Nothing was written",
            hint="Make a volume in it and restore the disk over that, with --disk DISK=DEVICE --force",
        )
    return _Place(Path(folder), name)
