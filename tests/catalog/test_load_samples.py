"""What the catalog remembers for policies: samples of load, and who ran last by which policy."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hotspare.catalog.catalog import Catalog
from hotspare.catalog.rows import RunResult
from hotspare.policy.load import LoadSample

HOST = "qemu:///system"
STORE = "file:///srv/backup"
SAMPLE = LoadSample(
    at=datetime(2026, 5, 4, 12, tzinfo=UTC), cpu=0.5, disk=1e6, network=2e6, latency=0.002, backing_up=True
)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog.open(tmp_path, pytest.fail)
    yield opened
    opened.close()


def begin(catalog: Catalog, machine: str, policy: str | None) -> int:
    return catalog.begin_run(kind="backup", machine=machine, platform=HOST, repository=STORE, policy=policy)


def test_samples_are_kept_for_eight_weeks_for_each_host(catalog: Catalog) -> None:
    for week in range(12):
        sample = replace(SAMPLE, at=SAMPLE.at + timedelta(weeks=week), latency=None if week % 2 else 0.001)
        catalog.add_load(HOST, sample)
    catalog.add_load("other", SAMPLE)
    kept = catalog.load(HOST)
    assert [sample.at for sample in kept] == [SAMPLE.at + timedelta(weeks=week) for week in range(3, 12)]
    assert (kept[0].latency, kept[1].latency, kept[0].backing_up) == (None, 0.001, True)
    assert catalog.load("other") == [SAMPLE]


def test_the_last_run_of_each_machine_by_a_policy_is_found(catalog: Catalog) -> None:
    catalog.finish_run(begin(catalog, "web", "nightly"), RunResult(outcome="ok"))
    last = begin(catalog, "web", "nightly")
    catalog.finish_run(last, RunResult(outcome="failed", error_code="failed"))
    # Neither a command's run, nor another policy's, nor one that was stopped counts.
    catalog.finish_run(begin(catalog, "web", None), RunResult(outcome="ok"))
    catalog.finish_run(begin(catalog, "web", "hourly"), RunResult(outcome="ok"))
    catalog.finish_run(begin(catalog, "web", "nightly"), RunResult(outcome="interrupted"))
    lost = begin(catalog, "web", "nightly")
    catalog._connection.execute("UPDATE runs SET process = 'x/1/0' WHERE id = ?", (lost,))
    found = catalog.last_run_of("nightly", HOST, "web")
    assert found
    assert (found.id, found.policy) == (last, "nightly")
    assert catalog.last_run_of("nightly", HOST, "db") is None
    assert len(catalog.runs(9, policy="nightly")) == 4
    goes_on = begin(catalog, "web", "nightly")
    found = catalog.last_run_of("nightly", HOST, "web")
    assert found
    assert found.id == goes_on


def test_only_good_backups_tell_how_fast_a_machine_is(catalog: Catalog) -> None:
    good = begin(catalog, "web", None)
    catalog.finish_run(good, RunResult(outcome="ok", bytes_read=5))
    catalog.finish_run(begin(catalog, "web", None), RunResult(outcome="failed", bytes_read=1))
    catalog.finish_run(begin(catalog, "db", None), RunResult(outcome="ok"))
    assert [run.id for run in catalog.good_backups(HOST, "web", STORE, 9)] == [good]
    assert catalog.good_backups(HOST, "web", "elsewhere", 9) == []
    goes_on = begin(catalog, "db", None)
    assert [run.id for run in catalog.running_backups(HOST)] == [goes_on]
