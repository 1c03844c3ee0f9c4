"""The definition of a trial: the machine's hardware, and nothing that leads out."""

import struct
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import pytest

from hotspare.platforms.libvirt.definition import NewDisk, NewState
from hotspare.platforms.libvirt.picture import png_of_ppm
from hotspare.platforms.libvirt.trial_definition import (
    TrialParts,
    noted_folder,
    trial_cards,
    trial_definition,
)
from hotspare.platforms.platform import Machine, PowerState

FOLDER = Path("/scratch/trial")
UUID = "6a1f0c5e-8a52-4d53-9d5c-0b6f9f0c3c11"
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
NATIVE = """
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web</name><uuid>11111111-1111-1111-1111-111111111111</uuid>
  <memory unit='GiB'>8</memory><currentMemory unit='GiB'>8</currentMemory><vcpu>2</vcpu>
  <memoryBacking><hugepages/></memoryBacking><numatune><memory nodeset='1'/></numatune>
  <resource><partition>/machine</partition></resource><on_reboot>restart</on_reboot>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' io='native'/>
      <source file='/images/web.raw'/><target dev='vda' bus='virtio'/><shareable/>
      <iotune><total_iops_sec>5</total_iops_sec></iotune></disk>
    <disk type='file' device='disk'><source file='/images/shared.raw'/><target dev='vdb' bus='virtio'/></disk>
    <disk type='file' device='floppy'><source file='/etc/hostname'/><target dev='fda'/></disk>
    <disk type='network' device='cdrom'><source protocol='http' name='x'><host name='h'/></source>
      <target dev='sda' bus='sata'/></disk>
    <controller type='pci' index='1' model='pcie-root-port'>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x1e' function='0x0'/></controller>
    <filesystem type='mount'><source dir='/srv'/><target dir='share'/></filesystem>
    <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><model type='virtio'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></interface>
    <interface type='network'><mac address='52:54:00:00:00:02'/><source network='lan'/><model type='e1000e'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x1d' function='0x0'/></interface>
    <serial type='tcp'><source mode='connect' host='10.0.0.1' service='5000'/></serial>
    <channel type='unix'><source mode='bind' path='/x'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <graphics type='vnc' port='5901' listen='0.0.0.0' passwd='secret'/>
    <hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>
    <redirdev bus='usb' type='tcp'><source mode='connect' host='10.0.0.1' service='4000'/></redirdev>
    <rng model='virtio'><backend model='egd' type='tcp'/></rng>
    <tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>
    <input type='evdev'><source dev='/dev/input/event0'/></input>
    <vsock model='virtio'><cid auto='no' address='3'/></vsock>
    <watchdog model='i6300esb' action='reset'/><shmem name='s'/>
  </devices>
  <qemu:commandline><qemu:arg value='-netdev'/><qemu:arg value='user,id=out'/></qemu:commandline>
</domain>
"""
WEB = Machine(id="m", name="web", platform="qemu:///system", state=PowerState.RUNNING, native=NATIVE)


def definition(machine: Machine = WEB, memory_max: int | None = None) -> ET.Element:
    disks = {"vda": NewDisk(FOLDER / "vda.qcow2", "qcow2")}
    parts = TrialParts("hotspare-trial-web", UUID, FOLDER, disks, NewState(), memory_max)
    return ET.fromstring(trial_definition(machine, parts, kvm_works=lambda: False))


def test_nothing_of_it_names_what_is_outside() -> None:
    root = definition()
    text = ET.tostring(root, encoding="unicode")
    for word in (
        "/srv",
        "br0",
        "10.0.0.1",
        "/images",
        "secret",
        "/dev/",
        "user,id",
        "/etc/hostname",
        "hugepages",
    ):
        assert word not in text
    places = {value for one in root.iter() for value in one.attrib.values() if value.startswith("/")}
    assert places == {str(FOLDER), str(FOLDER / "vda.qcow2"), str(FOLDER / "console.log")}
    devices = {one.tag for one in root.iterfind("devices/*")}
    assert devices == {"disk", "controller", "serial", "channel", "video"}


def test_it_is_ours_and_ends_rather_than_restarts() -> None:
    root = definition()
    assert root.findtext("uuid") == UUID
    assert [root.findtext(f"on_{what}") for what in ("poweroff", "reboot", "crash")] == ["destroy"] * 3
    assert noted_folder(root) == FOLDER
    assert noted_folder(ET.fromstring(NATIVE)) is None


def test_its_cards_end_in_our_sockets_at_the_places_that_the_system_knows() -> None:
    words = [one.get("value") for one in definition().iterfind(f"{QEMU}commandline/{QEMU}arg")]
    assert words == [
        "-netdev",
        "stream,id=trial0,server=off,addr.type=unix,addr.path=/scratch/trial/card0.sock",
        "-device",
        "virtio-net-pci,netdev=trial0,id=trialcard0,mac=52:54:00:00:00:01,bus=pci.1,addr=0x0.0x0",
        "-netdev",
        "stream,id=trial1,server=off,addr.type=unix,addr.path=/scratch/trial/card1.sock",
        "-device",
        "e1000e,netdev=trial1,id=trialcard1,mac=52:54:00:00:00:02,bus=pcie.0,addr=0x1d.0x0",
    ]
    assert [(card.network, card.mac) for card in trial_cards(NATIVE, FOLDER)] == [
        ("br0", "52:54:00:00:00:01"),
        ("lan", "52:54:00:00:00:02"),
    ]


def test_what_is_added_takes_no_place_of_a_card() -> None:
    root = definition()
    slots = [one.get("slot") for one in root.iterfind("devices/*/address") if one.get("bus") == "0x00"]
    assert len(set(slots)) == len(slots) == 3
    assert "0x1d" not in slots


def test_disks_are_throw_away() -> None:
    (disk, drive) = definition().findall("devices/disk")
    driver = disk.find("driver")
    assert driver is not None
    assert driver.attrib == {
        "name": "qemu",
        "type": "qcow2",
        "cache": "unsafe",
        "error_policy": "stop",
        "rerror_policy": "stop",
    }
    assert disk.find("iotune") is None
    assert (drive.get("device"), drive.find("source")) == ("cdrom", None)


@pytest.mark.parametrize(("memory_max", "kib"), [(None, 8 * 2**20), (2**31, 2**21), (2**40, 8 * 2**20)])
def test_memory_is_capped(memory_max: int | None, kib: int) -> None:
    memory = definition(memory_max=memory_max).find("memory")
    assert memory is not None
    assert int(memory.text or 0) * {"GiB": 2**20, "KiB": 1}[memory.get("unit", "")] == kib


def test_a_machine_of_another_platform_gets_the_usual_devices() -> None:
    plain = Machine(id="m", name="web", platform="images://x", state=PowerState.OFF, memory=2**28)
    root = definition(plain)
    assert root.find("devices/channel/target[@name='org.qemu.guest_agent.0']") is not None
    assert root.find("devices/graphics") is None
    assert root.find(f"{QEMU}commandline") is None


def test_a_picture_becomes_png() -> None:
    png = png_of_ppm(b"P6\n2 1\n255\n" + bytes([255, 0, 0, 0, 0, 10]))
    assert png is not None
    assert struct.unpack_from(">II", png, 16) == (2, 1)
    data = png[png.index(b"IDAT") + 4 : png.index(b"IEND") - 8]
    assert zlib.decompress(data) == bytes([0, 255, 0, 0, 0, 0, 10])


@pytest.mark.parametrize(
    "broken", [b"", b"P5\n1 1\n255\n.", b"P6\n2 2\n255\n...", b"P6\n0 1\n255\n", b"P6\n9 9\n65535\n"]
)
def test_what_is_no_picture_becomes_none(broken: bytes) -> None:
    assert png_of_ppm(broken) is None
