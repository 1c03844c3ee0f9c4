"""Giving space back after half of many backups were forgotten."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.disks import change_disk, scattered_changes
from benchmarks.measure import Cost, settle
from benchmarks.programs import Program
from hotspare.units import MIB

POINTS = 200
DISK = 64 * MIB
CHANGED = 1 * MIB


@dataclass(slots=True)
class Prunes:
    """By program: what forgetting half of the backups and collecting cost, and bytes before and after."""

    costs: dict[str, Cost] = field(default_factory=dict)
    stored: dict[str, tuple[int, int]] = field(default_factory=dict)


def measure_prunes(
    programs: Sequence[Program], donor: Path, folder: Path, points: int, tell: Callable[[str], None]
) -> Prunes:
    """Back a small disk that changes up ``points`` times with each program, and forget every second one."""
    results = Prunes()
    disk = folder / "pruned.raw"
    for program in programs:
        tell(f"prune: {points} backups with {program.label}")
        with donor.open("rb") as source:
            source.seek(64 * MIB)
            disk.write_bytes(source.read(DISK))
        program.start_over()
        try:
            for number in range(points):
                program.back_up(disk)
                change_disk(disk, scattered_changes(DISK, CHANGED, seed=number), donor, seed=number)
            before = program.stored()
            forgotten = program.backups()[::2]
            assert len(forgotten) == points // 2, f"{program.label} lists {len(forgotten)} of {points} points"
            settle()
            results.costs[program.label] = program.forget(forgotten)
            results.stored[program.label] = (before, program.stored())
        finally:
            program.clear()
    disk.unlink()
    return results
