"""POSIX access control lists, from the kernel's form to the text that tar keeps.

The kernel's form (linux/posix_acl_xattr.h): version 2 as 32 bits, then for each entry tag, permissions and
id, little-endian. The text is that of POSIX.1e draft 17, section 23.3, with numbers for users and groups.
"""

import struct

_VERSION = 2
_ENTRY = struct.Struct("<HHI")
_TAGS = {0x01: "user:", 0x02: "user:{}", 0x04: "group:", 0x08: "group:{}", 0x10: "mask:", 0x20: "other:"}
_NAMES = {"system.posix_acl_access": "access", "system.posix_acl_default": "default"}


def acl_text(name: str, value: bytes) -> tuple[str, str] | None:
    """Give which list an attribute is, ``access`` or ``default``, and its text; None for another."""
    if name not in _NAMES or len(value) % _ENTRY.size != 4 or int.from_bytes(value[:4], "little") != _VERSION:
        return None
    entries = []
    for tag, permissions, identity in _ENTRY.iter_unpack(value[4:]):
        if tag not in _TAGS:
            return None
        letters = "".join(
            letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
        )
        entries.append(f"{_TAGS[tag].format(identity)}:{letters}")
    return _NAMES[name], ",".join(entries)
