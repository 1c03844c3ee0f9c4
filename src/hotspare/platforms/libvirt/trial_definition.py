"""The definition of a trial: the hardware of a machine, and none of its surroundings.

What is let through is listed, rather than what is taken away: an element that nobody thought of cannot lead
out. See libvirt's "Domain XML format".
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hotspare.platforms.libvirt.definition import NewDisk, NewState, restored_definition
from hotspare.platforms.platform import Machine
from hotspare.platforms.trial import TrialCard
from hotspare.units import KIB

TRIAL_NAMESPACE = "urn:hotspare:trial:1"
"""Of our element in a trial's metadata: it names the folder that the trial has."""
_QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
_TOP = (
    *("name", "uuid", "genid", "memory", "currentMemory", "vcpu", "vcpus", "iothreads", "sysinfo", "os"),
    *("features", "cpu", "clock", "pm", "devices", "metadata"),
)
_DEVICES = ("emulator", "disk", "controller", "input", "video", "tpm", "memballoon", "rng", "panic", "iommu")
_MODELS = {"virtio": "virtio-net-pci", "virtio-transitional": "virtio-net-pci-transitional"}
_MODELS |= {"virtio-non-transitional": "virtio-net-pci-non-transitional"}
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_MODEL = re.compile(r"[a-z0-9][a-z0-9-]*")
_AGENT = "org.qemu.guest_agent.0"
_SLOTS = range(2, 31)


@dataclass(frozen=True, slots=True)
class TrialParts:
    """What a trial is made of."""

    name: str
    uuid: str
    folder: Path
    """Of this trial alone; all that QEMU writes lies in it."""
    disks: Mapping[str, NewDisk]
    state: NewState
    memory_max: int | None
    """Bytes."""


class _Place(NamedTuple):
    """Where a PCI device sits."""

    bus: int
    slot: int
    function: int


def trial_cards(native: str, folder: Path) -> tuple[TrialCard, ...]:
    """Give the network cards of a machine, each with the socket that it gets."""
    cards = []
    for number, card in enumerate(_interfaces(native)):
        mac = card.find("mac")
        if mac is not None and _MAC.fullmatch(mac.get("address", "")):
            source = card.find("source")
            names = {} if source is None else source.attrib
            network = next((names[key] for key in ("network", "bridge", "dev") if key in names), "")
            cards.append(TrialCard(network, mac.get("address", ""), folder / f"card{number}.sock"))
    return tuple(cards)


def trial_definition(machine: Machine, parts: TrialParts, *, kvm_works: Callable[[], bool]) -> str:
    """Give the XML of a transient domain that is like ``machine`` and reaches nothing."""
    definition = restored_definition(machine, parts.name, parts.disks, kvm_works=kvm_works, state=parts.state)
    root = ET.fromstring(definition)  # noqa: S314 - made just now
    _keep_only(root, _TOP)
    for information in root.findall("sysinfo"):
        if information.get("type") != "smbios":
            root.remove(information)  # it may hand files of this host in
    for tag, text in (("uuid", parts.uuid), ("on_poweroff", "destroy"), ("on_reboot", "destroy")):
        _set(root, tag, text)
    _set(root, "on_crash", "destroy")
    _limit_memory(root, parts.memory_max)
    _note_folder(root, parts.folder)
    devices = root.find("devices")
    assert devices is not None  # noqa: S101 - a definition has devices
    _keep_only(devices, _DEVICES)
    _isolate_disks(devices)
    _isolate_others(devices)
    places = _Places(root, machine.native)
    _add_console(devices, parts.folder)
    _add_agent(devices, places)
    if devices.find("video") is None:
        places.put(ET.SubElement(devices, "video"), model="vga")
    _add_cards(root, machine.native, trial_cards(machine.native, parts.folder))
    return ET.tostring(root, encoding="unicode")


def noted_folder(definition: ET.Element) -> Path | None:
    """Give the folder of a trial of ours; None for any other domain."""
    element = definition.find(f"metadata/{{{TRIAL_NAMESPACE}}}trial")
    return Path(element.get("folder", "/")) if element is not None else None


def _keep_only(parent: ET.Element, tags: Sequence[str]) -> None:
    for child in list(parent):
        if child.tag not in tags:
            parent.remove(child)


def _set(root: ET.Element, tag: str, text: str) -> None:
    element = root.find(tag)
    if element is None:
        element = ET.SubElement(root, tag)
    element.text = text


def _limit_memory(root: ET.Element, memory_max: int | None) -> None:
    current, memory = root.find("currentMemory"), root.find("memory")
    if current is not None:
        root.remove(current)
    if memory is None or memory_max is None:
        return
    for numa in root.findall("cpu/numa"):  # cells whose sizes would have to add up
        root.find("cpu").remove(numa)  # type: ignore[union-attr]
    units = {"b": 1, "bytes": 1, "KiB": KIB, "k": KIB, "MiB": KIB**2, "M": KIB**2, "GiB": KIB**3, "G": KIB**3}
    unit = units.get(memory.get("unit", "KiB"))
    if unit is None or int(memory.text or 0) * unit > memory_max:
        memory.text, memory.attrib["unit"] = str(memory_max // KIB), "KiB"


def _note_folder(root: ET.Element, folder: Path) -> None:
    for metadata in root.findall("metadata"):
        root.remove(metadata)
    ET.register_namespace("hotspare-trial", TRIAL_NAMESPACE)
    ET.SubElement(ET.SubElement(root, "metadata"), f"{{{TRIAL_NAMESPACE}}}trial", folder=str(folder))


def _isolate_disks(devices: ET.Element) -> None:
    for disk in devices.findall("disk"):
        kind = disk.get("device", "disk")
        if kind not in {"cdrom", "disk", "lun"}:
            devices.remove(disk)  # a floppy's image would be written
        elif kind == "cdrom":
            source = disk.find("source")
            if source is not None and disk.get("type") != "file":
                disk.remove(source)
                disk.set("type", "file")
        else:
            disk.set("device", "disk")
            driver = disk.find("driver")
            if driver is not None:
                # It is thrown away: nothing of it has to reach a platter.
                driver.set("cache", "unsafe")
                # A guest that is told of errors would look broken when it is the repository that is away.
                driver.set("error_policy", "stop")
                driver.set("rerror_policy", "stop")
                driver.attrib.pop("io", None)
                driver.attrib.pop("iothread", None)
            for unwanted in ("iotune", "encryption", "alias"):
                for element in disk.findall(unwanted):
                    disk.remove(element)


def _isolate_others(devices: ET.Element) -> None:
    """Take away what is of a kind that is let through, and leads to the host."""
    for path, good in (("tpm/backend", ("emulator",)), ("rng/backend", ("random", "builtin"))):
        tag = path.partition("/")[0]
        for device in devices.findall(tag):
            backend = device.find("backend")
            if backend is None or (backend.get("type") or backend.get("model")) not in good:
                devices.remove(device)
            elif tag == "rng":
                backend.text = "/dev/urandom" if backend.get("model") == "random" else None
    for device in devices.findall("input"):
        if device.get("type") not in {"mouse", "keyboard", "tablet"}:
            devices.remove(device)  # passthrough and evdev read what is typed on this host
    for model in devices.iterfind("video/model"):
        for acceleration in model.findall("acceleration"):
            model.remove(acceleration)


def _add_console(devices: ET.Element, folder: Path) -> None:
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=str(folder / "console.log"))
    ET.SubElement(serial, "target", port="0")


def _add_agent(devices: ET.Element, places: "_Places") -> None:
    controllers = devices.findall("controller")
    if not any(controller.get("type") == "virtio-serial" for controller in controllers):
        places.put(ET.SubElement(devices, "controller", type="virtio-serial", index="0"))
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name=_AGENT)


def _add_cards(root: ET.Element, native: str, cards: Sequence[TrialCard]) -> None:
    """Give each card a frame's way to our socket, which libvirt has no words for."""
    if not cards:
        return
    ET.register_namespace("qemu", _QEMU_NAMESPACE)
    line = ET.SubElement(root, f"{{{_QEMU_NAMESPACE}}}commandline")
    q35 = "q35" in root.find("os/type").get("machine", "")  # type: ignore[union-attr]
    by_mac = {card.mac: card for card in cards}
    number = 0
    for interface in _interfaces(native):
        mac = interface.find("mac")
        card = by_mac.get("" if mac is None else mac.get("address", ""))
        if card is None:
            continue
        model = interface.find("model")
        kind = "virtio" if model is None else model.get("type", "virtio")
        kind = kind if _MODEL.fullmatch(kind) else "virtio"
        words = [f"{_MODELS.get(kind, kind)},netdev=trial{number},id=trialcard{number},mac={card.mac}"]
        place = _place_of(interface)
        if place is not None:
            bus = f"pci.{place.bus}" if place.bus or not q35 else "pcie.0"
            words.append(f"bus={bus},addr={place.slot:#x}.{place.function:#x}")
        path = str(card.socket).replace(",", ",,")  # as QEMU writes a comma in a value
        netdev = f"stream,id=trial{number},server=off,addr.type=unix,addr.path={path}"
        for word in ("-netdev", netdev, "-device", ",".join(words)):
            ET.SubElement(line, f"{{{_QEMU_NAMESPACE}}}arg", value=word)
        number += 1


def _interfaces(native: str) -> Iterator[ET.Element]:
    if native.lstrip().startswith("<domain"):
        yield from ET.fromstring(native).iterfind("devices/interface")  # noqa: S314 - libvirt's own XML


def _place_of(device: ET.Element) -> _Place | None:
    address = device.find("address[@type='pci']")
    if address is None:
        return None
    return _Place(*(int(address.get(name, "0"), 16) for name in ("bus", "slot", "function")))


class _Places:
    """Free PCI slots for what the machine did not have: never one of a card that libvirt does not see."""

    def __init__(self, root: ET.Element, native: str) -> None:
        devices = [*root.iterfind("devices/*"), *_interfaces(native)]
        self._taken = {place.slot for one in devices if (place := _place_of(one)) and place.bus == 0}
        self._known = any(_place_of(one) for one in devices)

    def put(self, device: ET.Element, model: str = "") -> None:
        """Give a device that is added a place."""
        if model:
            ET.SubElement(device, "model", type=model)
        if not self._known:  # libvirt chooses all places
            return
        slot = next(slot for slot in reversed(_SLOTS) if slot not in self._taken)
        self._taken.add(slot)
        ET.SubElement(
            device, "address", type="pci", domain="0x0000", bus="0x00", slot=f"{slot:#x}", function="0x0"
        )
