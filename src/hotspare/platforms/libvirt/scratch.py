"""The private folder of one backup run: scratch files, the NBD socket, and who it belongs to.

The owner holds a lock on a file in the folder. The kernel drops it when the process ends, however that
happens, so a leftover can be told from the folder of a run that lives, without guessing by process ids.
"""

import fcntl
import os
import shutil
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import libvirt
import msgspec

from hotspare.errors import HotspareError, NoSpace, PermissionRefused
from hotspare.units import MIB, format_bytes

DEFAULT_RESERVE = 256 * MIB
_LONGEST_SOCKET_PATH = 107
"""Bytes of ``sun_path``, see unix(7), without the final zero."""
_SOCKET = "nbd.sock"
_OWNER = "owner.json"
_FROZEN = "frozen"
_SCRATCH = ".scratch"


class ScratchOwner(msgspec.Struct, frozen=True, kw_only=True):
    """What a run notes down before it touches a machine, so that a later run can clean up after it."""

    uri: str
    domain: str
    """UUID."""
    name: str = ""
    """Of the domain, for people."""
    repository_id: str
    point_id: str
    pid: int
    trial: bool = False
    """The domain is a trial of ours (``trial.py``), and not one that is backed up."""


class Account(NamedTuple):
    """The user and group that QEMU runs as."""

    uid: int
    gid: int


def qemu_account(connection: libvirt.virConnect) -> Account:
    """Find out as whom libvirt runs QEMU: the base label of the DAC driver in the host's capabilities."""
    capabilities = ET.fromstring(connection.getCapabilities())  # noqa: S314 - libvirt's own XML
    for model in capabilities.iterfind("host/secmodel"):
        label = model.findtext("baselabel")
        if model.findtext("model") == "dac" and label:
            uid, gid = (int(number.lstrip("+")) for number in label.split(":"))
            return Account(uid, gid)
    return Account(os.getuid(), os.getgid())


def default_scratch_folder() -> Path:
    """Give the folder that holds the runs' folders unless the user names another."""
    if os.geteuid() == 0:
        # Beside libvirt's own folders: QEMU may enter there, and must not enter our state folder.
        return Path("/var/lib/libvirt/hotspare")
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "hotspare" / "scratch"


class RunFolder:
    """The folder of one run. It is ours as long as this object lives and ``remove`` was not called."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    @classmethod
    def create(cls, parent: Path, owner: ScratchOwner, account: Account | None) -> "RunFolder":
        """Make the folder of a new run, the only one at work on its machine.

        Args:
            parent: where.
            owner: noted down in it.
            account: who may write in it, and must be able to get there; None when QEMU has no business there.

        Raises:
            HotspareError: another run of ours is at work on the machine.
            PermissionRefused: it cannot be made, or QEMU could not reach it.
            NoSpace: the file system is full.
        """
        try:
            make_scratch_folder(parent)
            if account is not None:
                _check_reachable(parent, account)
            with _exclusive(parent):
                _refuse_second_run(parent, owner)
                path = Path(tempfile.mkdtemp(prefix=f"{owner.point_id[:12]}-", dir=parent))
                lock = _locked_marker(path / _OWNER, owner)
            if account is not None and os.geteuid() == 0:
                os.chown(path, account.uid, account.gid)
        except PermissionError as error:
            raise PermissionRefused(
                f"The scratch folder {parent} cannot be used: {error.strerror}",
                meaning="Nothing was done",
                hint="Run hotspare as root, or set HOTSPARE_SCRATCH_FOLDER to a folder of this user",
            ) from error
        except OSError as error:
            raise NoSpace(
                f"The scratch folder {parent} cannot be used: {error.strerror}",
                meaning="Nothing was done",
                hint="Set HOTSPARE_SCRATCH_FOLDER to a folder on a local file system with free space",
            ) from error
        run = cls(path, lock)
        if account is not None and len(os.fsencode(run.socket)) > _LONGEST_SOCKET_PATH:
            run.remove()
            raise PermissionRefused(
                f"The path of the scratch folder {parent} is too long for a socket in it",
                meaning="Nothing was done",
                hint="Set HOTSPARE_SCRATCH_FOLDER to a folder with a shorter path",
            )
        return run

    @property
    def socket(self) -> Path:
        """Where QEMU serves the frozen disks."""
        return self.path / _SOCKET

    def scratch_file(self, disk: str) -> Path:
        """Where QEMU keeps what the guest overwrites on a disk."""
        return self.path / f"{disk}{_SCRATCH}"

    @property
    def free(self) -> int:
        """Bytes that are left on the file system."""
        return free_space(self.path)

    def mark_frozen(self) -> None:
        """Note that applications in the guest, then the guest, are about to be frozen by us."""
        (self.path / _FROZEN).touch()

    def mark_thawed(self) -> None:
        """Note that the guest runs again."""
        (self.path / _FROZEN).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder; a second call does nothing.

        It stays for the next run's sweep when the guest could not be thawed.
        """
        if self._lock is not None:
            if not (self.path / _FROZEN).exists():
                shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def leave(self) -> None:
        """Let go of the folder but leave it, as a killed run does: by it the next sweep knows our job."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Leftover(NamedTuple):
    """The folder of a run whose process is dead."""

    path: Path
    owner: ScratchOwner
    frozen: bool
    """It died between the first hook in the guest and the last."""

    @property
    def socket(self) -> Path:
        """Where QEMU served the frozen disks."""
        return self.path / _SOCKET

    def remove_scratch_files(self) -> None:
        """Give back the space, when QEMU does not use it any more."""
        for file in self.path.glob(f"*{_SCRATCH}"):
            file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


@contextmanager
def leftovers(parent: Path) -> Iterator[list[Leftover]]:
    """Give the folders of dead runs; no run can be started or swept while the block runs."""
    if not parent.is_dir():
        yield []
        return
    with _exclusive(parent):
        yield [
            Leftover(folder, owner, (folder / _FROZEN).exists())
            for folder in sorted(parent.iterdir())
            if (owner := _dead_owner(folder)) is not None
        ]


def living_run_on(parent: Path, domain: str) -> ScratchOwner | None:
    """Give a run of ours that lives and has its folder there for a domain, given by its UUID."""
    if not parent.is_dir():
        return None
    owners = (living_owner(folder) for folder in parent.iterdir())
    return next((owner for owner in owners if owner is not None and owner.domain == domain), None)


def _refuse_second_run(parent: Path, owner: ScratchOwner) -> None:
    if (other := living_run_on(parent, owner.domain)) is not None:
        raise HotspareError(
            f"A backup of {owner.name or owner.domain} is running already (hotspare, process {other.pid})",
            meaning="Nothing was done, and that backup was left alone",
            hint="Wait for it to end",
        )


def _locked_marker(path: Path, owner: ScratchOwner) -> int:
    """Note down whose folder it is, and give the descriptor that holds the lock.

    Locked before there is anything to read: others take no notice of a marker without an owner.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others may try it for an instant, to see whether we live
        os.write(lock, msgspec.json.encode(owner))
    except BaseException:
        os.close(lock)
        raise
    return lock


def _dead_owner(folder: Path) -> ScratchOwner | None:
    try:
        with (folder / _OWNER).open("rb+") as marker:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return msgspec.json.decode(marker.read(), type=ScratchOwner)
    except (OSError, msgspec.DecodeError):
        return None  # it lives, or is not ours to judge


def is_run_folder(folder: Path) -> bool:
    """Tell whether a folder was made by ``RunFolder``."""
    return (folder / _OWNER).is_file()


def living_owner(folder: Path) -> ScratchOwner | None:
    """Give who is at work in a run's folder; None when that is nobody or no run of ours."""
    try:
        owner = msgspec.json.decode((folder / _OWNER).read_bytes(), type=ScratchOwner)
    except (OSError, msgspec.DecodeError):
        return None
    return owner if _dead_owner(folder) is None else None


@contextmanager
def _exclusive(parent: Path) -> Iterator[None]:
    with (parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_scratch_folder(parent: Path) -> None:
    """Make the folder of all runs: others may pass through it but not look around."""
    if not parent.is_dir():
        parent.mkdir(parents=True)
        parent.chmod(0o711)


def _check_reachable(folder: Path, account: Account) -> None:
    """Say so if QEMU cannot pass through a folder above: its own message would only be "failed to bind"."""
    if (obstacle := unreachable_part(folder, account)) is not None:
        raise PermissionRefused(
            f"QEMU, which runs as user {account.uid}, may not enter {obstacle}",
            meaning="Nothing was done",
            hint=f"Allow it with: chmod o+x {obstacle}, or set HOTSPARE_SCRATCH_FOLDER to another folder",
        )


def unreachable_part(folder: Path, account: Account) -> Path | None:
    """Give the topmost folder on the way that the account may not enter; None when it may enter all."""
    if account.uid == 0:
        return None
    for part in (*reversed(folder.resolve().parents), folder.resolve()):
        status = part.stat()
        bit = 0o100 if status.st_uid == account.uid else 0o010 if status.st_gid == account.gid else 0o001
        if not status.st_mode & bit:
            return part
    return None


def free_space(folder: Path) -> int:
    """Give the bytes that QEMU can still write there."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def check_free(folder: Path, reserve: int) -> None:
    """Raise ``NoSpace`` when less than ``reserve`` bytes are free."""
    free = free_space(folder)
    if free < reserve:
        raise NoSpace(
            f"Only {format_bytes(free)} are free for scratch files in {folder.parent}, "
            f"and {format_bytes(reserve)} must stay free",
            meaning="The backup was given up before the guest could notice; older restore points are safe",
            hint="Free space there, or set HOTSPARE_SCRATCH_FOLDER to a folder on a larger local file system",
        )
