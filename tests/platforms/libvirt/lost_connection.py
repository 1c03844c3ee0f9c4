"""Losing libvirt for real: one connection's socket is shut down, while its daemon and the others live on."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from hotspare.platforms.libvirt.platform import LibvirtPlatform


class MortalPlatform(LibvirtPlatform):
    """A platform whose connection can be cut."""

    def __init__(self, uri: str, scratch_folder: Path) -> None:
        before = _sockets()
        super().__init__(uri, scratch_folder=scratch_folder)
        self._own = _sockets() - before
        assert self._own, "libvirt's socket was not found"

    def cut(self) -> None:
        """Lose libvirt from here on."""
        for descriptor in self._own:
            with socket.socket(fileno=os.dup(descriptor)) as own:
                own.shutdown(socket.SHUT_RDWR)


@contextmanager
def mortal_platform(scratch_folder: Path) -> Iterator[MortalPlatform]:
    with closing(MortalPlatform("qemu:///system", scratch_folder)) as opened:
        yield opened


def _sockets() -> set[int]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if stat.S_ISSOCK(entry.stat().st_mode):
                found.add(int(entry.name))
    return found
