"""What is needed to bring back a machine that was restored over: a file beside its disks.

The domain's definition names the file in our element of its metadata. So libvirt's one atomic step of
defining the restored domain also makes the undo known, and defining the former one again takes it away.
"""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import libvirt
import msgspec

from hotspare.block.file import failure_of, make_name_durable
from hotspare.errors import HotspareError
from hotspare.platforms.libvirt.definition import UNDO_NAMESPACE

_SUFFIX = ".hotspare-restored"


class OverlaidDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk that was restored as an overlay over what it was."""

    name: str
    base: str
    """Path of what it was, untouched until the restore is confirmed."""
    format: str
    """Of the base."""
    overlay: str
    modified_ns: int
    """When the overlay was last written by the restore: later, the machine was started."""


class UndoRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How to bring the former machine back."""

    v: int = 1
    definition: str
    """Of the former domain, with its secrets."""
    disks: tuple[OverlaidDisk, ...]
    new_files: tuple[str, ...] = ()
    """Disks that were made anew, as there was nothing of their size to lay them over."""
    new_modified_ns: tuple[int, ...] = ()
    """When each of these was last written by the restore; fewer in records of earlier versions."""
    confirming: bool = False
    """The bases are being written: from then on there is no way back."""

    def write(self, path: Path) -> None:
        """Make the record durable at ``path``. Raises ``NoSpace``, ``PermissionRefused``."""
        beside = _unfinished(path)
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(self))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            make_name_durable(path)
        except OSError as error:
            raise failure_of(path, "write", error) from error

    @classmethod
    def read(cls, path: Path) -> "UndoRecord":
        """Read a record. Raises ``HotspareError`` when it is gone or cannot be read."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise HotspareError(
                f"The record {path} of how to undo the restore cannot be read: {error}",
                meaning="The machine stays as it was restored; its disks are overlays over its former ones",
                hint="Merge them by hand, with virsh blockcommit MACHINE DISK --active --pivot",
            ) from error


def modified_ns(path: Path) -> int | None:
    """Tell when a file was last written; None when it is gone. Raises as ``failure_of`` gives."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failure_of(path, "look at", error) from error


def remove_record(path: Path) -> None:
    """Remove a record, and one that was not written to its end."""
    path.unlink(missing_ok=True)
    _unfinished(path).unlink(missing_ok=True)


def has_record(path: Path) -> bool:
    """Tell whether ``remove_record`` has something to remove."""
    return path.exists() or _unfinished(path).exists()


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def overlay_path(base: Path, folder: Path) -> Path:
    """Say where the overlay of a disk is: beside it, or, of a device, in ``folder``."""
    return (folder if base.is_block_device() else base.parent) / f"{base.name}{_SUFFIX}"


def record_path(folder: Path, uuid: str) -> Path:
    """Say where the record of a machine is."""
    return folder / f".{uuid}.hotspare-undo"


def note_undo(root: ET.Element, record: Path) -> None:
    """Name the record in a domain's definition."""
    metadata = root.find("metadata")
    if metadata is None:
        metadata = ET.SubElement(root, "metadata")
    ET.SubElement(metadata, f"{{{UNDO_NAMESPACE}}}undo", record=str(record))


def noted_undo(root: ET.Element) -> Path | None:
    """Give the record that a domain's definition names; None when nothing can be undone."""
    element = root.find(f"metadata/{{{UNDO_NAMESPACE}}}undo")
    return None if element is None else Path(element.get("record", ""))


def pending_warnings(native: str) -> list[str]:
    """Remind of a restore in place that is neither confirmed nor undone, if there is one."""
    if noted_undo(ET.fromstring(native)) is None:  # noqa: S314 - libvirt's own XML
        return []
    return [
        "the machine was restored in place, and what it was before is still kept: make it final with"
        " 'hotspare restore confirm'"
    ]


def stored_definition(domain: libvirt.virDomain) -> str:
    """Give a domain's persistent definition, with its secrets."""
    definition: str = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    return definition
