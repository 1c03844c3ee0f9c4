"""Extended attributes of ext2/3/4, in the inode and in a block of their own."""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from hotspare.guest.files.nodes import damaged

_MAGIC = 0xEA020000
_ENTRY = struct.Struct("<BBHIII")
_PREFIXES = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
}
"""By the number in the entry. Others are not shown by Linux either: inline data, keys of encryption."""
_ACCESS_LISTS = {2, 3}
_SYSTEM = 7
_VALUE_MAX = 64 * 1024
"""Linux gives no longer one."""
_WITH_ID = {0x02, 0x08}
"""Tags of entries in an access control list that carry a user's or group's number."""
_NO_ID = 0xFFFFFFFF


class _Attribute(NamedTuple):
    kind: int
    name: bytes
    offset: int
    inode: int
    size: int


class Attributes:
    """The attributes of one inode.

    Args:
        kind: of the file system, for errors.
        extra: the end of the inode, after its fixed fields.
        block: the block of attributes, or nothing.
        value_of_inode: reads a value that has an inode of its own: its number and size.
    """

    def __init__(
        self, kind: str, extra: bytes, block: bytes, value_of_inode: Callable[[int, int], bytes]
    ) -> None:
        self._kind = kind
        self._value_of_inode = value_of_inode
        self._found: list[tuple[_Attribute, bytes]] = []
        if len(extra) >= 4 and struct.unpack_from("<I", extra)[0] == _MAGIC:
            body = extra[4:]
            self._found += [(attribute, body) for attribute in self._entries(body, 0)]
        if block:
            magic, _, blocks = struct.unpack_from("<III", block)
            if magic != _MAGIC or blocks != 1:
                raise damaged(kind, "a block of extended attributes is none")
            self._found += [(attribute, block) for attribute in self._entries(block, 32)]

    def all(self) -> dict[str, bytes]:
        """Give them as ``getxattr`` would."""
        return dict(self._shown())

    def inline_data(self) -> bytes:
        """Give what of a small file's content did not fit into the map of its inode."""
        for attribute, area in self._found:
            if attribute.kind == _SYSTEM and attribute.name == b"data":
                return self._value(attribute, area)
        return b""

    def _shown(self) -> Iterator[tuple[str, bytes]]:
        for attribute, area in self._found:
            prefix = _PREFIXES.get(attribute.kind)
            if prefix is None:
                continue
            value = self._value(attribute, area)
            if attribute.kind in _ACCESS_LISTS:
                yield prefix, access_list(self._kind, value)
            else:
                yield prefix + attribute.name.decode(errors="surrogateescape"), value

    def _entries(self, area: bytes, at: int) -> Iterator[_Attribute]:
        while at + 4 <= len(area) and area[at : at + 4] != bytes(4):
            if at + _ENTRY.size > len(area):
                raise damaged(self._kind, "an extended attribute goes beyond its place")
            length, index, offset, inode, size, _ = _ENTRY.unpack_from(area, at)
            name = area[at + _ENTRY.size : at + _ENTRY.size + length]
            if len(name) < length or size > _VALUE_MAX or (not inode and offset + size > len(area)):
                raise damaged(self._kind, "an extended attribute goes beyond its place")
            yield _Attribute(index, name, offset, inode, size)
            at += (_ENTRY.size + length + 3) & ~3

    def _value(self, attribute: _Attribute, area: bytes) -> bytes:
        if attribute.inode:
            return self._value_of_inode(attribute.inode, attribute.size)
        return area[attribute.offset : attribute.offset + attribute.size]


def access_list(kind: str, stored: bytes) -> bytes:
    """Turn an access control list as ext stores it into the form of ``getxattr``.

    Stored: version 1, then (tag, permissions) of two bytes each, with a number of four for named users and
    groups. Linux gives version 2, and a number with each entry: all ones where there is none.
    """
    if len(stored) < 4 or struct.unpack_from("<I", stored)[0] != 1:
        raise damaged(kind, "an access control list is of no known version")
    result = [struct.pack("<I", 2)]
    at = 4
    while at < len(stored):
        if at + 4 > len(stored):
            raise damaged(kind, "an access control list ends within an entry")
        tag, permissions = struct.unpack_from("<HH", stored, at)
        at += 4
        owner = _NO_ID
        if tag in _WITH_ID:
            if at + 4 > len(stored):
                raise damaged(kind, "an access control list ends within an entry")
            (owner,) = struct.unpack_from("<I", stored, at)
            at += 4
        result.append(struct.pack("<HHI", tag, permissions, owner))
    return b"".join(result)
