"""What ``hotspare doctor`` says about a host with libvirt."""

import os
import shutil
from pathlib import Path

import libvirt

from hotspare.platforms.libvirt.connection import message_of
from hotspare.platforms.libvirt.kvm import look_at_kvm
from hotspare.platforms.libvirt.scratch import (
    Account,
    free_space,
    make_scratch_folder,
    qemu_account,
    unreachable_part,
)
from hotspare.platforms.platform import Finding
from hotspare.units import format_bytes

_MINIMUM_LIBVIRT = 7_006_000
_MINIMUM_QEMU = 6_001_000
_PROGRAMS = {
    "qemu-img": "apt install qemu-utils",
    "qemu-nbd": "apt install qemu-utils",
    "virsh": "apt install libvirt-clients (it thaws a guest if a backup cannot; without it none is frozen)",
}


def probe_host(connection: libvirt.virConnect, uri: str, scratch_folder: Path, reserve: int) -> list[Finding]:
    """Look at everything that a backup and a restore need here; never raises for what is missing."""
    try:
        versions = [
            _version("libvirt", connection.getLibVersion(), _MINIMUM_LIBVIRT),
            _version("QEMU", connection.getVersion(), _MINIMUM_QEMU),
        ]
        account = qemu_account(connection)
    except libvirt.libvirtError as error:
        return [Finding("libvirt", False, f"{uri}: {message_of(error)}", "systemctl restart libvirtd")]
    return [
        Finding("connection", True, uri),
        *versions,
        *(_program(name, hint) for name, hint in _PROGRAMS.items()),
        _kvm(),
        Finding("QEMU's user", True, f"{account.uid}:{account.gid}"),
        _scratch(scratch_folder, account, reserve),
    ]


def _version(subject: str, number: int, minimum: int) -> Finding:
    if number >= minimum:
        return Finding(subject, True, _dotted(number))
    hint = f"Increments need {subject} {_dotted(minimum)} or later; upgrade it"
    return Finding(subject, False, _dotted(number), hint)


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _program(name: str, hint: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, True, path) if path else Finding(name, False, "not installed", hint)


def _kvm() -> Finding:
    problem = look_at_kvm()
    if problem is None:
        return Finding("KVM", True, "works")
    hint = "Machines are restored with software emulation, which works but is slow"
    return Finding("KVM", False, problem, hint, needed=False)


def _scratch(folder: Path, account: Account, reserve: int) -> Finding:
    subject = "scratch folder"
    try:
        make_scratch_folder(folder)
        writable = os.access(folder, os.W_OK)
        obstacle = unreachable_part(folder, account)
        free = free_space(folder)
    except OSError as error:
        return Finding(
            subject, False, f"{folder}: {error.strerror}", "Run as root, or set HOTSPARE_SCRATCH_FOLDER"
        )
    if not writable:
        return Finding(subject, False, f"{folder} is not writable", "Run as root, or choose another")
    if obstacle is not None:
        return Finding(subject, False, f"QEMU may not enter {obstacle}", f"chmod o+x {obstacle}")
    if free < reserve:
        hint = "Free space, or set HOTSPARE_SCRATCH_FOLDER to a larger local file system"
        return Finding(subject, False, f"{folder}: only {format_bytes(free)} free", hint)
    return Finding(subject, True, f"{folder}: {format_bytes(free)} free")
