"""The definition of a restored domain."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from hotspare.platforms.libvirt.definition import NewDisk, NewState, restored_definition, without_secrets
from hotspare.platforms.libvirt.places import default_folder
from hotspare.platforms.libvirt.state import StateFolders
from hotspare.platforms.libvirt.undo_record import note_undo, noted_undo
from hotspare.platforms.placement import Placement
from hotspare.platforms.platform import Machine, MachineDisk, PowerState

NATIVE = """<domain type='kvm'>
  <name>web</name><uuid>11111111-2222-3333-4444-555555555555</uuid><genid>11111111-2222-3333-4444-666666666666</genid>
  <memory unit='KiB'>1048576</memory><vcpu>2</vcpu>
  <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type>
    <kernel>/boot/vmlinuz</kernel><nvram template='/usr/share/OVMF/VARS.fd'>/var/lib/nvram/web.fd</nvram></os>
  <cpu mode='host-passthrough'/><features><acpi/><hyperv><relaxed state='on'/></hyperv></features>
  <clock offset='utc'><timer name='kvmclock' present='yes'/><timer name='rtc'/></clock>
  <devices><emulator>/no/such/qemu</emulator>
    <disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/><source dev='/dev/vg/web'/>
      <backingStore/><target dev='vda' bus='virtio'/><serial>S1</serial></disk>
    <disk type='network' device='disk'><driver type='raw'/><source protocol='rbd' name='x'/>
      <target dev='vdb'/></disk>
    <disk type='file' device='cdrom'><source file='/no/such.iso'/><target dev='sda' bus='sata'/></disk>
    <interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/></interface>
  </devices><seclabel type='dynamic' model='dac'/></domain>"""


def machine(native: str = NATIVE) -> Machine:
    disks = (MachineDisk(name="vda", size=1, format="raw", source=""),)
    return Machine(id="x", name="web", platform="", state=PowerState.OFF, disks=disks, native=native)


def restored(
    *,
    kvm: bool = True,
    disks: dict[str, NewDisk] | None = None,
    placement: Placement = Placement(),  # noqa: B008 - it cannot be changed
    in_place: bool = False,
    native: str = NATIVE,
) -> ET.Element:
    new = disks or {"vda": NewDisk(Path("/images/copy-vda.raw"), "raw")}
    text = restored_definition(
        machine(native), "copy", new, kvm_works=lambda: kvm, placement=placement, in_place=in_place
    )
    return ET.fromstring(text)


def mac_of(root: ET.Element) -> str:
    element = root.find("devices/interface/mac")
    return "" if element is None else element.attrib["address"]


def disks_of(root: ET.Element) -> set[str]:
    return {target.attrib["dev"] for target in root.iterfind("devices/disk/target")}


def test_what_must_be_unique_is_dropped() -> None:
    root = restored(kvm=True)

    assert root.findtext("name") == "copy"
    assert root.find("uuid") is None
    assert not root.findtext("genid")
    assert root.find("devices/interface/mac") is None
    assert root.find("devices/interface/source") is not None
    assert root.find("seclabel") is None
    nvram = root.find("os/nvram")
    assert nvram is not None
    assert nvram.text is None
    assert root.findtext("os/kernel") == "/boot/vmlinuz"


def test_disks_point_to_the_new_files() -> None:
    disks = {"vda": NewDisk(Path("/i/a.raw"), "raw"), "vdc": NewDisk(Path("/i/c.qcow2"), "qcow2")}
    root = restored(kvm=True, disks=disks)
    found = {disk.findall("target")[0].get("dev"): disk for disk in root.iter("disk")}

    assert set(found) == {"vda", "sda", "vdc"}
    source = found["vda"].find("source")
    assert source is not None
    assert source.attrib == {"file": "/i/a.raw"}
    assert found["vda"].get("type") == "file"
    assert found["vda"].findtext("serial") == "S1"
    assert found["sda"].find("source") is None


def test_without_kvm_it_is_emulated() -> None:
    root = restored(kvm=False)

    assert root.get("type") == "qemu"
    assert root.find("cpu") is None
    assert root.find("features/hyperv") is None
    assert [timer.get("name") for timer in root.iter("timer")] == ["rtc"]
    assert restored(kvm=True).get("type") == "kvm"


def test_a_machine_from_elsewhere_gets_a_plain_definition() -> None:
    text = restored_definition(
        machine(native=""), "copy", {"disk0": NewDisk(Path("/i/a"), "raw")}, kvm_works=lambda: False
    )
    root = ET.fromstring(text)

    assert root.findtext("name") == "copy"
    assert [target.get("dev") for target in root.iterfind("devices/disk/target")] == ["vda"]


def test_what_is_to_be_kept_is_kept() -> None:
    root = restored(placement=Placement(keep_id=True))
    assert (root.findtext("uuid"), mac_of(root)) == ("11111111-2222-3333-4444-555555555555", "")
    root = restored(placement=Placement(keep_macs=True))
    assert (root.findtext("uuid"), mac_of(root)) == (None, "52:54:00:00:00:01")


def test_names_are_mapped() -> None:
    root = restored(placement=Placement(networks={"default": "lab"}, machine_types={"q35": "pc-q35-7.2"}))
    assert [source.get("network") for source in root.iterfind("devices/interface/source")] == ["lab"]
    kind = root.find("os/type")
    assert kind is not None
    assert kind.get("machine") == "pc-q35-7.2"


def test_in_place_it_is_the_same_machine_with_all_its_disks() -> None:
    root = restored(in_place=True)

    assert root.findtext("uuid") == "11111111-2222-3333-4444-555555555555"
    assert mac_of(root) == "52:54:00:00:00:01"
    assert root.findtext("os/nvram") == "/var/lib/nvram/web.fd"
    assert disks_of(root) == {"vda", "vdb", "sda"}
    assert not root.findtext("genid"), "the guest is told that its time went back"


def test_a_note_about_an_undo_is_not_restored() -> None:
    noted = ET.fromstring(NATIVE)
    note_undo(noted, Path("/images/record"))
    assert noted_undo(noted) == Path("/images/record")
    for in_place in (False, True):
        root = restored(native=ET.tostring(noted, encoding="unicode"), in_place=in_place)
        assert noted_undo(root) is None


def test_passwords_are_left_out_of_what_is_shown() -> None:
    native = NATIVE.replace(
        "<interface", "<graphics type='vnc' passwd='secret' passwdValidTo='2030-01-01'/><interface", 1
    )
    shown = without_secrets(native)
    assert "passwd" not in shown
    assert "vnc" in shown


@pytest.mark.parametrize(
    "system",
    [
        "<os firmware='efi'><type>hvm</type></os>",
        "<os><nvram template='/t.fd'>/old/web_VARS.fd</nvram></os>",
        "<os><nvram type='file' format='qcow2'><source file='/old/web.qcow2'/></nvram></os>",
    ],
)
def test_restored_state_is_named(system: str) -> None:
    native = (
        f"<domain type='qemu'><name>web</name><uuid>old</uuid>{system}<devices><tpm>"
        "<backend type='emulator' version='2.0'><source type='dir' path='/old/tpm'/></backend>"
        "</tpm></devices></domain>"
    )
    machine = Machine(id="x", name="web", platform="qemu:///system", state=PowerState.OFF, native=native)
    state = NewState(nvram=Path("/new/again-nvram.fd"), uuid="new-uuid")

    placed = restored_definition(machine, "again", {}, kvm_works=lambda: True, state=state)
    without = restored_definition(machine, "again", {}, kvm_works=lambda: True)

    for definition, nvram, uuid in ((placed, "/new/again-nvram.fd", "new-uuid"), (without, None, None)):
        root = ET.fromstring(definition)
        assert (root.findtext("os/nvram") or None) == nvram
        assert root.findtext("uuid") == uuid
        assert root.find("os/nvram/source") is None
        assert root.find("devices/tpm/backend/source") is None


def test_the_places_of_a_users_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    user, system = StateFolders.of("qemu:///session"), StateFolders.of("qemu:///system")

    assert user.nvram == Path("/home/u/.config/libvirt/qemu/nvram")
    assert user.tpm_of("U", "2.0") == Path("/home/u/.config/libvirt/qemu/swtpm/U/tpm2")
    assert system.tpm_of("U", "1.2") == Path("/var/lib/libvirt/swtpm/U/tpm1.2")
    assert default_folder("qemu:///session") == Path("/home/u/.local/share/libvirt/images")
    assert default_folder("qemu:///system") == Path("/var/lib/libvirt/images")
