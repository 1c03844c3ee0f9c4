import sys
from pathlib import Path

import pytest

from benchmarks.measure import Cost, ProgramFailed, median, run

MIB = 1 << 20


def test_costs_of_a_program_are_its_own(tmp_path: Path) -> None:
    ours = bytearray(200 * MIB)
    ours[:] = b"x" * len(ours)
    code = "import time; data = b'x' * (40 << 20); time.sleep(0.2)"
    cost = run([sys.executable, "-c", code], {}, tmp_path / "log", tmp_path)
    assert cost.wall >= 0.2
    assert 40 * MIB <= cost.memory < 150 * MIB


def test_failing_programs_are_not_measured(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match=r"ended with 3:\nno luck"):
        run(["sh", "-c", "echo no luck; exit 3"], {}, tmp_path / "log", tmp_path)


def test_median_is_taken_of_each_figure() -> None:
    costs = [Cost(1.0, 9.0, 20), Cost(2.0, 7.0, 30), Cost(9.0, 8.0, 10)]
    assert median(costs) == Cost(2.0, 8.0, 20)
