"""A domain being restored: its disks as files of this host, and its definition at the end."""

import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import libvirt

from hotspare.block.file import RawFile
from hotspare.block.nbd.client import NbdClient
from hotspare.block.new_images import NewImages
from hotspare.errors import (
    HotspareError,
    MachineNotFound,
    NoSpace,
    PermissionRefused,
    PlatformUnavailable,
    TargetExists,
    UsageError,
)
from hotspare.platforms.libvirt.connection import (
    explained,
    find_domain,
    is_gone,
    message_of,
    open_connection,
)
from hotspare.platforms.libvirt.definition import NewDisk, NewState, restored_definition
from hotspare.platforms.libvirt.inventory import describe_machine
from hotspare.platforms.libvirt.kvm import kvm_problem
from hotspare.platforms.libvirt.mapping import (
    planned_cards,
    refuse_missing_networks,
    refuse_taken_identity,
    refuse_unknown_hardware,
)
from hotspare.platforms.libvirt.places import default_folder, plan_disks, refresh_pool
from hotspare.platforms.libvirt.restored_state import RestoredState
from hotspare.platforms.placement import TargetPlan
from hotspare.platforms.platform import Machine, StateFile, TargetRequest


class PlannedDomain(NamedTuple):
    """A domain to be made."""

    plan: TargetPlan
    machine: Machine
    request: TargetRequest


def plan_domain(
    connection: libvirt.virConnect, uri: str, machine: Machine, request: TargetRequest
) -> PlannedDomain:
    """Look at everything that a new domain like ``machine`` needs, before anything is written.

    Raises:
        TargetExists: the name, a file, or an identity that is to be kept is taken.
        UsageError: the name cannot be one, or this host lacks a pool, a network or a type of machine.
    """
    _check_name(connection, request.name)
    placement = request.placement
    disks = plan_disks(connection, machine, request, uri)
    draft = TargetPlan(name=request.name, id="", disks=disks)
    definition = definition_of(PlannedDomain(draft, machine, request), NewState())
    root = ET.fromstring(definition)  # noqa: S314 - made just now
    warnings = refuse_missing_networks(connection, root)
    warnings += refuse_unknown_hardware(connection, root)
    refuse_taken_identity(connection, root, placement)
    if machine.native.lstrip().startswith("<domain type='kvm'") and root.get("type") != "kvm":
        warnings.append(
            f"KVM does not work here ({kvm_problem()}): the machine will be emulated, which is slow"
        )
    plan = TargetPlan(
        name=request.name,
        id=root.findtext("uuid", ""),
        disks=disks,
        cards=planned_cards(root, keep_macs=placement.keep_macs),
        warnings=tuple(warnings),
    )
    return PlannedDomain(plan, machine, request)


class LibvirtTarget:
    """A ``Target``. Nothing is known to libvirt before ``finalize``.

    Raises:
        TargetExists: the name or one of the files is taken.
        NoSpace, PermissionRefused: the files cannot be made.
    """

    def __init__(self, connection: libvirt.virConnect, uri: str, planned: PlannedDomain) -> None:
        self._connection = connection
        self._uri = uri
        self._planned = planned
        self._paths = {disk.name: Path(disk.path) for disk in planned.plan.disks}
        folders = [path.parent for path in self._paths.values()]
        folder = folders[0] if folders else planned.request.folder or default_folder(uri)
        make_folder(folder)
        self._state = RestoredState(
            uri,
            planned.machine,
            folder / f"{planned.plan.name}-nvram",
            kept_uuid=planned.plan.id or None,
        )
        self._images = NewImages()
        try:
            for disk in planned.plan.disks:
                make_folder(Path(disk.path).parent)
                self._images.create(Path(disk.path), disk.format, disk.size)
        except BaseException:
            self.discard()
            raise

    def writer(self, disk: str) -> RawFile | NbdClient:
        """Open one of the new disks."""
        return self._images.writer(self._paths[disk])

    def add_state(self, state: StateFile) -> str | None:
        """Put UEFI variables beside the disks, and the TPM's files where libvirt looks for them."""
        return self._state.add(state)

    def is_blank(self, disk: str) -> bool:
        """Whether nothing was written to it yet."""
        return self._images.is_blank(self._paths[disk])

    def finalize(self) -> Machine:
        """Put the images to their places and define the domain, powered off.

        Raises:
            SourceLost: an image was not written to the end.
            TargetExists: the name or a file was taken meanwhile.
            PlatformUnavailable: libvirt was lost, and may have defined it; then all is kept.
            HotspareError: libvirt refuses the definition.
        """
        self._images.publish()
        definition = definition_of(self._planned, self._state.placed)
        domain = define_domain(self._connection, self._uri, self._planned.plan, definition, self._keep)
        self._keep()
        refresh_pools(self._connection, self._planned.plan)
        return describe_machine(domain, self._uri)

    def _keep(self) -> None:
        """Let all stay that was made: the machine is upon it, or may be."""
        self._images.keep()
        self._state.keep()

    def discard(self, *, keep_partial: bool = False) -> None:
        """Remove the files that were made, or keep them hidden."""
        self._images.discard(keep_partial=keep_partial)
        self._state.discard()


def define_domain(
    connection: libvirt.virConnect,
    uri: str,
    plan: TargetPlan,
    definition: str,
    keep: Callable[[], None],
) -> libvirt.virDomain:
    """Define a planned domain, and find out whether that was done where the answer was lost.

    Args:
        connection: to libvirt.
        uri: of it.
        plan: of the domain.
        definition: of the domain.
        keep: called when nobody knows whether it was defined, so that its disks must stay.

    Raises:
        TargetExists: the name was taken meanwhile.
        PlatformUnavailable: libvirt was lost, and may have defined it; then all is kept.
        HotspareError: libvirt refuses the definition.
    """
    _check_name(connection, plan.name)  # defining would overwrite a domain made meanwhile
    root = ET.fromstring(definition)  # noqa: S314 - made just now
    if (identity := root.findtext("uuid")) is None:
        identity = ET.SubElement(root, "uuid").text = str(uuid.uuid4())
    try:
        return connection.defineXML(ET.tostring(root, encoding="unicode"))
    except libvirt.libvirtError as error:
        try:
            # The answer may be all that was lost.
            asked = open_connection(uri) if is_gone(connection) else connection
            found = find_domain(asked, identity, uri)
            if found.name() == plan.name:
                return found
        except MachineNotFound:
            pass
        except (HotspareError, libvirt.libvirtError):
            keep()
            raise _not_known(plan, error) from error
        with explained(
            f"libvirt refuses the definition of {plan.name}",
            meaning="The machine was not made; the restore point is not touched",
            hint="Restore its disks to files with --disk, and define the machine by hand",
        ):
            raise


def _not_known(plan: TargetPlan, error: libvirt.libvirtError) -> PlatformUnavailable:
    name, disks = plan.name, ", ".join(disk.path for disk in plan.disks)
    return PlatformUnavailable(
        f"libvirt was lost while it defined {name}: {message_of(error)}",
        meaning=f"The machine may have been made, so its disks are kept: {disks}",
        hint=f"When libvirt is back: if 'virsh list --all' does not show {name}, remove them and repeat",
    )


def refresh_pools(connection: libvirt.virConnect, plan: TargetPlan) -> None:
    """Have libvirt see the new disks in its pools, if it can: the machine works without that."""
    for pool in {disk.pool for disk in plan.disks if disk.pool}:
        with suppress(HotspareError):
            refresh_pool(connection, pool)


def definition_of(planned: PlannedDomain, state: NewState) -> str:
    """Give the definition (XML) of a planned domain, with the state that was put in its place."""
    return restored_definition(
        planned.machine,
        planned.plan.name,
        {disk.name: NewDisk(Path(disk.path), disk.format) for disk in planned.plan.disks},
        kvm_works=lambda: kvm_problem() is None,
        placement=planned.request.placement,
        state=state,
    )


def _check_name(connection: libvirt.virConnect, name: str) -> None:
    if not name or "/" in name or name in {".", ".."}:
        raise UsageError(f"{name!r} cannot be the name of a machine", meaning="Nothing was done")
    with explained("The machines cannot be listed"):
        taken = any(domain.name() == name for domain in connection.listAllDomains())
    if taken:
        raise TargetExists(
            f"There is a machine {name!r} already",
            meaning="Nothing was written, and that machine was left alone",
            hint="Choose another name with --to, or restore over it with --in-place",
        )


def make_folder(folder: Path) -> None:
    """Make a folder for disks. Raises ``PermissionRefused``, ``NoSpace``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except PermissionError as error:
        raise PermissionRefused(
            f"The folder {folder} cannot be made: {error.strerror}",
            meaning="Nothing was written",
            hint="Run hotspare as root, or choose another folder",
        ) from error
    except OSError as error:
        raise NoSpace(
            f"The folder {folder} cannot be made: {error.strerror}", meaning="Nothing was written"
        ) from error
