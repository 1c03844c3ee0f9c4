"""Disk images being made: each in a hidden folder beside its place, where it goes when it is whole.

A restore that was killed, or whose connection broke, leaves that folder. The next one to the same place
takes the image in it over, and has to compare what is there rather than trust it.
"""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from hotspare.block.file import RawFile, failure_of, make_name_durable
from hotspare.block.nbd.client import NbdClient
from hotspare.block.qemu import QemuNbd, create_image, image_info
from hotspare.block.soundness import is_sound
from hotspare.errors import TargetExists
from hotspare.units import MIB

KEPT_FORMATS = ("raw", "qcow2")
"""Formats of a machine's disks; one that had another comes back as qcow2."""

FORMAT_OF_SUFFIX = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vhdx": "vhdx", ".vdi": "vdi"}
"""Formats of single disks by the ending of their name; all others are raw."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)


def format_to_write(wanted: str) -> str:
    """Give the format that a machine's disk of format ``wanted`` is written in."""
    return wanted if wanted in KEPT_FORMATS else "qcow2"


class NewImage:
    """One image, which reads as zeroes until written, unless it was ``resumed``.

    Args:
        path: where it goes.
        image_format: one of ``qemu.FORMATS``.
        size: bytes of the disk in it.
        replace: whether it may take the place of what is at ``path``.

    Raises:
        TargetExists: something is at ``path`` already, or another restore is making it.
        NoSpace, PermissionRefused, SourceLost: it cannot be made.
    """

    def __init__(self, path: Path, image_format: str, size: int, *, replace: bool = False) -> None:
        self.path = path
        self.format = image_format
        self.size = size
        self.resumed = False
        self._replace = replace
        self._partial = _partial_of(path)
        self._folder = self._partial.parent
        self._server: QemuNbd | None = None
        self._linked = self._kept = False
        self._refuse_what_is_there()
        self._lock = _locked_folder(self._folder, path)
        try:
            self._begin()
        except BaseException:
            self.discard()
            raise

    def _refuse_what_is_there(self) -> None:
        if self._replace or not (self.path.exists() or self.path.is_symlink()):
            return
        if self._partial.exists() and self._partial.samefile(self.path):
            self.path.unlink()  # of a restore that was killed in its last step
            return
        raise TargetExists(
            f"{self.path} exists already",
            meaning="It was left alone",
            hint="Choose another name or remove it",
        )

    def _begin(self) -> None:
        if self._partial.exists():
            self.resumed = self._partial_fits()
            if self.resumed:
                return
            self._partial.unlink()
        if self.format == "raw":
            RawFile.create(self._partial, self.size).close()
        else:
            create_image(self._partial, self.format, self.size)

    def _partial_fits(self) -> bool:
        """Tell whether what a killed restore left can be written on."""
        if self.format == "raw":
            return self._partial.stat().st_size == self.size
        if not is_sound(self._partial, self.format):
            return False
        return 0 <= image_info(self._partial, self.format).virtual_size - self.size < MIB

    def writer(self) -> RawFile | NbdClient:
        """Open it."""
        if self.format == "raw":
            return RawFile.open(self._partial, read_only=False)
        if self._server is None:
            server = QemuNbd(self._partial, self.format, read_only=False)
            server.__enter__()
            self._server = server
        return self._server.connect()

    def close(self) -> None:
        """Finish writing. Raises ``SourceLost`` when it was not written to its end."""
        server, self._server = self._server, None
        if server is not None:
            server.__exit__(None, None, None)

    def publish(self) -> None:
        """Finish writing and put it to its place. ``discard`` still removes it, unless it replaced another.

        Raises:
            SourceLost: it was not written to its end.
            TargetExists: somebody made a file there meanwhile.
            NoSpace, PermissionRefused: it cannot be put there.
        """
        self.close()
        try:
            if self._replace:
                self._partial.replace(self.path)
            else:
                self._link()
            make_name_durable(self.path)
        except OSError as error:
            raise failure_of(self.path, "create", error) from error

    def _link(self) -> None:
        try:
            os.link(self._partial, self.path)  # never overwrites, unlike a rename
        except OSError as error:
            if error.errno not in _NO_LINKS or self.path.exists():
                raise
            self._partial.rename(self.path)
        self._linked = True

    def keep(self) -> None:
        """Let it stay in its place."""
        self._kept = True
        self._clear()

    def discard(self, *, keep_partial: bool = False) -> None:
        """Remove it, or leave it hidden for the next restore to go on with; does nothing after ``keep``."""
        if self._kept:
            return
        self._kept = True
        try:
            self.close()
        finally:
            if self._linked:
                self.path.unlink(missing_ok=True)
            if keep_partial:
                self._unlock()
            else:
                self._clear()

    def _clear(self) -> None:
        self._partial.unlink(missing_ok=True)
        with suppress(OSError):  # somebody put something into it
            self._folder.rmdir()
        self._unlock()

    def _unlock(self) -> None:
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            os.close(descriptor)


def partial_bytes(path: Path) -> int:
    """Give the bytes that what is left of a killed restore to ``path`` takes up."""
    try:
        return _partial_of(path).stat().st_blocks * 512
    except OSError:
        return 0


def _partial_of(path: Path) -> Path:
    # In a folder of its own, as some formats (VMDK) note in the image what its file is called.
    return path.with_name(f".{path.name}.hotspare-partial") / path.name


class NewImages:
    """The images of one restore. As a context manager it discards them on an error, and keeps them else."""

    def __init__(self) -> None:
        self._images: dict[Path, NewImage] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.keep()
        else:
            self.discard()

    def create(self, path: Path, image_format: str, size: int, *, replace: bool = False) -> NewImage:
        """Make an image, or take over what an earlier restore left of it. Raises as ``NewImage``."""
        image = NewImage(path, image_format, size, replace=replace)
        self._images[path] = image
        return image

    def is_blank(self, path: Path) -> bool:
        """Whether an image reads as zeroes."""
        return not self._images[path].resumed

    def writer(self, path: Path) -> RawFile | NbdClient:
        """Open one of the images."""
        return self._images[path].writer()

    def publish(self) -> None:
        """Put all of them to their places. Raises as ``NewImage.publish``, and ``discard`` still works."""
        for image in self._images.values():
            image.close()
        for image in self._images.values():
            image.publish()

    def keep(self) -> None:
        """Let the images stay, which were published."""
        for image in self._images.values():
            image.keep()

    def discard(self, *, keep_partial: bool = False) -> None:
        """Remove the images that were made; does nothing after ``keep``."""
        for image in self._images.values():
            image.discard(keep_partial=keep_partial)


def _locked_folder(folder: Path, path: Path) -> int:
    """Make the hidden folder and lock it for the life of this process; give its descriptor."""
    while True:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            if folder.parent.is_dir():
                continue  # another restore has removed it just now
            raise failure_of(path, "create", error) from error
        except OSError as error:
            raise failure_of(path, "create", error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass  # removed between opening and locking it
        except BlockingIOError:
            os.close(descriptor)
            raise TargetExists(
                f"Another restore is writing {path}",
                meaning="It was left alone",
                hint="Wait for it to end, or choose another name",
            ) from None
        os.close(descriptor)
