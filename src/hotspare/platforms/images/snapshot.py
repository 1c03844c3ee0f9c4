"""The view of an image that nobody writes to."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from hotspare.block.extent import Extent
from hotspare.block.file import RawFile
from hotspare.block.nbd.client import NbdClient
from hotspare.block.qemu import QemuNbd
from hotspare.errors import PermissionRefused, SourceLost
from hotspare.platforms.images.inventory import is_in_use
from hotspare.platforms.platform import Consistency, Machine, SnapshotDisk, StateFile

_FULL = "a cold image has no change tracking; unchanged parts are found by content"


class ImageSnapshot:
    """One image; a ``Snapshot`` as long as nobody writes to it.

    Raises:
        PermissionRefused: a machine uses the image, or it may not be read.
        SourceLost: it is not there.
        PlatformUnavailable: qemu-nbd is missing.
    """

    def __init__(self, machine: Machine) -> None:
        described = machine.disks[0]
        self.machine = machine
        self.disks: Sequence[SnapshotDisk] = (SnapshotDisk(described.name, described.size, None, _FULL),)
        self.consistency = Consistency.OFFLINE
        self.frozen_seconds = 0.0
        self.warnings: Sequence[str] = ()
        self.state: Sequence[StateFile] = ()
        self._path = Path(described.source)
        self._serving = ExitStack()
        self._server: QemuNbd | None = None
        self._stamp = _stamp(self._path)
        if is_in_use(self._path):
            raise PermissionRefused(
                f"{self._path} is in use by a running machine",
                meaning="Nothing was read, as it changes while being read",
                hint="Back the machine up through its platform, or shut it down first",
            )
        if described.format != "raw":
            self._server = self._serving.enter_context(QemuNbd(self._path, described.format))

    def changed(self, disk: str) -> Iterator[Extent]:
        """Yield all extents."""
        with closing(self.reader(disk)) as image:
            yield from image.extents(0, image.size)

    def reader(self, disk: str) -> RawFile | NbdClient:
        """Open the image."""
        if disk != self.disks[0].name:
            raise KeyError(disk)
        return RawFile.open(self._path) if self._server is None else self._server.connect()

    def guest_io(self) -> None:
        """Give nothing: no guest runs."""

    def check(self) -> None:
        """Raise if the image was written since the beginning, or is about to be."""
        if _stamp(self._path) != self._stamp or is_in_use(self._path):
            raise SourceLost(
                f"{self._path} changed while it was read",
                meaning="This restore point was given up; older ones are not touched",
                hint="Make sure that nothing writes to it, and run the backup again",
            )

    def commit(self) -> None:
        """Do nothing: there are no tokens."""

    def release(self) -> None:
        """Stop serving the image."""
        self._serving.close()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise SourceLost(f"{path} cannot be read: {error.strerror}", hint="Check the path") from error
    # A block device's node does not change when the device is written.
    return (0, 0) if path.is_block_device() else (status.st_mtime_ns, status.st_size)
