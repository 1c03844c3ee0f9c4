"""A file or block device as the source of a replica, read at one instant where that can be had, else said.

The best is a clone that shares the file's blocks (FICLONE: Btrfs, XFS, …), made in an instant. Without that
the file itself is read, which takes a while; whether anybody wrote to it meanwhile is found out, and what was
read then is of no instant at all. Commands that quiet and release the file's user may stand around either.
"""

import errno
import fcntl
import os
import shlex
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from hotspare.block.extent import Extent
from hotspare.block.file import RawFile, failure_of
from hotspare.cancellation import Cancellation
from hotspare.errors import ConsistencyNotReached, SourceLost
from hotspare.platforms.platform import (
    Consistency,
    IoTotals,
    Machine,
    MachineDisk,
    PowerState,
    Snapshot,
    SnapshotDisk,
    SnapshotRequest,
    StateFile,
    Token,
)

DISK = "disk0"
SCHEME = "file"
_FICLONE = 0x40049409
"""From linux/fs.h."""
_COMMAND_SECONDS = 60.0
_FRESH_SECONDS = 2.0
"""A change as fresh as this may be followed by another of the same time stamp."""
_COMPARED = "a file has no record of what changed: it is compared with what the standby has"


class PlainSource:
    """A file or block device, in the words of a platform with one machine that has one disk.

    Args:
        path: the file.
        name: what it is called.
        freeze: command that quiets whoever writes to it, run before it is read; empty for none.
        thaw: command that releases them again; run on every way out.
        accept_torn: also take what was read while it was written, and say so.
    """

    def __init__(
        self, path: Path, name: str, *, freeze: str = "", thaw: str = "", accept_torn: bool = False
    ) -> None:
        self.path = path.absolute()
        self.name = name
        self.freeze = freeze
        self.thaw = thaw
        self.accept_torn = accept_torn

    @property
    def uri(self) -> str:
        """All of it as one URI, as a protection keeps it."""
        parts = {"name": self.name, "freeze": self.freeze, "thaw": self.thaw}
        if self.accept_torn:
            parts["torn"] = "yes"
        query = urlencode({name: value for name, value in parts.items() if value})
        return f"{SCHEME}://{quote(str(self.path))}?{query}"

    @classmethod
    def of_uri(cls, uri: str) -> Self:
        """Make it again of its URI."""
        parts = urlsplit(uri)
        given = {name: values[0] for name, values in parse_qs(parts.query).items()}
        return cls(
            Path(unquote(parts.path)),
            given.get("name", ""),
            freeze=given.get("freeze", ""),
            thaw=given.get("thaw", ""),
            accept_torn="torn" in given,
        )

    def inspect(self, _name: str = "") -> Machine:
        """Describe it. Raises what ``RawFile.open`` does."""
        with RawFile.open(self.path) as file:
            disk = MachineDisk(name=DISK, size=file.size, format="raw", source=str(self.path))
        return Machine(
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"file:{self.name}")),
            name=self.name,
            platform=f"{SCHEME}://{quote(str(self.path))}",
            state=PowerState.OFF,
            disks=(disk,),
        )

    @contextmanager
    def open_snapshot(
        self, machine: Machine, request: SnapshotRequest, cancellation: Cancellation
    ) -> Iterator[Snapshot]:
        """Quiet its users, clone it where that can be done, and release them.

        Raises:
            ConsistencyNotReached: the command that quiets them failed.
            SourceLost, PermissionRefused: it cannot be read.
        """
        cancellation.check()
        del machine
        snapshot = PlainSnapshot(self, self.inspect(), request)
        try:
            yield snapshot
        finally:
            snapshot.release()

    def close(self) -> None:
        """Do nothing: nothing is held open."""


class _Stamp(NamedTuple):
    """Changes whenever the file does; see ``_stamp``."""

    text: str
    trusted: bool
    """A later change surely makes another one."""


class PlainSnapshot:
    """One reading of a file; a ``Snapshot``."""

    def __init__(self, source: PlainSource, machine: Machine, request: SnapshotRequest) -> None:
        self.machine = machine
        self.consistency = Consistency.FILESYSTEM if source.freeze else Consistency.CRASH
        self.frozen_seconds = 0.0
        self.warnings: Sequence[str] = ()
        self.state: Sequence[StateFile] = ()
        self._source = source
        self._clone: Path | None = None
        self._file: RawFile | None = None
        self._frozen_at: float | None = None
        self._torn = False
        try:
            if source.freeze:
                self._frozen_at = time.monotonic()
                _run(source.freeze, source, "quiet")
            self._stamp = _stamp(source.path)
            self._clone = _cloned(source.path)
            if self._clone is not None:
                self._thaw()
            self._file = RawFile.open(self._clone or source.path)
        except BaseException:
            self.release()
            raise
        size = self._file.size
        token = Token(value=self._stamp.text, disk_identity=str(source.path), size=size)
        why: str | None = _COMPARED
        if self._stamp.trusted and request.since.get(DISK) == token:
            why = None
        self._unchanged = why is None
        kept = token if self._stamp.trusted else None
        self.disks: Sequence[SnapshotDisk] = (SnapshotDisk(DISK, size, kept, why),)

    def changed(self, disk: str) -> Iterator[Extent]:
        """Yield nothing when it has not changed, else all of it."""
        with self.reader(disk) as file:
            yield from () if self._unchanged else file.extents(0, file.size)

    def reader(self, disk: str) -> RawFile:
        """Open the file, or its clone."""
        if disk != DISK or self._file is None:
            raise KeyError(disk)
        return self._file.clone()

    def guest_io(self) -> dict[str, IoTotals] | None:
        """Give nothing: no guest runs."""
        return None

    def check(self) -> None:
        """Raise, or note, that it was written while it was read."""
        if self._clone is not None or self._torn or _stamp(self._source.path).text == self._stamp.text:
            return
        if not self._source.accept_torn:
            raise SourceLost(
                f"{self._source.path} was written while it was read",
                meaning="What was read is of no one instant and did not become a point; it is tried again",
                hint="Quiet whoever writes with --freeze and --thaw, put the file on a file system that can"
                " share blocks (Btrfs, XFS), or accept such points with --accept-torn",
            )
        self._torn = True
        # Nothing more can be said of it.
        self.consistency = Consistency.NONE
        self.warnings = (
            f"{self._source.path} was written while it was read: parts of it are of different instants,"
            " which is worse than after a power cut",
        )

    def commit(self) -> None:
        """Do nothing: the token is the file's own time stamp."""

    def release(self) -> None:
        """Release its users, and remove the clone."""
        self._thaw()
        file, self._file = self._file, None
        if file is not None:
            file.close()
        clone, self._clone = self._clone, None
        if clone is not None:
            clone.unlink(missing_ok=True)

    def _thaw(self) -> None:
        began, self._frozen_at = self._frozen_at, None
        if began is not None:
            if self._source.thaw:
                _run(self._source.thaw, self._source, "release")
            self.frozen_seconds = time.monotonic() - began


def _run(command: str, source: PlainSource, verb: str) -> None:
    try:
        done = subprocess.run(
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        problem = f"status {done.returncode}: {done.stderr.strip()[-500:]}" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        raise ConsistencyNotReached(
            f"The command that is to {verb} the user of {source.path} failed: {command}: {problem}",
            meaning="No point was made",
            hint="Run it by hand; it must end with status 0 within a minute",
        )


def _cloned(path: Path) -> Path | None:
    """Make a copy that shares all blocks, beside the file; None where that cannot be done."""
    if not path.is_file():
        return None
    clone = path.with_name(f".{path.name}.hotspare-{os.getpid()}")
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(clone, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(target, _FICLONE, source)
        finally:
            os.close(target)
    except OSError as error:
        with suppress(OSError):
            clone.unlink()
        if error.errno in {
            errno.EOPNOTSUPP,
            errno.ENOTTY,
            errno.EXDEV,
            errno.EINVAL,
            errno.EROFS,
            errno.ENOSYS,
        }:
            return None
        raise failure_of(clone, "create", error) from error
    finally:
        os.close(source)
    return clone


def _stamp(path: Path) -> _Stamp:
    """Tell the state of a file by what the kernel notes of changes.

    What is still in memory is written out before: only then does the next write to the same page, or to the
    same block of a device, make another stamp.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if stat.S_ISBLK(status.st_mode):
            return _device_stamp(status.st_rdev)
    except OSError as error:
        raise failure_of(path, "read", error) from error
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    trusted = time.time() - changed / 1e9 > _FRESH_SECONDS
    return _Stamp(f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}", trusted)


def _device_stamp(number: int) -> _Stamp:
    """Count what was written and discarded since the device is there: Documentation/block/stat.rst."""
    folder = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    fields = (folder / "stat").read_text().split()
    # Sectors, not requests: those are counted only after whoever waits for them was woken.
    written = (fields[6], fields[13])
    # The counts begin anew when the device is set up anew, so they tell nothing from one cycle to the next.
    return _Stamp(":".join(written), trusted=False)
