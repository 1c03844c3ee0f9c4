"""The backup programs, each with the settings that suit a disk image best, all encrypting."""

from benchmarks.programs.borg import Borg, BorgFixed
from benchmarks.programs.hotspare import Hotspare
from benchmarks.programs.kopia import Kopia
from benchmarks.programs.program import Bucket, Program
from benchmarks.programs.restic import Restic

__all__ = ["PROGRAMS", "Borg", "BorgFixed", "Bucket", "Hotspare", "Kopia", "Program", "Restic"]

PROGRAMS: tuple[type[Program], ...] = (Hotspare, Restic, Kopia, Borg, BorgFixed)
