"""How the load of a host keeps policies from beginning.

The host's counters are scripted here, as images do not run; tests/platforms/libvirt/test_use.py reads real
ones.
"""

from datetime import UTC, datetime, timedelta

import pytest

from hotspare.catalog.catalog import Catalog
from hotspare.cli import load
from hotspare.platforms.images.platform import ImagesPlatform
from hotspare.policy.load import HostUse, LoadSample, MachineUse
from tests.cli.images import make_image
from tests.cli.program import Program

MIB = 1024 * 1024


class ScriptedHost:
    """Counts 100 operations more at each look, of so many seconds each."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._looks = 0

    def use(self, at: datetime) -> HostUse:
        self._looks += 1
        operations = 100 * self._looks
        spent = int(operations * self._latency * 1e9)
        return HostUse(at, 2, {"web": MachineUse(disk_operations=operations, disk_nanoseconds=spent)})


@pytest.fixture
def program(program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    make_image(program.folder / "images" / "web.raw", MIB, data=MIB)
    program.expect("repo", "create")
    monkeypatch.setattr(load, "QUICK_SECONDS", 0.01)
    (program.folder / "policies").mkdir()
    (program.folder / "policies" / "all.yaml").write_text("schedule: {when: ['*:*']}\n")
    catalog = Catalog.open(program.folder / "state", pytest.fail)
    for count in range(20):
        at = datetime.now(UTC) - timedelta(hours=count)
        sample = LoadSample(at=at, cpu=0.1, disk=0, network=0, latency=0.002)
        catalog.add_load(program.environment["HOTSPARE_PLATFORM"], sample)
    # The policy was there before, and its last run is long past.
    with catalog._transaction():
        catalog._connection.execute(
            "INSERT INTO runs (kind, machine, platform, repository, process, started_at, outcome, policy)"
            " VALUES ('backup', 'web', ?, 'x', 'x/1/1', '2026-01-01T00:00:00+00:00', 'ok', 'all')",
            (program.environment["HOTSPARE_PLATFORM"],),
        )
    catalog.close()
    return program


def make_guests_take(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    host = ScriptedHost(seconds)
    monkeypatch.setattr(ImagesPlatform, "use", lambda _platform, at: host.use(at))


def test_a_host_whose_guests_are_slow_gets_no_new_run(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_guests_take(0.005, monkeypatch)
    done = program.expect("policy", "run", "--due")
    assert "web: waits: the guests of images://" in done.err
    assert "are slower than usual" in done.err
    assert program.expect("point", "list", "-o", "json").document()["points"] == []
    # By the next time they have recovered; and by name it runs whatever they feel, at their pace.
    make_guests_take(0.002, monkeypatch)
    assert "restore point" in program.expect("policy", "run", "--due").out


def test_a_policy_that_is_run_by_name_does_not_ask_for_latency(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_guests_take(0.5, monkeypatch)
    assert "restore point" in program.expect("policy", "run", "all").out


def test_a_sample_is_kept(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    make_guests_take(0.004, monkeypatch)
    taken = program.expect("load", "sample", "--seconds", "0.01", "-o", "json").document()["samples"][0]
    assert taken["latency"] == pytest.approx(0.004)
    assert taken["backing_up"] is False
    assert "21 samples" in program.expect("load", "windows").out
