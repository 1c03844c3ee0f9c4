"""The micro-VM with the disks of one restore point: launched once, asked for any of its volumes."""

import errno
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Self

from hotspare.block.device import BlockReader
from hotspare.block.extent import Extent
from hotspare.block.nbd.server import Export, NbdServer
from hotspare.errors import FileSystemUnreadable, HotspareError, PathNotFound, PlatformUnavailable
from hotspare.guest.files.appliance.channel import Channel, QuestionFailed
from hotspare.guest.files.appliance.initramfs import MODULES, initramfs
from hotspare.guest.files.appliance.kernel import Kernel, find_kernel
from hotspare.guest.files.appliance.machine import DISKS_MAX, Accelerator, Machine, MachineSpec
from hotspare.guest.files.appliance.mounted import MountedFiles
from hotspare.units import GIB

LAUNCH_SECONDS = {"kvm": 60.0, "tcg": 180.0}
ANSWER_SECONDS = 300.0
"""How long an answer may take: as long as the store may need to deliver the blocks for it."""
_SCRATCH = "/var/tmp"  # noqa: S108  # a folder of a random name is made in it
_KINDS = {"ext": "ext4", "fat": "vfat", "ntfs": "ntfs3"}
_SHOWN = {"ntfs3": "ntfs"}
_NOT_MOUNTED = {"start", "lvm"}


class Appliance:
    """A running micro-VM. Several threads may open and read its volumes; they wait for each other."""

    def __init__(
        self,
        channel: Channel,
        disks: Mapping[str, str],
        failures: "_Failures",
        stack: ExitStack,
    ) -> None:
        self._channel = channel
        self._disks = disks
        self._failures = failures
        self._stack = stack

    @classmethod
    def launch(
        cls,
        disks: Mapping[str, BlockReader],
        *,
        cache: Path,
        accelerator: Accelerator = "tcg",
        kernel: Kernel | None = None,
        memory: int = GIB,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> Self:
        """Boot the micro-VM and wait until it answers.

        Args:
            disks: all disks of the point by their names, borrowed until ``close``; nothing is written.
            cache: folder in which the micro-VM's own parts are kept for the next time.
            accelerator: ``kvm`` only where it is known to work.
            kernel: what to boot; None for the newest of this host.
            memory: bytes.
            answer_seconds: how long any answer may take before the micro-VM is given up.

        Raises:
            PlatformUnavailable: a kernel or QEMU is missing, or the micro-VM does not come up in time.
        """
        if len(disks) > DISKS_MAX:
            raise PlatformUnavailable(
                f"A micro-VM can read at most {DISKS_MAX} disks, and there are {len(disks)}"
            )
        kernel = kernel or find_kernel(os.environ)
        archive = initramfs(kernel, cache)
        serials = {name: f"disk{number}" for number, name in enumerate(disks)}
        failures = _Failures()
        exports = {
            serials[name]: Export(_Watched(disk, serials[name], failures)) for name, disk in disks.items()
        }
        with ExitStack() as stack:
            folder = stack.enter_context(_scratch_folder())
            stack.enter_context(NbdServer.start(folder / "disks", exports))
            spec = MachineSpec(kernel.image, archive, folder / "disks", list(exports), accelerator, memory)
            machine, port = Machine.start(spec, folder)
            stack.callback(machine.close)
            stack.callback(port.close)
            channel = Channel(port, machine.window, machine.last_words, answer_seconds)
            stack.callback(channel.close)
            # First of all at the end, so that nobody goes on waiting for an answer.
            stack.callback(machine.close)
            _await(channel, LAUNCH_SECONDS[accelerator])
            return cls(channel, serials, failures, stack.pop_all())

    def open(self, name: str, *, content: str = "", size: int | None = None) -> MountedFiles:
        """Mount a volume read-only, after its journal was replayed into the overlay, and give its files.

        Args:
            name: of the volume: ``vda1``, ``vda``, ``vg0/root``.
            content: what it holds by its signature, as ``Volume.content`` says; empty to try all there is.
            size: bytes that it must have, if known.

        Raises:
            PathNotFound: there is no such volume.
            FileSystemUnreadable: no driver of the kernel can mount it.
            PlatformUnavailable: it is a logical volume, and this host has no LVM.
            SourceLost, StorageError, RepositoryDamaged: a disk cannot be read.
        """
        disk, partition, logical = self._split(name)
        kind = _KINDS.get(content, content)
        kinds = [kind] if kind in MODULES else [each for each in MODULES if each not in _NOT_MOUNTED]
        wanted = "" if size is None else size
        self._failures.take("")
        try:
            answer = self._channel.ask("mount", disk, partition, logical, " ".join(kinds), wanted)
        except QuestionFailed as failed:
            raise self._failures.take(disk) or _refusal(name, failed) from failed
        number, found = self._channel.decoded(answer, tuple[int, str])
        # A Btrfs may lie on other disks too.
        source = "" if found == "btrfs" else disk
        cause = partial(self._failures.take, source)
        return MountedFiles(self._channel, number, _SHOWN.get(found, found), name, cause)

    def close(self) -> None:
        """End the micro-VM; a second call does nothing. All of its volumes are gone then."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _split(self, name: str) -> tuple[str, int, str]:
        """Tell what a volume's name means: a disk's serial number, a partition or 0, and a logical volume."""
        if name in self._disks:
            return self._disks[name], 0, ""
        if "/" in name:
            return "", 0, name
        # A disk whose name ends in a digit has a "p" before the number of its partition.
        for disk in sorted(self._disks, key=len, reverse=True):
            rest = re.fullmatch(
                r"p([1-9]\d{0,3})" if disk[-1:].isdigit() else r"([1-9]\d{0,3})", name[len(disk) :]
            )
            if name.startswith(disk) and rest:
                return self._disks[disk], int(rest[1]), ""
        raise PathNotFound(f"There is no volume {name}", hint=f"The disks are {', '.join(self._disks)}")


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    # Not where temporary files are kept in memory: a large journal may be replayed into the overlay.
    place = _SCRATCH if os.access(_SCRATCH, os.W_OK) else None
    try:
        folder = Path(tempfile.mkdtemp(prefix="hotspare-appliance-", dir=place))
    except OSError as error:
        raise PlatformUnavailable(
            f"There is no room for the sockets and the overlay of a micro-VM: {error}",
            meaning="Nothing was changed",
            hint=f"Make room in {place or tempfile.gettempdir()}",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await(channel: Channel, seconds: float) -> None:
    try:
        channel.ask("hello", seconds=seconds)
    except (FileSystemUnreadable, QuestionFailed) as error:
        raise PlatformUnavailable(
            f"The micro-VM does not come up: {channel.lost or error}",
            meaning="The files of this file system cannot be read, and nothing was changed",
            hint="See whether QEMU works on this host, and with which kernel",
        ) from error


def _refusal(name: str, failed: QuestionFailed) -> HotspareError:

    if failed.number == errno.ENXIO:
        return PathNotFound(f"There is no volume {name}: {failed.text}")
    if failed.number == errno.ENOPKG:
        return PlatformUnavailable(
            f"{name} is a logical volume, and this host has no LVM to put into the micro-VM",
            meaning="Its files cannot be read, and nothing was changed",
            hint="apt-get install lvm2",
        )
    return FileSystemUnreadable(
        f"The Linux kernel of the micro-VM cannot mount {name}: {failed.text}",
        meaning="Its files cannot be read; the restore point holds the disk as it was",
        hint="Restore the disk and repair the file system with its own tools, or take an older point",
    )


class _Failures:
    """Remembers why disks could not be read: the kernel inside only knows that they could not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, HotspareError] = {}

    def note(self, disk: str, error: HotspareError) -> None:
        with self._lock:
            self._last[disk] = error

    def take(self, disk: str) -> HotspareError | None:
        """Give the last of a disk, or of any disk where none is named, and forget all."""
        with self._lock:
            found = self._last.get(disk) if disk else next(iter(self._last.values()), None)
            self._last.clear()
            return found


class _Watched:
    """A disk whose failures are noted."""

    def __init__(self, disk: BlockReader, name: str, failures: _Failures) -> None:
        self.size = disk.size
        self._disk = disk
        self._name = name
        self._failures = failures

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._disk.extents(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        try:
            self._disk.read_into(offset, buffer)
        except HotspareError as error:
            self._failures.note(self._name, error)
            raise

    def clone(self) -> "_Watched":
        return _Watched(self._disk.clone(), self._name, self._failures)

    def close(self) -> None:
        self._disk.close()
