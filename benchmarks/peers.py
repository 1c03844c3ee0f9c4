"""Hotspare and its peers doing the same work on the same disk, round by round."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.disks import warm
from benchmarks.measure import Cost, flush_file, run, settle
from benchmarks.programs import PROGRAMS, Bucket, Program
from tests.storage.servers import KEY, SECRET, Seaweed

FULL = "full backup"
UNCHANGED = "unchanged disk"
TRANSACTIONS = "1000 transactions"
CHANGED = "1 % changed"
RESTORE = "restore"
RESTORE_LAZY = "restore, not durable"
VERIFY = "verify"
S3_FULL = "full backup to S3"
S3_RESTORE = "restore from S3"
TASKS = (FULL, UNCHANGED, TRANSACTIONS, CHANGED, RESTORE, RESTORE_LAZY, VERIFY, S3_FULL, S3_RESTORE)
WITHOUT_STORED = (RESTORE, RESTORE_LAZY, VERIFY, S3_FULL, S3_RESTORE)
LIMIT = "limit"
"""The label of the work that no program can leave out; see ``limit.py``."""

_SOURCES = Path(__file__).resolve().parent.parent
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Disks:
    """Images of the same disk: as it is first, after transactions of its database, and with 1 % changed."""

    first: Path
    transactions: Path
    changed: Path


@dataclass(slots=True)
class Results:
    """What was measured: by task and program, one cost per round."""

    costs: dict[str, dict[str, list[Cost]]] = field(default_factory=lambda: {task: {} for task in TASKS})
    stored: dict[str, dict[str, int]] = field(default_factory=lambda: {task: {} for task in TASKS})
    """Bytes that a task added to the repository, in the last round."""

    def add(self, task: str, label: str, cost: Cost, stored: int = 0) -> None:
        """Note one run."""
        self.costs[task].setdefault(label, []).append(cost)
        self.stored[task][label] = stored

    def ratios(self, task: str, program: str, to: str = "hotspare") -> list[float]:
        """Give, round by round, how many times longer ``program`` took than ``to``."""
        pairs = zip(self.costs[task][program], self.costs[task][to], strict=True)
        return [theirs.wall / ours.wall for theirs, ours in pairs]


def compare(disks: Disks, folder: Path, rounds: int, tell: Tell) -> Results:
    """Let each program do all tasks, ``rounds`` times, each round in another order of the programs."""
    results = Results()
    programs = [program(folder / "programs") for program in PROGRAMS]
    ways = {program.label: list(program.restores) for program in programs}
    for number in range(rounds):
        turn = number % len(programs)
        for program in [*programs[turn:], *programs[:turn]]:
            tell(f"round {number + 1} of {rounds}: {program.label}")
            try:
                _one_round(program, disks, folder / "restored.raw", ways[program.label], results)
            finally:
                program.clear()
        tell(f"round {number + 1} of {rounds}: the limit")
        _measure_limit(disks.first, folder, results)
        tell(f"round {number + 1} of {rounds}: S3")
        _compare_on_s3(disks.first, folder / f"s3-{number}", turn, ways, results)
    return results


def _one_round(program: Program, disks: Disks, target: Path, ways: list[str], results: Results) -> None:
    program.start_over()
    _back_up(program, disks.first, FULL, results)
    _back_up(program, disks.first, UNCHANGED, results)
    restores = {way: _restore(program, disks.first, target, way) for way in ways}
    best = min(restores, key=lambda way: restores[way][0].wall)
    ways[:] = [best]  # from the first round on, only the quickest way is worth the time
    durable, lazy = restores[best]
    results.add(RESTORE, program.label, durable)
    results.add(RESTORE_LAZY, program.label, lazy)
    _back_up(program, disks.transactions, TRANSACTIONS, results)
    _back_up(program, disks.changed, CHANGED, results)
    settle()
    results.add(VERIFY, program.label, program.verify())


def _back_up(program: Program, image: Path, task: str, results: Results) -> None:
    warm(image)
    settle()
    before = program.stored()
    cost = program.back_up(image)
    results.add(task, program.label, cost, program.stored() - before)


def _restore(program: Program, disk: Path, target: Path, way: str) -> tuple[Cost, Cost]:
    """Give the cost until the file is durable, and until the program ended."""
    target.unlink(missing_ok=True)
    for path in program.repository.rglob("*"):
        if path.is_file():
            warm(path)
    settle()
    lazy = program.restore(disk, target, way)
    durable = lazy + flush_file(target)
    _require_equal(disk, target)
    target.unlink()
    return durable, lazy


def _measure_limit(disk: Path, folder: Path, results: Results) -> None:
    payloads, target = folder / "payloads", folder / "restored.raw"
    for task, work, source, result in (
        (FULL, "backup", disk, payloads),
        (RESTORE, "restore", payloads, target),
    ):
        warm(source)
        settle()
        log = folder / "limit.log"
        whole = run([sys.executable, "-m", "benchmarks.limit", work, source, result], {}, log, _SOURCES)
        results.add(task, LIMIT, replace(whole, wall=float(log.read_text())))
    _require_equal(disk, target)
    payloads.unlink()
    target.unlink()


def _compare_on_s3(disk: Path, folder: Path, turn: int, ways: dict[str, list[str]], results: Results) -> None:
    """Do a full backup and a restore with a bucket of a real server on this host."""
    server = Seaweed(folder)
    server.up()
    try:
        bucket = Bucket(f"127.0.0.1:{server.port}", "plain", KEY, SECRET)
        able = [program(folder / "programs", bucket) for program in PROGRAMS if program.speaks_s3]
        for program in [*able[turn % len(able) :], *able[: turn % len(able)]]:
            program.start_over()
            warm(disk)
            settle()
            results.add(S3_FULL, program.label, program.back_up(disk))
            target = folder / "restored.raw"
            settle()
            lazy = program.restore(disk, target, ways[program.label][0])
            results.add(S3_RESTORE, program.label, lazy + flush_file(target))
            _require_equal(disk, target)
            target.unlink()
            program.clear()
    finally:
        server.stop()
        shutil.rmtree(folder)


def _require_equal(disk: Path, restored: Path) -> None:
    if subprocess.run(["cmp", "--quiet", disk, restored], check=False).returncode:
        raise AssertionError(f"{restored} is not what was backed up")
