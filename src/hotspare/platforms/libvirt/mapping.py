"""Fitting a machine that came from elsewhere to this host: networks, types of machines, identities."""

import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import libvirt

from hotspare.errors import TargetExists, UsageError
from hotspare.platforms.libvirt.connection import explained, message_of
from hotspare.platforms.placement import Placement, PlannedCard

_DEVICES = Path("/sys/class/net")


def map_names(root: ET.Element, placement: Placement) -> None:
    """Replace names of networks, bridges and machine types, and MAC addresses, in a domain's definition."""
    for card in root.iterfind("devices/interface/mac"):
        mac = card.get("address", "").lower()
        if mac in placement.macs:
            card.set("address", placement.macs[mac])
    for source in root.iterfind("devices/interface/source"):
        for attribute, mapping in (("network", placement.networks), ("bridge", placement.bridges)):
            name = source.get(attribute, "")
            if name in mapping:
                source.set(attribute, mapping[name])
    for kind in root.iterfind("os/type"):
        name = kind.get("machine", "")
        if name in placement.machine_types:
            kind.set("machine", placement.machine_types[name])


def planned_cards(root: ET.Element, *, keep_macs: bool) -> tuple[PlannedCard, ...]:
    """Describe the network cards of a definition."""
    return tuple(
        PlannedCard(mac=_mac(interface) if keep_macs else "", network=_network(interface))
        for interface in root.iterfind("devices/interface")
    )


def networks_here(connection: libvirt.virConnect) -> tuple[str, ...]:
    """Name the networks that libvirt knows, in order."""
    with explained("The networks cannot be listed"):
        return tuple(sorted(network.name() for network in connection.listAllNetworks()))


def bridges_here() -> tuple[str, ...]:
    """Name the bridges of this host, in order."""
    return tuple(sorted(path.name for path in _DEVICES.glob("*") if (path / "bridge").is_dir()))


def networks_of(native: str) -> tuple[tuple[str, str], ...]:
    """Give what a domain's cards are plugged into: ``network`` or ``bridge``, and the name; each once."""
    root = ET.fromstring(native)  # noqa: S314 - XML that libvirt gave us
    return tuple(dict.fromkeys(_networks_needed(root)))


def refuse_missing_networks(connection: libvirt.virConnect, root: ET.Element) -> list[str]:
    """Raise ``UsageError`` for a network or bridge that is not here; give warnings about what is inactive."""
    with explained("The networks cannot be listed"):
        networks = {network.name(): bool(network.isActive()) for network in connection.listAllNetworks()}
    warnings = []
    for kind, name in _networks_needed(root):
        if kind == "network" and name not in networks:
            raise _missing("network", name, sorted(networks))
        if kind == "bridge" and not (_DEVICES / name).exists():
            raise _missing("bridge", name, bridges_here())
        if kind == "network" and not networks[name]:
            warnings.append(f"the network {name} is not active: virsh net-start {name}")
    return warnings


def refuse_unknown_hardware(connection: libvirt.virConnect, root: ET.Element) -> list[str]:
    """Raise ``UsageError`` for a type of machine that QEMU lacks here; give warnings about the CPU."""
    kind = root.find("os/type")
    if kind is None:
        return []
    emulator = root.findtext("devices/emulator")
    wanted = (
        emulator if emulator and Path(emulator).exists() else None,
        kind.get("arch"),
        kind.get("machine"),
        root.get("type"),
    )
    try:
        capabilities = ET.fromstring(connection.getDomainCapabilities(*wanted))  # noqa: S314 - libvirt's own XML
    except libvirt.libvirtError as error:
        raise UsageError(
            f"This host cannot run a machine of type {kind.get('machine')} ({kind.get('arch')}):"
            f" {message_of(error)}",
            meaning="Nothing was written",
            hint="Give another type in its place, for example --map-machine"
            f" {kind.get('machine')}=q35; qemu-system-x86_64 -machine help lists them",
        ) from error
    return _cpu_warnings(root, capabilities)


def refuse_taken_identity(connection: libvirt.virConnect, root: ET.Element, placement: Placement) -> None:
    """Raise ``TargetExists`` when a UUID or a MAC address that is to be kept belongs to a machine here."""
    uuid = root.findtext("uuid", "").lower()
    macs = {_mac(interface) for interface in root.iterfind("devices/interface")} - {""}
    with explained("The machines cannot be listed"):
        for domain in connection.listAllDomains():
            if placement.keep_id and domain.UUIDString().lower() == uuid:
                raise TargetExists(
                    f"The machine {domain.name()} has the UUID {uuid} already",
                    meaning="Nothing was written, and that machine was left alone",
                    hint="Leave out --keep-uuid, or restore over it with --in-place",
                )
            shared = macs & _macs_of(domain) if placement.keep_macs else set()
            if shared:
                raise _taken(domain.name(), min(shared), "Leave out --keep-macs for new addresses")


def refuse_taken_macs(
    connection: libvirt.virConnect, macs: Collection[str], hint: str, *, but_of: Collection[str]
) -> None:
    """Raise ``TargetExists`` when one of these MAC addresses belongs to a machine here.

    Args:
        connection: to this host's libvirt.
        macs: in small letters.
        hint: what to do then.
        but_of: UUIDs and names of machines that may have it.
    """
    with explained("The machines cannot be listed"):
        for domain in connection.listAllDomains():
            name = domain.name()
            if name in but_of or domain.UUIDString() in but_of:
                continue
            if shared := _macs_of(domain) & set(macs):
                raise _taken(name, min(shared), hint)


def _taken(machine: str, mac: str, hint: str) -> TargetExists:
    return TargetExists(
        f"The machine {machine} has the MAC address {mac} already",
        meaning="Nothing was written, and that machine was left alone",
        hint=hint,
    )


def _macs_of(domain: libvirt.virDomain) -> set[str]:
    try:
        root = ET.fromstring(domain.XMLDesc(0))  # noqa: S314 - libvirt's own XML
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return set()  # removed since it was listed
        raise
    return {_mac(interface) for interface in root.iterfind("devices/interface")}


def _mac(interface: ET.Element) -> str:
    element = interface.find("mac")
    return "" if element is None else element.get("address", "").lower()


def _network(interface: ET.Element) -> str:
    source = interface.find("source")
    attributes = {} if source is None else source.attrib
    named = next(
        (f"{key} {attributes[key]}" for key in ("network", "bridge", "dev") if key in attributes), ""
    )
    return named or interface.get("type", "")


def _networks_needed(root: ET.Element) -> Iterator[tuple[str, str]]:
    for source in root.iterfind("devices/interface/source"):
        for kind in ("network", "bridge"):
            name = source.get(kind)
            if name:
                yield kind, name
                break


def _missing(kind: str, name: str, there: Sequence[str]) -> UsageError:
    return UsageError(
        f"The machine is plugged into the {kind} {name!r}, which this host does not have",
        meaning="Nothing was written",
        hint=f"There are: {', '.join(there) or 'none'}. Choose one with --map-{kind} {name}=NEW",
    )


def _cpu_warnings(root: ET.Element, capabilities: ET.Element) -> list[str]:
    model = root.findtext("cpu/model")
    if not model:
        return []
    known = {one.text: one.get("usable") for one in capabilities.iterfind("cpu/mode[@name='custom']/model")}
    if model not in known:
        return [f"the CPU model {model} is not known here; the machine may not start"]
    return (
        [f"the CPU model {model} cannot be had here; the machine may not start"]
        if known[model] == "no"
        else []
    )
