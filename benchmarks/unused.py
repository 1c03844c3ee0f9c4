"""What leaving out unused blocks brings on a disk that is full of deleted data."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from typing_extensions import override

from benchmarks.disks import make_disk, warm
from benchmarks.measure import Cost, settle
from benchmarks.programs import Borg, Hotspare, Program, Restic
from hotspare.units import GIB, MIB
from tests.guest.unused.garbage import mounted

ZEROED = "hotspare, a copy with zeroes in its unused blocks"
_SIZE = 3 * GIB
_USED = _SIZE * 2 // 10
_DELETED = _SIZE * 7 // 10
_PIECE = 64 * MIB


class HotspareSkipping(Hotspare):
    """As it is used: what no file system needs is left out."""

    label = "hotspare"

    @override
    def back_up(self, image: Path) -> Cost:
        program = Path(sys.executable).parent / "hotspare"
        cost = self.run(program, "backup", "--image", image, "--name", "bench", "--full", "-o", "json")
        (found,) = json.loads(self.log.read_text())["results"][0]["point"]["file_systems"]
        assert found["kept_because"] is None, found
        return cost


class Measured(NamedTuple):
    """One way to back up the disk."""

    label: str
    costs: list[Cost]
    stored: int


def measure_unused(folder: Path, rounds: int, tell: Callable[[str], None]) -> list[Measured]:
    """Back up the disk with all programs, and a copy of it whose unused blocks are zero as the best case."""
    tell("making a disk of which 70 % is deleted data")
    disk, zeroed = folder / "deleted.raw", folder / "zeroed.raw"
    make_disk(disk, _SIZE, _USED)
    subprocess.run(["cp", "--sparse=never", disk, zeroed], check=True)
    _fill_and_delete(disk)
    ways: list[tuple[str, Program, Path]] = [
        ("hotspare", HotspareSkipping(folder / "programs"), disk),
        (ZEROED, Hotspare(folder / "programs"), zeroed),
        ("hotspare --no-skip-unused", Hotspare(folder / "programs"), disk),
        ("restic", Restic(folder / "programs"), disk),
        ("borg", Borg(folder / "programs"), disk),
    ]
    found = {label: Measured(label, [], 0) for label, _, _ in ways}
    for number in range(rounds):
        turn = number % len(ways)
        for label, program, image in [*ways[turn:], *ways[:turn]]:
            tell(f"round {number + 1} of {rounds}: {label}")
            program.start_over()
            warm(image)
            settle()
            found[label].costs.append(program.back_up(image))
            found[label] = found[label]._replace(stored=program.stored())
            program.clear()
    for path in (disk, zeroed):
        path.unlink()
    return list(found.values())


def _fill_and_delete(disk: Path) -> None:
    with mounted(disk, "ext4") as root:
        for number in range(_DELETED // _PIECE):
            with (root / f"deleted{number}").open("wb") as file:
                for _ in range(_PIECE // MIB):
                    file.write(os.urandom(MIB))
                os.fsync(file.fileno())
    with mounted(disk, "ext4") as root:
        for path in root.glob("deleted*"):
            path.unlink()
