from pathlib import Path

import pytest

from benchmarks.measure import Cost
from benchmarks.peers import FULL, Results
from benchmarks.programs import PROGRAMS, Hotspare, Restic


def test_ratios_are_within_rounds() -> None:
    results = Results()
    for ours, theirs in ((2.0, 4.0), (10.0, 30.0)):
        results.add(FULL, Hotspare.label, Cost(ours, 0, 0))
        results.add(FULL, Restic.label, Cost(theirs, 0, 0))
    assert results.ratios(FULL, "restic") == pytest.approx([2.0, 3.0])
    assert results.ratios(FULL, "hotspare") == pytest.approx([1.0, 1.0])


def test_programs_keep_out_of_each_others_folders(tmp_path: Path) -> None:
    folders = [program(tmp_path).folder for program in PROGRAMS]
    assert len(set(folders)) == len(PROGRAMS)
