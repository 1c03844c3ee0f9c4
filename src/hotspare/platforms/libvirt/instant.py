"""Domains that run from a repository: upon overlays over disks that we serve, until these are moved.

The definition names the overlays only, as plain qcow2 disks; what they are upon is written in themselves, and
libvirt finds it there. So when QEMU has filled an overlay, the definition is right as it is. While a disk
depends on us, the guest is paused when it cannot be read or written, and notices nothing.
"""

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import libvirt
import libvirt_qemu
import msgspec

from hotspare.block.overlay import create_served_overlay, fill_overlay, has_base
from hotspare.errors import PermissionRefused, UsageError
from hotspare.platforms.instant import Condition, DiskMove
from hotspare.platforms.libvirt.connection import explained
from hotspare.platforms.libvirt.definition import INSTANT_NAMESPACE, drop_instant
from hotspare.platforms.libvirt.guest_agent import agent_is_connected
from hotspare.platforms.libvirt.inventory import describe_machine, power_state
from hotspare.platforms.libvirt.places import default_folder
from hotspare.platforms.libvirt.restored_state import RestoredState
from hotspare.platforms.libvirt.scratch import Account, make_scratch_folder, unreachable_part
from hotspare.platforms.libvirt.target import (
    PlannedDomain,
    define_domain,
    definition_of,
    make_folder,
    refresh_pools,
)
from hotspare.platforms.libvirt.undo_record import stored_definition
from hotspare.platforms.platform import Machine, PowerState, StateFile

_POLICIES = ("error_policy", "rerror_policy")
_INSTANT = f"{{{INSTANT_NAMESPACE}}}instant"
_DISK = f"{{{INSTANT_NAMESPACE}}}disk"
_PING = json.dumps({"execute": "guest-ping"})
_PING_SECONDS = 2
_CRASHES = (libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, libvirt.VIR_DOMAIN_SHUTOFF_FAILED)
_ENDS = (libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED)
_REMOVE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    | getattr(libvirt, "VIR_DOMAIN_UNDEFINE_TPM", 0)
)


def with_overlays(machine: Machine) -> Machine:
    """Give the same machine with disks of the one format that can be filled while it runs."""
    disks = tuple(msgspec.structs.replace(disk, format="qcow2") for disk in machine.disks)
    return msgspec.structs.replace(machine, disks=disks)


def serving_folder(scratch_folder: Path, name: str) -> Path:
    """Say where the socket for a machine's disks lies."""
    # Hashed, as the path of a socket must be short.
    return scratch_folder / f"instant-{blake2b(name.encode(), digest_size=8).hexdigest()}"


def make_serving_folder(folder: Path, account: Account) -> None:
    """Make a folder that only QEMU and we may enter. Raises ``PermissionRefused``, ``NoSpace``."""
    try:
        make_scratch_folder(folder.parent)
    except OSError as error:
        raise PermissionRefused(
            f"The scratch folder {folder.parent} cannot be made: {error.strerror}",
            meaning="Nothing was done",
            hint="Run hotspare as root, or set HOTSPARE_SCRATCH_FOLDER to a folder of this user",
        ) from error
    if (obstacle := unreachable_part(folder.parent, account)) is not None:
        raise PermissionRefused(
            f"QEMU, which runs as user {account.uid}, may not enter {obstacle}",
            meaning="Nothing was done",
            hint=f"Allow it with: chmod o+x {obstacle}, or set HOTSPARE_SCRATCH_FOLDER to another folder",
        )
    make_folder(folder)
    folder.chmod(0o700)
    with suppress(PermissionError):  # a user's own libvirt runs QEMU as that user
        shutil.chown(folder, account.uid, account.gid)


class InstantDomain:
    """An ``InstantTarget``. Nothing is known to libvirt before ``define``.

    Raises:
        TargetExists: one of the files is taken.
        NoSpace, PermissionRefused: the files cannot be made.
    """

    def __init__(
        self, connection: libvirt.virConnect, uri: str, planned: PlannedDomain, socket: Path
    ) -> None:
        self._connection = connection
        self._uri = uri
        self._planned = planned
        disks = planned.plan.disks
        folder = Path(disks[0].path).parent if disks else planned.request.folder or default_folder(uri)
        make_folder(folder)
        nvram = folder / f"{planned.plan.name}-nvram"
        self._state = RestoredState(uri, planned.machine, nvram, kept_uuid=planned.plan.id or None)
        self._made: list[Path] = []
        try:
            for disk in disks:
                make_folder(Path(disk.path).parent)
                create_served_overlay(Path(disk.path), socket, disk.name, disk.size)
                self._made.append(Path(disk.path))
        except BaseException:
            self.discard()
            raise

    def add_state(self, state: StateFile) -> str | None:
        """Put UEFI variables beside the disks, and the TPM's files where libvirt looks for them."""
        return self._state.add(state)

    def define(self) -> Machine:
        """Define the domain, powered off. Raises as ``define_domain``."""
        root = ET.fromstring(definition_of(self._planned, self._state.placed))  # noqa: S314 - made just now
        _note_instant(root, {disk.name for disk in self._planned.plan.disks})
        definition = ET.tostring(root, encoding="unicode")
        domain = define_domain(self._connection, self._uri, self._planned.plan, definition, self._keep)
        self._keep()
        refresh_pools(self._connection, self._planned.plan)
        return describe_machine(domain, self._uri)

    def _keep(self) -> None:
        self._made.clear()
        self._state.keep()

    def discard(self) -> None:
        """Remove the files that were made."""
        while self._made:
            self._made.pop().unlink(missing_ok=True)
        self._state.discard()


def _note_instant(root: ET.Element, names: set[str]) -> None:
    """Let the guest be paused when a disk fails, and note what it was told in such a case before."""
    metadata = root.find("metadata")
    if metadata is None:
        metadata = ET.SubElement(root, "metadata")
    note = ET.SubElement(metadata, _INSTANT)
    for name, disk in _disks_of(root).items():
        driver = disk.find("driver")
        if name in names and driver is not None:
            former = {key: driver.attrib[key] for key in _POLICIES if key in driver.attrib}
            ET.SubElement(note, _DISK, former, name=name)
            driver.attrib.update(dict.fromkeys(_POLICIES, "stop"))


def _disks_of(root: ET.Element) -> dict[str, ET.Element]:
    return {
        target.get("dev", ""): disk
        for disk in root.iterfind("devices/disk")
        if (target := disk.find("target")) is not None
    }


def condition_of(domain: libvirt.virDomain) -> Condition:
    """Look at a domain."""
    with explained(f"The machine {domain.name()} cannot be looked at"):
        state, reason = domain.state()
        power = power_state(domain)
        # The reason is lost when libvirtd is restarted.
        waits = power is PowerState.PAUSED and (
            reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR or bool(domain.diskErrors())
        )
    off = state == libvirt.VIR_DOMAIN_SHUTOFF
    return Condition(
        power, waits_for_disk=waits, crashed=off and reason in _CRASHES, shut_down=off and reason in _ENDS
    )


def agent_answers(domain: libvirt.virDomain) -> bool:
    """Tell whether a guest's agent answers; True for a domain that has no channel for one."""
    with explained(f"The machine {domain.name()} cannot be looked at"):
        channels = ET.fromstring(domain.XMLDesc(0)).iterfind("devices/channel/target")  # noqa: S314
        if not any(one.get("name") == "org.qemu.guest_agent.0" for one in channels):
            return True
        if not domain.isActive() or not agent_is_connected(domain):
            return False
    with suppress(libvirt.libvirtError):
        libvirt_qemu.qemuAgentCommand(domain, _PING, _PING_SECONDS, 0)
        return True
    return False


def wake(domain: libvirt.virDomain) -> bool:
    """Let a domain go on that is paused; QEMU repeats what has failed."""
    with suppress(libvirt.libvirtError):
        domain.resume()
    with explained(f"The machine {domain.name()} cannot be looked at"):
        return power_state(domain) is PowerState.RUNNING


def overlays_of(domain: libvirt.virDomain) -> Mapping[str, Path]:
    """Give the disks that were made upon served ones. Raises ``UsageError`` for a domain that has none."""
    with explained(f"The machine {domain.name()} cannot be looked at"):
        root = ET.fromstring(stored_definition(domain))  # noqa: S314 - libvirt's own XML
    note = root.find(f"metadata/{_INSTANT}")
    if note is None:
        raise UsageError(
            f"The machine {domain.name()} does not run from a repository",
            meaning="Nothing was done",
            hint="See 'hotspare recover list'",
        )
    names = {one.get("name") for one in note.iterfind(_DISK)}
    sources = {name: disk.find("source") for name, disk in _disks_of(root).items() if name in names}
    return {name: Path(source.get("file", "")) for name, source in sources.items() if source is not None}


def move_disk(domain: libvirt.virDomain, disk: str, limit: int) -> DiskMove:
    """Have QEMU fill an overlay; see ``InstantPlatform.move``.

    While a stream ends, QEMU must not be asked about its block nodes, as ``blockInfo`` and ``diskErrors`` do:
    QEMU 7.2 then crashes now and then (in ``bdrv_refresh_filename``). Asking about the job is safe.
    """
    path = overlays_of(domain)[disk]
    with explained(f"Disk {disk} of {domain.name()} cannot be moved now", meaning="It runs as before"):
        if not domain.isActive():
            if has_base(path):
                fill_overlay(path)
            return DiskMove(done=True)
        job = domain.blockJobInfo(disk)
        begun = not job and has_base(path)
        if begun:
            domain.blockPull(disk, limit, libvirt.VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES)
            job = domain.blockJobInfo(disk)
    if job:
        return DiskMove(done=False, bytes_moved=int(job["cur"]), begun=begun)
    return DiskMove(done=not has_base(path), begun=begun)


def settle(domain: libvirt.virDomain) -> None:
    """Make the definition that of any other domain."""
    name = domain.name()
    with explained(f"libvirt refuses the definition of {name}", meaning="It runs as before, wholly moved"):
        root = ET.fromstring(stored_definition(domain))  # noqa: S314 - libvirt's own XML
        disks = _disks_of(root)
        for one in root.iterfind(f"metadata/{_INSTANT}/{_DISK}"):
            driver = disks[one.get("name", "")].find("driver")
            if driver is None:
                continue
            for key in _POLICIES:
                driver.attrib.pop(key, None)
                if former := one.get(key):
                    driver.set(key, former)
        drop_instant(root)
        for empty in [one for one in root.findall("metadata") if not len(one)]:
            root.remove(empty)
        domain.connect().defineXML(ET.tostring(root, encoding="unicode"))
    if domain.isActive():
        with suppress(libvirt.libvirtError):  # only until it is next started
            element, live = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_LIVE
            domain.setMetadata(element, None, None, INSTANT_NAMESPACE, live)


def abandon(domain: libvirt.virDomain) -> None:
    """Remove a domain with its overlays and its state. Raises ``UsageError`` when it is not one of ours."""
    name = domain.name()
    files = overlays_of(domain).values()
    with explained(f"The machine {name} cannot be removed"):
        try:
            if domain.isActive():
                domain.destroy()
        except libvirt.libvirtError:
            if domain.isActive():  # else it has just ended by itself
                raise
        domain.undefineFlags(_REMOVE)
    for path in files:
        path.unlink(missing_ok=True)
