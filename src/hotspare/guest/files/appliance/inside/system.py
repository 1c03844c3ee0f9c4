"""System calls that Python has no function for, and the kernel's modules."""

import ctypes
import errno
import os
import struct

_SYSCALLS = {"x86_64": (175, 437), "aarch64": (105, 437)}
"""Numbers of init_module and openat2."""
_INIT_MODULE, _OPENAT2 = 0, 1
_RESOLVE = 0x04 | 0x08
"""RESOLVE_NO_SYMLINKS and RESOLVE_BENEATH of openat2(2)."""
_PIECE = 2048
_MNT_DETACH = 2
_POWER_OFF = 0x4321FEDC

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]


def _syscall(which: int, *arguments: object) -> int:
    number = _SYSCALLS[os.uname().machine][which]
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def load(module: str) -> None:
    """Load one kernel module, unless it is there already or this kernel has none."""
    try:
        with open(f"/modules/{module}.ko", "rb") as file:  # noqa: PTH123  # pathlib is slow to import
            content = file.read()
    except FileNotFoundError:
        return
    try:
        _syscall(_INIT_MODULE, content, ctypes.c_ulong(len(content)), b"")
    except OSError as error:
        if error.errno != errno.EEXIST:
            print(f"agent: {module}: {error}", flush=True)  # noqa: T201  # the console is our log


def load_for(purpose: str) -> None:
    """Load the modules that something needs, in order; the archive says which."""
    try:
        with open(f"/modules/{purpose}.order") as order:  # noqa: PTH123
            names = order.read().split()
    except FileNotFoundError:
        return
    for name in names:
        load(name)


def mount(source: bytes, target: bytes, kind: bytes, flags: int, options: bytes) -> None:
    """Mount a file system."""
    if _libc.mount(source, target, kind, flags, options):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unmount(folder: bytes) -> None:
    """Unmount a file system as soon as nobody uses it any more."""
    _libc.umount2(folder, _MNT_DETACH)


def open_path(root: int, path: bytes) -> int:
    """Give an O_PATH descriptor of what lies at a path; no symbolic link is followed, not even the last."""
    at, here = os.dup(root), b""
    parts = [part for part in path.split(b"/") if part]
    while parts or here:
        # The kernel takes at most 4 KiB of a path at once, and a path on a disk may be longer.
        while parts and len(here) + len(parts[0]) < _PIECE:
            here = here + b"/" + parts.pop(0) if here else parts.pop(0)
        how = struct.pack("=QQQ", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _RESOLVE)
        try:
            following = _syscall(_OPENAT2, ctypes.c_int(at), here, how, ctypes.c_size_t(len(how)))
        finally:
            os.close(at)
        at, here = following, b""
    return at


def text(path: str) -> str:
    """Give what a small file holds; nothing where it is not there."""
    try:
        with open(path) as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


def power_off() -> None:
    """End the micro-VM."""
    _libc.reboot(_POWER_OFF)
