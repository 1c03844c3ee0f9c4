"""What a backup that waited for its guest says about it, and the options that steer it."""

from datetime import UTC, datetime

import pytest

from hotspare.backup.pacing import DEFAULT_FACTOR
from hotspare.cli.backup_options import USUAL, Manner
from hotspare.cli.backup_results import BackupResult, print_results, results_document
from hotspare.errors import UsageError
from hotspare.events import HeldBack
from hotspare.repository.point import RestorePoint
from hotspare.units import MIB
from tests.cli.program import Program

POINT = RestorePoint(
    id="20261123-021500-k3fz7",
    machine_id="uuid of web",
    machine_name="web",
    platform="qemu:///system",
    started_at=datetime(2026, 11, 23, 2, 15, tzinfo=UTC),
    finished_at=datetime(2026, 11, 23, 2, 16, tzinfo=UTC),
    consistency="filesystem",
    frozen_seconds=0.2,
    warnings=(),
    disks=(),
    machine={},
    parent=None,
    session="",
)
WAITED = BackupResult("web", "ok", point=POINT, held_back=HeldBack("web", 12.3456, 1.62, 3.91))


def test_people_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    print_results([WAITED], alone=True)
    assert (
        "reading waited 12 s for the guest, whose disk I/O took 1.6 times as long as usual"
        " (3.9 times at the worst moment)"
    ) in capsys.readouterr().out


def test_nothing_is_said_of_a_guest_that_was_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    print_results([BackupResult("web", "ok", point=POINT)], alone=True)
    assert "waited" not in capsys.readouterr().out


def test_programs_are_told() -> None:
    (result,) = results_document([WAITED])["results"]
    assert result["held_back"] == {"seconds": 12.346, "latency_factor": 1.62, "worst_latency_factor": 3.91}
    (result,) = results_document([BackupResult("web", "ok", point=POINT)])["results"]
    assert result["held_back"] is None


def test_the_options_reach_the_engine() -> None:
    usual = USUAL.for_engine()
    assert (usual.latency_factor, usual.read_limit) == (DEFAULT_FACTOR, None)
    chosen = Manner(latency_factor=1.5, read_limit="100MiB/s").for_engine()
    assert (chosen.latency_factor, chosen.read_limit) == (1.5, 100 * MIB)
    assert Manner(latency_factor=1.5, no_latency_control=True).for_engine().latency_factor is None
    with pytest.raises(UsageError, match="no amount"):
        Manner(read_limit="fast").for_engine()


@pytest.mark.parametrize("factor", ["1", "0.5", "nan", "much"])
def test_a_factor_that_cannot_be_kept_is_a_usage_error(program: Program, factor: str) -> None:
    done = program.run("backup", "web", "--latency-factor", factor)
    assert done.status == UsageError.exit_status
    assert "latency-factor" in done.err
