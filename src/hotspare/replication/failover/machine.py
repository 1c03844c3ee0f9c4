"""The machine itself, on a host of a protection: defined upon its images, started, asked, ended."""

import time
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import libvirt

from hotspare.errors import HotspareError, MachineNotFound
from hotspare.platforms.libvirt.connection import explained, find_domain, message_of, open_connection
from hotspare.platforms.libvirt.definition import NewDisk, restored_definition
from hotspare.platforms.libvirt.guest_agent import agent_is_connected, run_shell
from hotspare.platforms.libvirt.inventory import describe_machine
from hotspare.platforms.libvirt.kvm import kvm_problem
from hotspare.platforms.libvirt.mapping import map_names, refuse_missing_networks, refuse_taken_macs
from hotspare.platforms.libvirt.restored_state import RestoredState
from hotspare.platforms.libvirt.state import NVRAM, TPM_PREFIX
from hotspare.platforms.platform import Machine, StateFile
from hotspare.replication.failover.cards import placement_of
from hotspare.replication.model import FailoverPolicy, Protection

_POLL_SECONDS = 0.1
_CARD_SECONDS = 60.0
"""So long after its agent has answered may a guest still be loading the drivers of its network cards."""
_NO_CARD = 3
_BUSY_SECONDS = 30.0
"""So long may a guest not take a request to shut down: a point may be made with it frozen just then."""
_ADDRESS_SCRIPT = """
for card in /sys/class/net/*; do
  [ "$(cat "$card/address" 2>/dev/null)" = "$1" ] || continue
  name=${card##*/}
  ip address flush dev "$name" scope global
  ip address add "$2" dev "$name" && ip link set "$name" up || exit 1
  [ -z "$3" ] || ip route replace default via "$3" dev "$name" || exit 1
  exit 0
done
echo "no network card has the address $1"; exit 3
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


def describe(uri: str, machine_id: str) -> Machine:
    """Describe a machine as it is now. Raises ``MachineNotFound``, ``PlatformUnavailable``."""
    return describe_machine(find(uri, machine_id), uri)


def find_again(protection: Protection, *, defined: bool) -> libvirt.virDomain | None:
    """Find what an earlier attempt has defined, or even started; None where it is to be defined now.

    Its UEFI variables and its TPM may be newer than the replica's by then, and are left alone.
    """
    try:
        domain = find(protection.platform, protection.machine_id)
    except MachineNotFound:
        return None
    with explained(f"The machine {protection.machine} cannot be looked at"):
        return domain if defined or domain.isActive() else None


def define(
    uri: str,
    machine: Machine,
    name: str,
    disks: Mapping[str, Path],
    state: Sequence[StateFile],
    policy: FailoverPolicy,
    nvram: Path,
) -> tuple[libvirt.virDomain, list[str]]:
    """Define a machine that is the one described, with its UUID; give warnings, too.

    A definition with its UUID that is there already is replaced, and so are UEFI variables and TPM state that
    this host has from when it ran here before.

    Raises:
        UsageError: this host lacks a network that it is plugged into.
        TargetExists: another machine here has a MAC address that it was to get.
        HotspareError: libvirt refuses the definition.
    """
    connection = open_connection(uri)
    files = RestoredState(uri, machine, nvram, kept_uuid=machine.id, in_place=True)
    warnings = [problem for one in state if (problem := files.add(one)) is not None]
    warnings += _state_missing(machine, {one.name for one in state})
    definition = restored_definition(
        machine,
        name,
        {disk: NewDisk(path, "qcow2") for disk, path in disks.items()},
        kvm_works=lambda: kvm_problem() is None,
        placement=placement_of(policy),
        state=files.placed,
    )
    warnings += refuse_missing_networks(connection, ET.fromstring(definition))  # noqa: S314 - made just now
    _refuse_taken_macs(connection, machine, policy)
    with explained(f"libvirt refuses the definition of {name}", meaning="The machine was not started"):
        domain = connection.defineXML(definition)
    files.keep()
    return domain, warnings


def refuse_cards_not_for_here(uri: str, machine: Machine, policy: FailoverPolicy) -> list[str]:
    """See whether the network cards of a machine can be on this host; gives warnings.

    Raises:
        UsageError: this host lacks a network that it would be plugged into.
        TargetExists: another machine here has a MAC address that it is to get.
    """
    if not machine.native.lstrip().startswith("<domain"):
        return []
    root = ET.fromstring(machine.native)  # noqa: S314 - XML that libvirt gave us
    map_names(root, placement_of(policy))
    connection = open_connection(uri)
    warnings = refuse_missing_networks(connection, root)
    _refuse_taken_macs(connection, machine, policy)
    return warnings


def name_of_copy(machine: str) -> str:
    """Give the name of the copy that a rehearsal starts."""
    return f"{machine}-rehearsal"


def _refuse_taken_macs(connection: libvirt.virConnect, machine: Machine, policy: FailoverPolicy) -> None:
    """Look only at those that it gets: its own may well be on a machine that was made of it."""
    if policy.mac_map:
        hint = 'Choose another one where the machine runs: "hotspare replica policy --map-mac"'
        but_of = (machine.id, name_of_copy(machine.name))
        refuse_taken_macs(connection, set(policy.mac_map.values()), hint, but_of=but_of)


def _state_missing(machine: Machine, there: Collection[str]) -> Iterator[str]:
    """Say of what the machine has outside of its disks nothing was kept."""
    if not machine.native.lstrip().startswith("<domain"):
        return
    root = ET.fromstring(machine.native)  # noqa: S314 - XML that libvirt gave us
    system = root.find("os")
    uefi = system is not None and (system.get("firmware") == "efi" or system.find("nvram") is not None)
    if uefi and NVRAM not in there:
        yield "no UEFI variables came with the replica: the firmware takes what this host has, or new ones"
    emulated = root.find("devices/tpm/backend[@type='emulator']") is not None
    if emulated and not any(name.startswith(TPM_PREFIX) for name in there):
        yield "no TPM state came with the replica: the guest finds what this host has, or a new TPM"


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
        end = time.monotonic() + seconds
        _ask_to_shut_down(domain, min(end, time.monotonic() + _BUSY_SECONDS))
        while domain.isActive():
            if time.monotonic() > end:
                raise HotspareError(
                    f"The machine {domain.name()} did not shut down within {seconds:.0f} s",
                    meaning="It goes on where it is, or is still shutting down",
                    hint="Shut it down by hand and repeat, or give it longer with --timeout",
                )
            time.sleep(_POLL_SECONDS)


def _ask_to_shut_down(domain: libvirt.virDomain, end: float) -> None:
    """Ask until that is taken, at most until ``end`` of the monotonic clock; a frozen guest refuses."""
    while domain.isActive():
        flags = libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT if agent_is_connected(domain) else 0
        try:
            domain.shutdownFlags(flags)
        except libvirt.libvirtError:
            if time.monotonic() > end:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return


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
    """Give network cards inside a Linux guest other addresses, until it boots again; gives what failed.

    Args:
        domain: its agent answers.
        addresses: by MAC address: ``10.0.0.5/24``, or ``10.0.0.5/24 via 10.0.0.1`` with a default route.
    """
    end = time.monotonic() + _CARD_SECONDS
    problems = []
    for mac, wanted in addresses.items():
        address, _, gateway = (part.strip() for part in wanted.partition(" via "))
        problem = _change_address(domain, [mac.lower(), address, gateway], end)
        problems += [f"the address {wanted} was not set: {problem}"] if problem else []
    return problems


def _change_address(domain: libvirt.virDomain, arguments: Sequence[str], end: float) -> str:
    """Change one, waiting for its card until ``end`` of the monotonic clock; gives why that failed."""
    while True:
        try:
            ended = run_shell(domain, _ADDRESS_SCRIPT, arguments, seconds=20)
        except (libvirt.libvirtError, TimeoutError) as error:
            return str(error)
        if ended.status != _NO_CARD or time.monotonic() > end:
            return ended.output.strip() if ended.status else ""
        time.sleep(_POLL_SECONDS)
