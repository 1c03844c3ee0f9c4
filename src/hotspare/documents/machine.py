"""Machines, alone and as lists show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from hotspare.catalog.rows import PointRow, RunRow
from hotspare.documents.form import utc_time
from hotspare.platforms.platform import Machine, MachineDisk, MachineMarks, PowerState

Protection = Literal["never-backed-up", "ok", "failed", "gone"]


@dataclass(frozen=True, slots=True)
class ListedMachine:
    """One machine of the list: known to the platform, or only from its restore points."""

    name: str
    id: str
    machine: Machine | None
    last: PointRow | None
    run: RunRow | None
    test: PointRow | None = None
    """The restore point whose trial is the last."""

    @property
    def protection(self) -> Protection:
        """Since when it is safe, in one word."""
        if self.machine is None:
            return "gone"
        if self.run is not None and self.run.outcome in {"failed", "lost"}:
            return "failed"
        return "ok" if self.last else "never-backed-up"

    @property
    def size(self) -> int | None:
        """Bytes of all disks."""
        return sum(disk.size for disk in self.machine.disks) if self.machine else None


def listed_machines(
    machines: Sequence[Machine],
    points: Mapping[str, PointRow],
    runs: Mapping[str, RunRow],
    tests: Mapping[str, PointRow],
) -> list[ListedMachine]:
    """Put together what is known of the machines of a platform, by their names.

    Args:
        machines: those that there are.
        points: the newest restore point of each machine, by the machine's id; also of machines that are gone.
        runs: the newest backup of each, by the name or id that it was asked for.
        tests: of each the point whose trial is the last, by the machine's id.
    """
    lines = [
        ListedMachine(
            machine.name,
            machine.id,
            machine,
            points.get(machine.id),
            _last_run(machine, runs),
            tests.get(machine.id),
        )
        for machine in machines
    ]
    there = {machine.id for machine in machines}
    gone = [
        ListedMachine(point.machine_name, point.machine_id, None, point, None, tests.get(point.machine_id))
        for point in points.values()
        if point.machine_id not in there
    ]
    return sorted(lines + gone, key=lambda line: (line.name, line.id))


def _last_run(machine: Machine, runs: Mapping[str, RunRow]) -> RunRow | None:
    # A backup is recorded under what the user called the machine: its name or its id.
    found = [runs[key] for key in (machine.name, machine.id) if key in runs]
    return max(found, key=lambda run: run.id, default=None)


def listed_fields(line: ListedMachine) -> dict[str, Any]:
    """Describe one machine of a list."""
    return {
        "name": line.name,
        "id": line.id,
        "power": line.machine.state.value if line.machine else None,
        "disks": len(line.machine.disks) if line.machine else None,
        "size": line.size,
        "tags": list(line.machine.marks.tags) if line.machine else None,
        "state": line.protection,
        "last_point": line.last.id if line.last else None,
        "last_point_at": utc_time(line.last.finished_at) if line.last else None,
        "last_error": line.run.error if line.run else None,
        "tested_point": line.test.id if line.test else None,
        "tested_at": utc_time(line.test.boot_at) if line.test and line.test.boot_at else None,
        "boots": line.test.boot_passed if line.test else None,
    }


def machine_fields(machine: Machine) -> dict[str, Any]:
    """Describe a machine; its native definition is left out, which may be long."""
    return {
        "id": machine.id,
        "name": machine.name,
        "platform": machine.platform,
        "state": machine.state.value,
        "cpus": machine.cpus,
        "memory": machine.memory,
        "firmware": machine.firmware,
        "disks": [
            {
                "name": disk.name,
                "size": disk.size,
                "format": disk.format,
                "source": disk.source,
                "serial": disk.serial,
                "labels": list(disk.labels),
            }
            for disk in machine.disks
        ],
        "title": machine.title,
        "tags": list(machine.marks.tags),
        "excluded_disks": list(machine.marks.excluded_disks),
        "hooks": list(machine.marks.hooks),
        "checks": list(machine.marks.checks),
        "left_out": list(machine.left_out),
    }


def machine_of(fields: Mapping[str, Any], platform: str) -> Machine:
    """Read what ``machine_fields`` has written, of a machine of the platform with that URI.

    Raises:
        KeyError, ValueError, TypeError, msgspec.ValidationError: it is something else.
    """
    return Machine(
        id=str(fields["id"]),
        name=str(fields["name"]),
        platform=platform,
        state=PowerState(fields["state"]),
        cpus=int(fields["cpus"]),
        memory=int(fields["memory"]),
        firmware=str(fields["firmware"]),
        disks=tuple(msgspec.convert(disk, MachineDisk) for disk in fields["disks"]),
        left_out=tuple(map(str, fields["left_out"])),
        title=str(fields["title"]),
        marks=MachineMarks(
            **{mark: tuple(map(str, fields[mark])) for mark in ("tags", "excluded_disks", "hooks", "checks")}
        ),
    )
