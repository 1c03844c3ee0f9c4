"""The machine itself, on a host of a protection: defined upon its images, started, asked, ended."""

import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import libvirt

from hotspare.errors import HotspareError, MachineNotFound
from hotspare.platforms.libvirt.connection import explained, find_domain, message_of, open_connection
from hotspare.platforms.libvirt.definition import NewDisk, restored_definition
from hotspare.platforms.libvirt.guest_agent import agent_is_connected, run_shell
from hotspare.platforms.libvirt.kvm import kvm_problem
from hotspare.platforms.libvirt.mapping import refuse_missing_networks
from hotspare.platforms.libvirt.restored_state import RestoredState
from hotspare.platforms.placement import Placement
from hotspare.platforms.platform import Machine, StateFile

_POLL_SECONDS = 0.1
_ADDRESS_SCRIPT = """
for card in /sys/class/net/*; do
  [ "$(cat "$card/address" 2>/dev/null)" = "$1" ] || continue
  name=${card##*/}
  ip address flush dev "$name" scope global
  ip address add "$2" dev "$name" && ip link set "$name" up || exit 1
  [ -z "$3" ] || ip route replace default via "$3" dev "$name" || exit 1
  exit 0
done
echo "no network card has the address $1"; exit 1
"""


def pid_of(machine: str) -> int:
    """Give the process of a machine's QEMU on this host, without asking libvirt; 0 when there is none."""
    try:
        return int(Path(f"/run/libvirt/qemu/{machine}.pid").read_text())
    except (OSError, ValueError):
        return 0


def find(uri: str, machine_id: str) -> libvirt.virDomain:
    """Find a machine by name or UUID. Raises ``MachineNotFound``, ``PlatformUnavailable``."""
    return find_domain(open_connection(uri), machine_id, uri)


def define(
    uri: str,
    machine: Machine,
    name: str,
    disks: Mapping[str, Path],
    state: Sequence[StateFile],
    network_map: Mapping[str, str],
    nvram: Path,
) -> tuple[libvirt.virDomain, list[str]]:
    """Define a machine that is the one described, with its UUID and MAC addresses; give warnings, too.

    A definition with its UUID that is there already is replaced.

    Raises:
        UsageError: this host lacks a network that it is plugged into.
        HotspareError: libvirt refuses the definition.
    """
    connection = open_connection(uri)
    placement = Placement(networks=network_map, bridges=network_map, keep_id=True, keep_macs=True)
    files = RestoredState(uri, machine, nvram, kept_uuid=machine.id)
    for path in nvram.parent.glob(f"{nvram.name}.*"):
        path.unlink()  # of an attempt before
    warnings = [problem for one in state if (problem := files.add(one)) is not None]
    definition = restored_definition(
        machine,
        name,
        {disk: NewDisk(path, "qcow2") for disk, path in disks.items()},
        kvm_works=lambda: kvm_problem() is None,
        placement=placement,
        state=files.placed,
    )
    warnings += refuse_missing_networks(connection, ET.fromstring(definition))  # noqa: S314 - made just now
    with explained(f"libvirt refuses the definition of {name}", meaning="The machine was not started"):
        domain = connection.defineXML(definition)
    files.keep()
    return domain, warnings


def start(domain: libvirt.virDomain) -> None:
    """Start a machine; one that runs is left alone."""
    with explained(f"The machine {domain.name()} does not start"):
        if not domain.isActive():
            domain.create()


def no_autostart(uri: str, machine_id: str) -> None:
    """Keep libvirt from starting a machine with the host: whether it may run is to be asked first."""
    with suppress(MachineNotFound), explained("The machine's autostart cannot be changed"):
        domain = find(uri, machine_id)
        if domain.autostart():
            domain.setAutostart(0)


def destroy(uri: str, machine_id: str) -> None:
    """Pull the plug of a machine; does nothing where it is not, or is off."""
    with suppress(MachineNotFound):
        domain = find(uri, machine_id)
        try:
            if domain.isActive():
                domain.destroy()
        except libvirt.libvirtError as error:
            if domain.isActive():
                raise HotspareError(f"{domain.name()} cannot be stopped: {message_of(error)}") from error


def shut_down(domain: libvirt.virDomain, seconds: float) -> None:
    """Let a machine shut down in good order, and wait for it. Raises ``HotspareError`` if it does not."""
    with explained(f"The machine {domain.name()} cannot be shut down", meaning="It goes on where it is"):
        flags = libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT if agent_is_connected(domain) else 0
        if domain.isActive():
            domain.shutdownFlags(flags)
        end = time.monotonic() + seconds
        while domain.isActive():
            if time.monotonic() > end:
                raise HotspareError(
                    f"The machine {domain.name()} did not shut down within {seconds:.0f} s",
                    meaning="It goes on where it is, or is still shutting down",
                    hint="Shut it down by hand and repeat, or give it longer with --timeout",
                )
            time.sleep(_POLL_SECONDS)


def wait_for_agent(domain: libvirt.virDomain, seconds: float) -> bool:
    """Wait until the guest's agent answers; False when it does not in time, or the machine goes off."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(libvirt.libvirtError):
            if not domain.isActive():
                return False
        if agent_is_connected(domain):
            with suppress(libvirt.libvirtError, TimeoutError):
                run_shell(domain, ":", [], seconds=5)
                return True
        time.sleep(_POLL_SECONDS)
    return False


def change_addresses(domain: libvirt.virDomain, addresses: Mapping[str, str]) -> list[str]:
    """Give network cards inside a Linux guest other addresses, until it boots again; gives what failed."""
    problems = []
    for mac, wanted in addresses.items():
        address, _, gateway = (part.strip() for part in wanted.partition(" via "))
        try:
            ended = run_shell(domain, _ADDRESS_SCRIPT, [mac.lower(), address, gateway], seconds=20)
        except (libvirt.libvirtError, TimeoutError) as error:
            problems.append(f"the address {wanted} was not set: {error}")
            continue
        if ended.status:
            problems.append(f"the address {wanted} was not set: {ended.output.strip()}")
    return problems
