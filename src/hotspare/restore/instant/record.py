"""What this host knows of its instant recoveries: a small durable record of each, and how far it is.

The record is what a recovery goes on from after whatever crash; the status beside it is only for people.
"""

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from hotspare.block.file import failure_of, make_name_durable
from hotspare.errors import HotspareError, UsageError

Stage = Literal["starting", "running", "moving"]
"""``running`` stays upon the repository until it is told to move."""


class RecoveredDisk(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a machine that is being recovered."""

    name: str
    size: int
    """Bytes."""
    path: str
    """Of the overlay, which becomes the disk."""


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """One recovery; written before anything is made, and removed when nothing depends on us any more."""

    v: int = 1
    name: str
    """Of the machine here."""
    platform: str
    """URI."""
    scratch_folder: str | None = None
    """Where the platform was told to have its scratch files; None for its default."""
    repository: str
    """URL."""
    point: str
    """Id of the restore point."""
    point_object: str
    """Its name in the store."""
    disks: tuple[RecoveredDisk, ...]
    socket: str
    """Where the disks are served."""
    stage: Stage
    limit: int = 0
    """Bytes per second for moving; 0 for none."""
    holds_point: bool = False
    """Whether it was us who protected the point from being forgotten."""
    began_at: datetime


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How far a recovery is, as the process that keeps it last saw."""

    pid: int
    """Of the process that serves."""
    moved: Mapping[str, int] = {}
    """Bytes, per disk; all of them once it needs the repository no more."""
    problem: str = ""
    """What keeps it from going on, for now; empty when nothing does."""


class Recoveries:
    """The records of a host, in a folder.

    Args:
        state_folder: of the program, from its settings.
    """

    def __init__(self, state_folder: Path) -> None:
        self.folder = state_folder / "recoveries"

    def names(self) -> list[str]:
        """List the machines that are being recovered."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def read(self, name: str) -> Recovery | None:
        """Read a record; None when there is none. Raises ``HotspareError`` when it cannot be read."""
        path = self._path(name, "json")
        try:
            return msgspec.json.decode(path.read_bytes(), type=Recovery)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise HotspareError(
                f"The record {path} of a recovery cannot be read: {error}",
                meaning="The machine goes on as it is; whether it still needs its repository is not known",
                hint="Look with 'virsh domblklist' and 'qemu-img info --backing-chain -U'",
            ) from error

    def find(self, name: str) -> Recovery:
        """Read a record that has to be there. Raises ``UsageError`` when there is none."""
        found = self.read(name)
        if found is None:
            raise UsageError(
                f"No machine {name!r} is being recovered on this host",
                meaning="Nothing was done",
                hint="'hotspare recover list' shows those that are",
            )
        return found

    def write(self, recovery: Recovery) -> None:
        """Make a record durable. Raises ``NoSpace``, ``PermissionRefused``."""
        self._replace(self._path(recovery.name, "json"), msgspec.json.encode(recovery), durable=True)

    def status(self, name: str) -> Status | None:
        """Give how far a recovery was when somebody last looked."""
        try:
            return msgspec.json.decode(self._path(name, "status").read_bytes(), type=Status)
        except (OSError, msgspec.MsgspecError):
            return None

    def write_status(self, name: str, status: Status) -> None:
        """Note how far a recovery is, if that can be."""
        with suppress(HotspareError):
            self._replace(self._path(name, "status"), msgspec.json.encode(status), durable=False)

    def log(self, name: str) -> Path:
        """Say where the process that keeps a recovery writes what it has to say."""
        return self._path(name, "log")

    def remove(self, name: str) -> None:
        """Forget a recovery."""
        for kind in ("json", "status", "log"):
            self._path(name, kind).unlink(missing_ok=True)

    def lock(self, name: str) -> int | None:
        """Become the one who keeps a recovery, by a descriptor that holds the lock; None when somebody is.

        The kernel drops the lock when all processes that have the descriptor are gone.
        """
        self._make_folder()
        descriptor = os.open(self._path(name, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def keeper_pid(self, name: str) -> int | None:
        """Give the process that keeps a recovery and starts what serves it anew; None when there is none."""
        if (free := self.lock(name)) is not None:
            os.close(free)
            return None
        with suppress(OSError, ValueError):
            return int(self._path(name, "lock").read_text())
        return None

    def is_kept(self, name: str) -> bool:
        """Tell whether a process keeps a recovery."""
        if (free := self.lock(name)) is None:
            return True
        os.close(free)
        return False

    def _path(self, name: str, kind: str) -> Path:
        return self.folder / f"{name}.{kind}"

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise failure_of(self.folder, "create", error) from error

    def _replace(self, path: Path, content: bytes, *, durable: bool) -> None:
        self._make_folder()
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            beside.replace(path)
            if durable:
                make_name_durable(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise failure_of(path, "write", error) from error
