"""Overlays: qcow2 images that hold only what differs from another image, which they name as their base."""

import json
import os
from pathlib import Path

from hotspare.block.file import failure_of, make_name_durable
from hotspare.block.qemu import run_tool
from hotspare.block.soundness import is_sound


def create_overlay(path: Path, base: Path, base_format: str) -> None:
    """Make an empty overlay over ``base``, readable by its owner only; what is at ``path`` is replaced.

    Raises:
        NoSpace, PermissionRefused, SourceLost: it cannot be made.
    """
    try:
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", base_format, "-b", str(base), str(path)]
        run_tool(command, path)
        make_name_durable(path)
    except OSError as error:
        raise failure_of(path, "create", error) from error


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
