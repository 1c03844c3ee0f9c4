"""Dirty bitmaps where libvirt's checkpoints do not reach: in images at rest, and without a checkpoint."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu

from hotspare.block.qemu import run_tool
from hotspare.errors import HotspareError


@dataclass(frozen=True, slots=True)
class ImageState:
    """What a disk's image says about itself, see QEMU's docs/interop/qcow2.txt."""

    trackable: bool
    """The image can hold bitmaps: it is qcow2 of version 3."""
    names: frozenset[str] = frozenset()
    """Its bitmaps."""
    recording: frozenset[str] = frozenset()
    """Those that note all writes and were saved when the image was last closed."""
    chain: str | None = ""
    """What the images are, that the disk shows where its own image holds nothing; empty without any. No
    bitmap notes what becomes of them. None when they cannot be looked at."""


def image_state(path: Path, image_format: str) -> ImageState:
    """Look into an image, also while a machine uses it.

    While it is in use all bitmaps look lost, and those made since it was opened are not there yet.
    """
    if image_format != "qcow2":
        return ImageState(trackable=False)
    (details,) = _image_details(path)
    data = details["format-specific"]["data"]
    bitmaps = data.get("bitmaps", [])
    return ImageState(
        trackable=data.get("compat") != "0.10",
        names=frozenset(one["name"] for one in bitmaps),
        recording=frozenset(one["name"] for one in bitmaps if one["flags"] == ["auto"]),
        chain=_chain(path) if "backing-filename" in details else "",
    )


def _image_details(path: Path, *options: str) -> list[dict[str, Any]]:
    command = ["qemu-img", "info", "--force-share", "--output=json", "-f", "qcow2", *options, str(path)]
    details = json.loads(run_tool(command, path))
    return details if isinstance(details, list) else [details]


def _chain(path: Path) -> str | None:
    """Tell the images below by name, inode, size and time of the last write: nothing may write to them."""
    try:
        below = _image_details(path, "--backing-chain")[1:]
        return " ".join(_fingerprint(Path(image["filename"])) for image in below)
    except (HotspareError, OSError):
        return None


def _fingerprint(path: Path) -> str:
    status = path.stat()
    return f"{path}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def add_stored_bitmap(path: Path, name: str) -> None:
    """Make a bitmap in a qcow2 image that no machine uses: it notes all that is written from now on.

    Raises:
        PermissionRefused: the image is in use, or we may not write to it.
        NoSpace: its file system is full.
        HotspareError: QEMU cannot add it.
    """
    run_tool(["qemu-img", "bitmap", "--add", "-f", "qcow2", str(path), name], path)


def remove_stored_bitmap(path: Path, name: str) -> None:
    """Remove a bitmap from a qcow2 image that no machine uses.

    Raises:
        PlatformUnavailable: qemu-img is missing.
        PermissionRefused: the image is in use, or we may not write to it.
    """
    run_tool(["qemu-img", "bitmap", "--remove", "-f", "qcow2", str(path), name], path)


def remove_live_bitmap(domain: libvirt.virDomain, name: str) -> None:
    """Remove a bitmap from all nodes of a running machine's QEMU.

    This goes past libvirt, which notes that the domain is "tainted" by it; so it is kept for bitmaps that
    libvirt itself fails to remove.

    Raises:
        libvirt.libvirtError: the machine does not run or QEMU does not answer.
    """
    for node in _nodes_with_bitmap(domain, name):
        _qmp(domain, "block-dirty-bitmap-remove", node=node, name=name)


def _nodes_with_bitmap(domain: libvirt.virDomain, name: str) -> Iterator[str]:
    for node in _qmp(domain, "query-named-block-nodes", flat=True).get("return", []):
        if any(bitmap.get("name") == name for bitmap in node.get("dirty-bitmaps", [])):
            yield node["node-name"]


def _qmp(domain: libvirt.virDomain, command: str, **arguments: object) -> dict[str, Any]:
    request = json.dumps({"execute": command, "arguments": arguments})
    answer: dict[str, Any] = json.loads(libvirt_qemu.qemuMonitorCommand(domain, request, 0))
    return answer
