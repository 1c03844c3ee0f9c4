"""Files of restore points as a folder, read-only, by FUSE; served by threads of this process.

What a guest's permissions and access control lists say is shown, but not enforced: whoever mounts holds the
key of the repository and may read everything, and nobody else may. Set-id programs and devices do nothing.
"""

import ctypes
import errno
import importlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, PermissionRefused, PlatformUnavailable, TargetExists, UsageError
from hotspare.restore.mount_served import ServedFiles, Warn
from hotspare.restore.mount_tree import MountTree, Points

_KNOWN_FOR_SECONDS = 3600
"""How long the kernel may remember what it was told: a restore point never changes."""
_START_SECONDS = 15.0
_END_SECONDS = 5.0
_LOOK_SECONDS = 0.2


def mount_files(
    points: Points,
    folder: Path,
    *,
    cancellation: Cancellation,
    warn: Warn,
    ready: Callable[[], None] = lambda: None,
    everybody: bool = False,
) -> None:
    """Show files until somebody asks to stop or the folder is unmounted, then let go of all volumes.

    Args:
        points: what opens the files of each volume, by the name of the volume, by the name of its point.
            Points get a folder each where they are several.
        folder: an empty folder to mount at.
        cancellation: ends the mount.
        warn: is told what could not be read, each thing once. It is called from other threads.
        ready: is called once the files are there.
        everybody: whether other users may read the files too. Only root may allow that.

    Raises:
        UsageError: there is no such folder, or names of volumes are in each other's way.
        TargetExists: the folder is not empty, or a mount point, or what is left of one whose program died.
        PlatformUnavailable: FUSE does not work on this host.
        PermissionRefused: we may not mount there.
    """
    tree = MountTree(points)
    _check_folder(folder)
    folder = folder.absolute()
    mounting = _load_fuse()
    served = ServedFiles(tree, warn)
    failure: list[BaseException] = []

    def serve() -> None:
        try:
            mounting.FUSE(served, os.fsdecode(folder), **_options(everybody))
        except BaseException as error:  # noqa: BLE001  # told by the thread that waits
            failure.append(error)
        finally:
            _ignore_broken_pipes()  # also where it ends after we have given up waiting for that
            served.started.set()

    thread = threading.Thread(target=serve, name="mount", daemon=True)
    try:
        with _same_working_folder():
            thread.start()
            started = served.started.wait(_START_SECONDS)
        if not started or failure or not thread.is_alive():
            raise _refused(folder, failure)
        ready()
        while thread.is_alive() and not cancellation.requested:
            thread.join(_LOOK_SECONDS)
    finally:
        if thread.is_alive():
            _unmount(folder, warn)
            thread.join(_END_SECONDS)
        _ignore_broken_pipes()
        served.close()


def _ignore_broken_pipes() -> None:
    """Undo what FUSE's library does at its end: a pipe that breaks would end the program, not be an error.

    Python's own function for this works in the main thread only.
    """
    ctypes.CDLL(None).signal(signal.SIGPIPE.value, ctypes.c_void_p(signal.SIG_IGN.value))


def _options(everybody: bool) -> dict[str, Any]:
    known = dict.fromkeys(("attr_timeout", "entry_timeout", "negative_timeout"), _KNOWN_FOR_SECONDS)
    shared = {"allow_other": True} if everybody else {}
    protection = {"ro": True, "nosuid": True, "nodev": True, "noexec": True}
    # The files never change, so the kernel may keep what it has read of them.
    return {
        "foreground": True,
        "fsname": "hotspare",
        "subtype": "hotspare",
        "use_ino": True,
        "kernel_cache": True,
        **protection,
        **known,
        **shared,
    }


@contextmanager
def _same_working_folder() -> Iterator[None]:
    """Undo that libfuse 3 goes to the root folder, from which relative paths would lead elsewhere."""
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _check_folder(folder: Path) -> None:
    try:
        occupied = folder.is_mount() or any(folder.iterdir())
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise TargetExists(
                f"{folder} is what is left of a mount whose program was killed",
                meaning="Nothing was mounted; the repository is not affected",
                hint=f"Clean up with: umount -l {folder}",
            ) from error
        if isinstance(error, PermissionError):
            raise PermissionRefused(
                f"{folder} may not be read", meaning="Nothing was mounted", hint="Choose another folder"
            ) from error
        raise UsageError(
            f"{folder} is not a folder", meaning="Nothing was mounted", hint=f"Make it with: mkdir {folder}"
        ) from error
    if occupied:
        raise TargetExists(
            f"{folder} is not empty, or something is mounted there",
            meaning="Nothing was mounted",
            hint="Choose an empty folder",
        )


def _load_fuse() -> ModuleType:
    try:
        # It looks for the library at once, and is loud when there is none.
        loaded = importlib.import_module("mfusepy")
    except (OSError, AttributeError) as error:
        raise _no_fuse(f"The library of FUSE is not installed: {error}") from error
    if not Path("/dev/fuse").exists():
        raise _no_fuse("The kernel of this host has no FUSE: there is no /dev/fuse")
    return loaded


def _no_fuse(what: str) -> PlatformUnavailable:
    return PlatformUnavailable(
        what,
        meaning="Nothing was mounted",
        hint="apt-get install fuse3, or take files out with: hotspare files restore",
    )


def _refused(folder: Path, failure: list[BaseException]) -> HotspareError:
    reason = f": {failure[0]}" if failure else ""
    return PlatformUnavailable(
        f"FUSE cannot mount at {folder}{reason}",
        meaning="Nothing was mounted",
        hint="See what it printed above; apt-get install fuse3 if a program of it is missing",
    )


def _unmount(folder: Path, warn: Warn) -> None:
    if _run_first(["fusermount3", "-u"], ["fusermount", "-u"], ["umount"], folder=folder):
        return
    if _run_first(["fusermount3", "-uz"], ["fusermount", "-uz"], ["umount", "-l"], folder=folder):
        warn(f"Somebody still uses {folder}: it is gone for everybody else, and breaks off for them now")
    else:
        warn(f"{folder} could not be unmounted; clean up with: umount -l {folder}")


def _run_first(*commands: list[str], folder: Path) -> bool:
    """Run the first of some commands that is installed and succeeds."""
    for command in commands:
        with suppress(OSError):
            done = subprocess.run(
                [*command, str(folder)], capture_output=True, check=False, stdin=subprocess.DEVNULL
            )
            if done.returncode == 0:
                return True
    return False
