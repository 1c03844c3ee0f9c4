"""Overlays: qcow2 images that hold only what differs from another image, which they name as their base."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from hotspare.block.file import failure_of, make_name_durable
from hotspare.block.qemu import image_info, run_tool
from hotspare.block.soundness import is_sound


def create_overlay(path: Path, base: Path, base_format: str) -> None:
    """Make an empty overlay over ``base``, readable by its owner only; what is at ``path`` is replaced.

    Raises:
        NoSpace, PermissionRefused, SourceLost: it cannot be made.
    """
    try:
        path.unlink(missing_ok=True)
        _create(path, ["-F", base_format, "-b", str(base), str(path)])
    except OSError as error:
        raise failure_of(path, "create", error) from error


def create_served_overlay(path: Path, socket: Path, export: str, size: int) -> None:
    """Make an empty overlay over what an NBD server will serve; nothing is asked of that now.

    Args:
        path: of the overlay, where nothing may be.
        socket: where the server will listen.
        export: the name of the disk there.
        size: bytes of the disk.

    Raises:
        TargetExists: there is something.
        NoSpace, PermissionRefused, SourceLost: it cannot be made.
    """
    base = f"nbd+unix:///{quote(export)}?socket={quote(str(socket))}"
    try:
        # Without -u it would be opened, for its size.
        _create(path, ["-u", "-F", "raw", "-b", base, str(path), str(size)])
    except OSError as error:
        raise failure_of(path, "create", error) from error


def _create(path: Path, options: Sequence[str]) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        run_tool(["qemu-img", "create", "-q", "-f", "qcow2", *options], path)
        make_name_durable(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def has_base(path: Path) -> bool:
    """Tell whether an image needs another one; also while a machine uses it. Raises as ``image_info``."""
    return bool(image_info(path, "qcow2", allow_references=True).references)


def fill_overlay(path: Path) -> None:
    """Copy into an overlay all that it needs of its base, and let go of that. Can be broken off and repeated.

    Raises:
        PermissionRefused: a machine uses it.
        NoSpace, SourceLost: it cannot be written, or the base cannot be read.
    """
    run_tool(["qemu-img", "rebase", "-q", "-f", "qcow2", "-b", "", str(path)], path, timeout=None)


def is_overlay_of(path: Path, base: Path) -> bool:
    """Tell whether there is a sound overlay over ``base`` at ``path``; what leaked in it is given back."""
    if not (path.exists() and is_sound(path, "qcow2")):
        return False
    said = json.loads(run_tool(["qemu-img", "info", "-f", "qcow2", "--output=json", str(path)], path))
    return bool(said.get("backing-filename") == str(base))


def commit_overlay(path: Path, base: Path) -> None:
    """Write what an overlay holds into its base, durably. It stays as it is, and can be committed again.

    Raises:
        PermissionRefused: a machine uses it.
        NoSpace, SourceLost: the base cannot be written.
    """
    # Emptying the overlay (without -d) would make a crash in the middle of it the end of both.
    run_tool(
        ["qemu-img", "commit", "-q", "-d", "-f", "qcow2", "-b", str(base), str(path)], path, timeout=None
    )
    try:
        with base.open("r+b") as written:
            os.fsync(written.fileno())
    except OSError as error:
        raise failure_of(base, "write", error) from error
