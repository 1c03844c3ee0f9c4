"""Which disks of a machine are backed up: what is marked on it for good, and what one run asks for."""

from fnmatch import fnmatchcase

import msgspec

from hotspare.platforms.platform import DiskChoice, Machine, MachineDisk


def with_chosen_disks(machine: Machine, choice: DiskChoice) -> Machine:
    """Give the description of a machine whose other disks are left out, each with the reason."""
    obstacles = {disk.name: _obstacle(machine, disk, choice) for disk in machine.disks}
    return msgspec.structs.replace(
        machine,
        disks=tuple(disk for disk in machine.disks if obstacles[disk.name] is None),
        left_out=(
            *machine.left_out,
            *(f"{name}: {reason}" for name, reason in obstacles.items() if reason is not None),
        ),
    )


def _obstacle(machine: Machine, disk: MachineDisk, choice: DiskChoice) -> str | None:
    if _any_fits(choice.exclude, disk):
        return "excluded from this run"
    if choice.only:
        return None if _any_fits(choice.only, disk) else "not among the disks of this run"
    return "excluded from backups for good" if _any_fits(machine.marks.excluded_disks, disk) else None


def _any_fits(patterns: tuple[str, ...], disk: MachineDisk) -> bool:
    names = [name for name in (disk.name, disk.serial, *disk.labels) if name]
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)
