"""The folder where QEMU and we meet: sockets, and the certificates by which QEMU is known to the standby."""

import os
import shutil
from pathlib import Path

import libvirt

from hotspare.platforms.libvirt.scratch import qemu_account
from hotspare.replication.link.tls import Identity

_PARENT = Path("/var/lib/libvirt/hotspare-replication")
"""Beside libvirt's own folders: QEMU may enter there, and must not enter our state folder."""


def qemu_folder(connection: libvirt.virConnect, protection: str, identity: Identity, standby: str) -> Path:
    """Make the folder of one protection, and write the certificates to it; root and QEMU may look inside.

    Raises:
        OSError: it cannot be made.
    """
    folder = _PARENT / protection
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _PARENT.chmod(0o711)
    identity.write_qemu_credentials(folder / "tls", trusted=[standby], server=False)
    account = qemu_account(connection)
    for path in (folder, folder / "tls", *(folder / "tls").iterdir()):
        os.chown(path, account.uid, account.gid)
    return folder


def remove_qemu_folder(protection: str) -> None:
    """Remove the folder of one protection; nothing happens when it is gone."""
    shutil.rmtree(_PARENT / protection, ignore_errors=True)
