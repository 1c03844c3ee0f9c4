"""libvirt as a platform: the contract, and what is around it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.errors import PlatformUnavailable
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from lab import LabGuest, domain_name
from tests.contracts.platform_suite import MIB, PlatformCase, PlatformSuite
from tests.platforms.libvirt.bare_machine import BareMachine

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("state", ["running", "off"])
class TestLibvirtPlatform(PlatformSuite):
    @pytest.fixture
    def case(self, platform: LibvirtPlatform, scratch_folder: Path, state: str) -> Iterator[PlatformCase]:
        new_name = domain_name("restored")
        with BareMachine("contract", ("qcow2", "raw")) as machine:
            write = machine.write_while_off if state == "off" else machine.start().write
            write(MIB, 2 * MIB, 5)
            write(8 * MIB, MIB, 6, disk="vdb")
            content = {
                "vda": (bytes(MIB) + b"\5" * 2 * MIB).ljust(16 * MIB, b"\0"),
                "vdb": (bytes(8 * MIB) + b"\6" * MIB).ljust(16 * MIB, b"\0"),
            }
            folder = scratch_folder / "restored"
            folder.mkdir()
            yield PlatformCase(platform, machine.name, content, folder, new_name)
        if new_name in {domain.name() for domain in machine.domain.connect().listAllDomains()}:
            LabGuest.attach(new_name).remove()


def test_a_libvirt_that_does_not_answer() -> None:
    with pytest.raises(PlatformUnavailable, match="does not answer"):
        LibvirtPlatform("qemu:///system?socket=/nonexistent/libvirt-sock")


def test_disks_that_cannot_be_backed_up_are_named(platform: LibvirtPlatform) -> None:
    with BareMachine("left-out") as machine:
        described = platform.inspect(machine.name)

    assert [disk.name for disk in described.disks] == ["vda"]
    assert described.left_out == ("hdc: a CD-ROM",)
    assert described.memory == 32 * MIB
    assert described.cpus == 1


def test_the_doctor_looks_at_everything(platform: LibvirtPlatform) -> None:
    findings = {finding.subject: finding for finding in platform.probe()}

    assert {"libvirt", "QEMU", "qemu-img", "qemu-nbd", "KVM", "scratch folder"} <= findings.keys()
    assert findings["libvirt"].ok
    assert findings["scratch folder"].ok
