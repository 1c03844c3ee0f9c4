"""A guest's ``/etc/fstab``: which of its volumes are mounted where.

The format is that of fstab(5).
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hotspare.guest.volumes.volume import Volume

SIZE_MAX = 1024 * 1024
"""Bytes of the file that are looked at."""
_LINES_MAX = 1000
_DISKS = re.compile(r"(?:sd|hd|vd|xvd)([a-z]+\d*)")
"""Names of disks: a guest may know them by another driver's prefix than its platform does."""


class FstabLine(NamedTuple):
    """A file system that is mounted when the guest starts."""

    source: str
    """``UUID=…``, ``/dev/vda1``…"""
    point: str
    """Absolute, without a slash at its end; ``/`` alone for the root."""
    kind: str
    options: tuple[str, ...]

    @property
    def subvolume(self) -> str:
        """Give what the option ``subvol`` says, of Btrfs; empty without."""
        found = [option.partition("=")[2] for option in self.options if option.startswith("subvol=")]
        return found[-1].strip("/") if found else ""


def parse_fstab(text: str) -> Iterator[FstabLine]:
    """Yield the lines that mount a volume of the machine; without swap, networks and the kernel's own."""
    for line in text.splitlines()[:_LINES_MAX]:
        fields = [_unescaped(field) for field in line.split()]
        if len(fields) < 2 or fields[0].startswith("#") or not fields[1].startswith("/"):
            continue
        source, point = fields[0].replace('"', ""), "/" + "/".join(filter(None, fields[1].split("/")))
        kind = fields[2] if len(fields) > 2 else "auto"
        options = tuple(fields[3].split(",")) if len(fields) > 3 else ()
        is_volume = source.startswith("/dev/") or re.match(r"(PART)?(UUID|LABEL)=", source)
        if is_volume and kind != "swap" and not {"noauto", "bind", "rbind"} & set(options):
            yield FstabLine(source, point, kind, options)


def volume_of(source: str, volumes: Sequence[Volume]) -> Volume | None:
    """Find the volume that a line's first field means; None where there is none, or nothing to tell it by."""
    name, _, value = source.partition("=")
    if value:
        return _by_tag(name, value, volumes)
    path = source.removeprefix("/dev/")
    for folder, tag in (("by-uuid", "UUID"), ("by-label", "LABEL"), ("by-partuuid", "PARTUUID")):
        if path.startswith(f"disk/{folder}/"):
            return _by_tag(tag, path.rpartition("/")[2], volumes)
    if path.startswith("mapper/"):
        path = mapped_name(path.removeprefix("mapper/"))
    by_name = {volume.name: volume for volume in volumes}
    if path in by_name:
        return by_name[path]
    disk = _DISKS.fullmatch(path)
    if disk is None:
        return None
    return next((one for one in volumes if (_DISKS.sub(r"\1", one.name, count=1) == disk[1])), None)


def mapped_name(name: str) -> str:
    """Turn the device mapper's name of a logical volume into ours: ``vg--a-root`` into ``vg-a/root``."""
    halves = re.sub(r"(?<!-)((?:--)*)-(?!-)", r"\1/", name, count=1)
    return halves.replace("--", "-")


def _by_tag(tag: str, value: str, volumes: Sequence[Volume]) -> Volume | None:
    value = re.sub(r"\\x([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), value)
    for volume in volumes:
        known = {
            "UUID": volume.uuid.lower(),
            "PARTUUID": volume.partition_uuid.lower(),
            "LABEL": volume.label,
        }.get(tag, "")
        if known and known == (value if tag == "LABEL" else value.lower()):
            return volume
    return None


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8) & 0xFF), field)
