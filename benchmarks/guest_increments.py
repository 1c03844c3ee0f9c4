"""How long an increment of a large, almost empty disk takes beside just reading what changed."""

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import libvirt_qemu
import msgspec

from benchmarks.guest_programs import Hotspare
from hotspare.cancellation import Cancellation
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import SnapshotRequest, Token
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from hotspare.units import GIB, KIB, MIB
from lab import DiskSpec, LabGuest

LARGE = 100 * GIB
CHANGED = 64 * MIB
PIECES = {"in one piece": 64 * MIB, "in pieces of 1 MiB": 1 * MIB, "in pieces of 64 KiB": 64 * KIB}
_GRAIN = 1 * MIB
_DEVICE = "/machine/peripheral/virtio-disk1/virtio-backend"


@dataclass(slots=True)
class Increment:
    """Increments after changes of one kind; each list has an entry for each round."""

    read_seconds: list[float] = field(default_factory=list)
    """Just reading what the bitmap marks, in the same job, into memory."""
    backup_seconds: list[float] = field(default_factory=list)
    """The whole command."""
    bytes_read: int = 0


def measure_increments(
    stores: Path, folder: Path, rounds: int, tell: Callable[[str], None]
) -> dict[str, Increment]:
    """Change a disk of 100 GiB in different ways and back it up each time; "nothing changed" comes first.

    Args:
        stores: where the repository is made.
        folder: where what is written comes from.
        rounds: how often.
        tell: told what is going on.
    """
    results = {kind: Increment() for kind in ("nothing changed", *PIECES)}
    with _large_machine(folder) as guest:
        program = Hotspare(stores / "increments", folder / "scratch", stores)
        program.create_repository()
        tell("increments: the first backup")
        program.back_up(guest.name)
        for number in range(rounds):
            for kind, result in results.items():
                tell(f"increments: round {number + 1} of {rounds}, {kind}")
                if kind in PIECES:
                    _change(guest, folder, PIECES[kind], seed=number)
                result.read_seconds.append(_read_what_changed(guest, program))
                done = program.back_up(guest.name)
                result.backup_seconds.append(done.seconds)
                result.bytes_read = done.point["bytes_read"]
                if {disk["mode"] for disk in done.point["disks"]} != {"increment"}:
                    raise RuntimeError(f"no increment: {json.dumps(done.point)}")
    return results


@contextmanager
def _large_machine(folder: Path) -> Iterator[LabGuest]:
    blank = folder / "blank.raw"
    with blank.open("wb") as file:
        file.truncate(LARGE)
    disks = [DiskSpec(size=64 * MIB), DiskSpec(size=LARGE, content=blank)]
    with LabGuest.create("bench-increments", disks=disks) as guest:
        blank.unlink()
        guest.start().wait_ready()
        yield guest


def _change(guest: LabGuest, folder: Path, piece: int, seed: int) -> None:
    """Write random bytes in pieces all over the second disk, as its device in QEMU does."""
    chance = random.Random(f"{seed} {piece}")
    with tempfile.NamedTemporaryFile(dir=folder) as content:
        Path(content.name).chmod(0o644)
        for place in chance.sample(range(LARGE // piece), CHANGED // piece):
            content.seek(0)
            content.write(chance.randbytes(piece))
            content.flush()
            write = f"write -s {content.name} {place * piece} {piece}"
            said = libvirt_qemu.qemuMonitorCommand(guest.domain, f'qemu-io -d {_DEVICE} "{write}"', 1)
            if said.strip():
                raise RuntimeError(said)


def _read_what_changed(guest: LabGuest, program: Hotspare) -> float:
    """Read what changed since the last restore point, and give the seconds; the tokens stay as they are."""
    repository = Repository.open(LocalBackend(program.repository), program.passphrase)
    (point,) = [max(repository.points(), key=lambda point: point.id)]
    since = {disk.name: msgspec.convert(disk.token, Token) for disk in point.disks if disk.token}
    request = SnapshotRequest(point_id="read-only", repository_id=repository.id, since=since)
    with (
        closing(LibvirtPlatform("qemu:///system", scratch_folder=program.scratch)) as platform,
        platform.open_snapshot(platform.inspect(guest.name), request, Cancellation()) as snapshot,
    ):
        if any(disk.full_because for disk in snapshot.disks):
            raise RuntimeError(f"no increment: {snapshot.disks}")
        buffer = memoryview(bytearray(_GRAIN))
        seconds = 0.0
        for disk in snapshot.disks:
            extents = list(snapshot.changed(disk.name))
            with closing(snapshot.reader(disk.name)) as reader:
                began = time.monotonic()
                for extent in extents:
                    for at in range(extent.offset, extent.end, _GRAIN):
                        reader.read_into(at, buffer[: min(_GRAIN, extent.end - at)])
                seconds += time.monotonic() - began
    return seconds
