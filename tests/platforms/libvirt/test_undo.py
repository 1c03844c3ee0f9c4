"""A restore over a machine is not undone by mistake: whatever the guest may have written since is seen."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import libvirt
import msgspec
import pytest

from hotspare.errors import UsageError
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.libvirt.undo_record import UndoRecord, record_path
from hotspare.platforms.platform import Machine
from tests.platforms.libvirt.bare_machine import MIB, BareMachine

pytestmark = pytest.mark.lab


@pytest.fixture
def machine(lab_host: None) -> Iterator[BareMachine]:
    with BareMachine("undo", ("qcow2", "qcow2"), size=MIB) as made:
        yield made


@pytest.fixture
def restored(machine: BareMachine, platform: LibvirtPlatform) -> dict[str, Path]:
    """Restore it over itself: vda upon an overlay, vdb, whose size had changed, to a new file."""
    then = platform.inspect(machine.name)
    subprocess.run(["qemu-img", "resize", "-q", machine.disks["vdb"], str(2 * MIB)], check=True)
    target = platform.replace_machine(then, power_off=False)
    for disk in then.disks:
        with closing(target.writer(disk.name)) as writer:
            writer.write(0, b"x" * MIB)
            writer.flush()
    made: Machine = target.finalize()
    return {disk.name: Path(disk.source) for disk in made.disks}


def refused(platform: LibvirtPlatform, machine: BareMachine, why: str) -> None:
    before = machine.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    with pytest.raises(UsageError, match=f"{why}.*--force"):
        platform.undo_restore(machine.name, force=False)
    assert machine.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) == before


def sources(platform: LibvirtPlatform, machine: BareMachine) -> dict[str, Path]:
    return {disk.name: Path(disk.source) for disk in platform.inspect(machine.name).disks}


def test_nothing_was_written_since(
    platform: LibvirtPlatform, machine: BareMachine, restored: dict[str, Path]
) -> None:
    platform.undo_restore(machine.name, force=False)

    assert sources(platform, machine) == machine.disks
    assert not any(path.exists() for path in restored.values())


@pytest.mark.parametrize("disk", ["vda", "vdb"])
def test_the_guest_has_written_to_a_restored_disk(
    platform: LibvirtPlatform, machine: BareMachine, restored: dict[str, Path], disk: str
) -> None:
    machine.start()
    machine.write(0, 512, 7, disk=disk)
    machine.stop()

    refused(platform, machine, f"{restored[disk].name} was written")
    platform.undo_restore(machine.name, force=True)
    assert sources(platform, machine) == machine.disks


def test_the_guest_has_written_to_a_snapshot_upon_a_restored_disk(
    platform: LibvirtPlatform, machine: BareMachine, restored: dict[str, Path]
) -> None:
    machine.domain.snapshotCreateXML(
        "<domainsnapshot><name>upon</name></domainsnapshot>",
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC,
    )
    refused(platform, machine, f"{restored['vda'].name} is no longer what it uses")


@pytest.mark.parametrize("disk", ["vda", "vdb"])
def test_a_restored_disk_is_gone(
    platform: LibvirtPlatform, machine: BareMachine, restored: dict[str, Path], disk: str
) -> None:
    restored[disk].unlink()

    refused(platform, machine, f"{restored[disk].name} is gone")
    platform.undo_restore(machine.name, force=True)
    assert sources(platform, machine) == machine.disks


def test_a_record_of_an_earlier_version_says_nothing_of_new_files(
    platform: LibvirtPlatform, machine: BareMachine, restored: dict[str, Path]
) -> None:
    path = record_path(machine.folder, machine.domain.UUIDString())
    said = msgspec.json.decode(path.read_bytes())
    del said["new_modified_ns"]
    path.write_bytes(msgspec.json.encode(said))
    os.utime(restored["vdb"])

    assert UndoRecord.read(path).new_files == (str(restored["vdb"]),)
    refused(platform, machine, "an earlier version did not note")
    platform.undo_restore(machine.name, force=True)
