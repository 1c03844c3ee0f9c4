"""Letting QEMU pass through a folder that is closed to others, by an access control list.

Protocol: Linux's ``linux/posix_acl_xattr.h`` (an attribute of entries of tag, permission and id) and acl(5).
"""

import errno
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import libvirt

from hotspare.errors import PermissionRefused
from hotspare.platforms.libvirt.scratch import qemu_account

_ATTRIBUTE = "system.posix_acl_access"
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_OWNER, _USER, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
_NOBODY = 0xFFFFFFFF
_PASS = 0o1


class _Entry(NamedTuple):
    tag: int
    account: int
    allowed: int


def let_qemu_reach(connection: libvirt.virConnect, folder: Path, root: Path) -> None:
    """Let QEMU pass through a folder, and through all above it up to ``root``, if it is in there.

    Raises:
        PermissionRefused: as ``let_qemu_pass``.
    """
    for one in (folder, *(above for above in folder.parents if above.is_relative_to(root))):
        let_qemu_pass(connection, one)


def let_qemu_pass(connection: libvirt.virConnect, folder: Path) -> None:
    """Let the account that QEMU runs as pass through a folder, where nobody but its owner may.

    It may open what lies below by its name, as far as that is not closed as well, and list nothing.

    Raises:
        PermissionRefused: the file system has no such lists, or the folder is another's.
    """
    account = qemu_account(connection).uid
    try:
        status = folder.stat()
        if account in {0, status.st_uid} or status.st_mode & stat.S_IXOTH:
            return
        before = _entries(folder, status.st_mode)
        after = _with_passage(before, account)
        if after != before:
            os.setxattr(folder, _ATTRIBUTE, _VERSION + b"".join(_packed(one) for one in after))
    except OSError as error:
        raise PermissionRefused(
            f"QEMU (user {account}) cannot be let into {folder}: {error.strerror}",
            meaning="Machines whose disks lie in there do not start",
            hint=f"Let it pass: chmod o+x {folder}",
        ) from error


def _entries(folder: Path, mode: int) -> list[_Entry]:
    """Give those of a folder; one without a list of its own has three, its mode."""
    packed = b""
    with suppress(OSError):
        packed = os.getxattr(folder, _ATTRIBUTE)
    if not packed:
        return [
            _Entry(_OWNER, _NOBODY, mode >> 6 & 7),
            _Entry(_GROUP, _NOBODY, mode >> 3 & 7),
            _Entry(_OTHERS, _NOBODY, mode & 7),
        ]
    if not packed.startswith(_VERSION):
        raise OSError(errno.ENOTSUP, "its access control list is of an unknown version")
    return [_Entry(tag, account, allowed) for tag, allowed, account in _ENTRY.iter_unpack(packed[4:])]


def _with_passage(entries: list[_Entry], account: int) -> list[_Entry]:
    """Add one for an account, and have the mask, which bounds what users and groups may, let it through."""
    mine = next((one for one in entries if one[:2] == (_USER, account)), _Entry(_USER, account, 0))
    group = next(one.allowed for one in entries if one.tag == _GROUP)
    mask = next((one for one in entries if one.tag == _MASK), _Entry(_MASK, _NOBODY, group))
    others = [one for one in entries if one.tag != _MASK and one[:2] != (_USER, account)]
    changed = [one._replace(allowed=one.allowed | _PASS) for one in (mine, mask)]
    return sorted([*others, *changed])


def _packed(entry: _Entry) -> bytes:
    return _ENTRY.pack(entry.tag, entry.allowed, entry.account)
