"""Which machines and disks are chosen."""

import pytest

from hotspare.backup.select import MachineChoice, select_machines
from hotspare.platforms.choice import with_chosen_disks
from hotspare.platforms.platform import DiskChoice, Machine, MachineDisk, MachineMarks, PowerState


def machine(name: str, *tags: str) -> Machine:
    marks = MachineMarks(tags=tags)
    return Machine(id=f"id of {name}", name=name, platform="test:", state=PowerState.OFF, marks=marks)


MACHINES = [machine("web2"), machine("db", "prod", "nightly"), machine("web1", "prod"), machine("Test-web")]


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (MachineChoice(), ["Test-web", "db", "web1", "web2"]),
        (MachineChoice(include=("web*",)), ["web1", "web2"]),
        (MachineChoice(include=("web1", "d?")), ["db", "web1"]),
        (MachineChoice(exclude=("*web*",)), ["db"]),
        (MachineChoice(include=("web*",), exclude=("*2",)), ["web1"]),
        (MachineChoice(tags=("prod",)), ["db", "web1"]),
        (MachineChoice(tags=("nightly", "weekly")), ["db"]),
        (MachineChoice(tags=("prod",), exclude=("db",)), ["web1"]),
        (MachineChoice(include=("test-*",)), []),
        (MachineChoice(tags=("pro*",)), []),
    ],
)
def test_machines_are_chosen_by_name_and_tag(choice: MachineChoice, names: list[str]) -> None:
    assert [one.name for one in select_machines(MACHINES, choice)] == names


@pytest.mark.parametrize(
    ("choice", "chosen", "reason"),
    [
        (DiskChoice(), ["vda", "vdb"], "vdc: excluded from backups for good"),
        (DiskChoice(exclude=("vdb",)), ["vda"], "vdb: excluded from this run"),
        (DiskChoice(exclude=("SER-*",)), ["vda"], "vdb: excluded from this run"),
        (DiskChoice(only=("vda",)), ["vda"], "vdb: not among the disks of this run"),
        (DiskChoice(only=("ua-scratch", "vdb")), ["vdb", "vdc"], "vda: not among the disks of this run"),
        (DiskChoice(only=("vd?",), exclude=("vda",)), ["vdb", "vdc"], "vda: excluded from this run"),
    ],
)
def test_disks_are_chosen_by_name_serial_and_label(
    choice: DiskChoice, chosen: list[str], reason: str
) -> None:
    disks = (
        MachineDisk(name="vda", size=1, format="raw", source="a"),
        MachineDisk(name="vdb", size=1, format="raw", source="b", serial="SER-1"),
        MachineDisk(name="vdc", size=1, format="raw", source="c", labels=("ua-scratch",)),
    )
    whole = Machine(
        id="x",
        name="x",
        platform="test:",
        state=PowerState.OFF,
        disks=disks,
        left_out=("sda: a CD-ROM",),
        marks=MachineMarks(excluded_disks=("ua-scratch",)),
    )

    described = with_chosen_disks(whole, choice)

    assert [disk.name for disk in described.disks] == chosen
    assert described.left_out[0] == "sda: a CD-ROM"
    assert reason in described.left_out
    assert len(described.disks) + len(described.left_out) == 4
