"""Clearing away what a killed run of ours left on a machine: a frozen guest, a job, a scratch folder."""

from pathlib import Path

import libvirt

from hotspare.errors import HotspareError
from hotspare.platforms.libvirt.quiesce import set_free
from hotspare.platforms.libvirt.scratch import (
    Leftover,
    ScratchOwner,
    is_run_folder,
    leftovers,
    living_owner,
)
from hotspare.platforms.libvirt.snapshot import end_job, job_socket


def sweep_machine(domain: libvirt.virDomain, scratch_folder: Path) -> None:
    """Clear away what dead runs left on this machine. Checkpoints are swept apart, by repository.

    Raises:
        HotspareError: a backup of another program, or another run of ours, is at work on the machine.
    """
    with leftovers(scratch_folder) as found:
        for leftover in found:
            if leftover.owner.domain == domain.UUIDString():
                _clear(domain, leftover)
            elif not leftover.owner.trial and not _exists(domain.connect(), leftover.owner):
                leftover.remove()
    socket = job_socket(domain)
    if socket is None:
        return
    folder = Path(socket).parent
    # The dead run may have used another scratch folder than we do.
    if socket and is_run_folder(folder) and folder.parent != scratch_folder:
        with leftovers(folder.parent) as found:
            if any(str(leftover.socket) == socket and _clear(domain, leftover) for leftover in found):
                return
    if owner := living_owner(folder):
        whose = f"hotspare, process {owner.pid}"
    elif socket and is_run_folder(folder):
        whose = "of a run of hotspare that is gone, and libvirt does not end it"
    else:
        whose = f"another program, with the socket {socket or 'unknown'}"
    raise HotspareError(
        f"A backup of {domain.name()} is running already ({whose})",
        meaning="Nothing was done, and that backup was left alone",
        hint="Wait for it to end. If it is a leftover, end it with: virsh domjobabort " + domain.name(),
    )


def _clear(domain: libvirt.virDomain, leftover: Leftover) -> bool:
    """Clear away one run's leavings; tell whether its job is ended, else its folder stays to know it by.

    It stays too when the guest cannot be set free: nothing else tells that it may be frozen.
    """
    free = not leftover.frozen or set_free(domain, leftover.owner.point_id)
    ended = end_job(domain, str(leftover.socket))
    if ended:
        leftover.remove_scratch_files()
        if free:
            leftover.remove()
    return ended


def _exists(connection: libvirt.virConnect, owner: ScratchOwner) -> bool:
    """Tell whether the machine may be there still: one of another libvirt (qemu:///session) may be."""
    if owner.uri != connection.getURI():
        return True
    try:
        connection.lookupByUUIDString(owner.domain)
    except libvirt.libvirtError as error:
        return bool(error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN)
    return True
