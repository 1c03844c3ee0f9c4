"""Load of hosts: samples from counters, and low-peak hours learnt from samples."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.policy.load import HostUse, LoadSample, MachineUse, busyness, sample_between, usual_latency
from hotspare.policy.low_peak import learn_low_peak
from hotspare.policy.window import OpenTimes, Window

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 5, 4, tzinfo=BERLIN)
MIB = 1024 * 1024


def look(seconds: float, machines: dict[str, MachineUse]) -> HostUse:
    return HostUse(MONDAY + timedelta(seconds=seconds), 4, machines)


def test_a_sample_is_what_grew_between_two_looks() -> None:
    before = {
        "web": MachineUse(cpu_nanoseconds=10**9, disk_bytes=5 * MIB, disk_operations=100, network_bytes=7),
        "off": MachineUse(cpu_nanoseconds=10**9),
        "restarted": MachineUse(cpu_nanoseconds=9 * 10**9, disk_bytes=9 * MIB),
    }
    after = {
        "web": MachineUse(
            cpu_nanoseconds=21 * 10**9,
            disk_bytes=25 * MIB,
            disk_operations=300,
            disk_nanoseconds=10**9,
            network_bytes=1007,
        ),
        "new": MachineUse(cpu_nanoseconds=99 * 10**9, disk_bytes=99 * MIB),
        "restarted": MachineUse(cpu_nanoseconds=10**9, disk_bytes=99 * MIB),
    }
    sample = sample_between(look(0, before), look(10, after))
    assert sample == LoadSample(
        at=MONDAY + timedelta(seconds=10), cpu=0.5, disk=2 * MIB, network=100.0, latency=0.005
    )
    assert sample_between(look(10, before), look(10, after)) is None
    assert sample_between(look(10, before), look(5, after)) is None


def test_usual_latency_is_not_moved_by_odd_nights_nor_by_backups() -> None:
    def sample(latency: float | None, *, backing_up: bool = False) -> LoadSample:
        return LoadSample(at=MONDAY, cpu=0, disk=0, network=0, latency=latency, backing_up=backing_up)

    assert usual_latency([sample(0.002)] * 11 + [sample(None)] * 50) is None
    odd = [sample(0.002)] * 20 + [sample(0.9)] * 9 + [sample(0.5, backing_up=True)] * 500
    assert usual_latency(odd) == pytest.approx(0.002)


def samples(
    days: int, load: Callable[[datetime], float], *, every: int = 30, seed: int = 1
) -> list[LoadSample]:
    """Give samples of some days, every so many minutes: a little noise upon a load by local time."""
    chance = random.Random(seed)
    found = []
    for count in range(days * 24 * 60 // every):
        at = MONDAY.astimezone(UTC) + timedelta(minutes=every * count)
        busy = max(0.0, load(at.astimezone(BERLIN)) + chance.gauss(0, 0.01))
        found.append(
            LoadSample(at=at, cpu=busy, disk=busy * 200 * MIB, network=busy * 10 * MIB, latency=None)
        )
    return found


def office(local: datetime) -> float:
    """Be busy on working days from 7 to 20."""
    return 0.8 if local.weekday() < 5 and 7 <= local.hour < 20 else 0.1


def words(found: list[LoadSample]) -> list[str]:
    return [str(window) for window in learn_low_peak(found, BERLIN).windows]


def open_hours(found: list[LoadSample]) -> set[int]:
    """Give the hours of a week, of summer, that are in the windows."""
    windows = learn_low_peak(found, BERLIN).windows
    times = OpenTimes(BERLIN, windows)
    return {
        hour
        for hour in range(168)
        if windows and times.at(MONDAY + timedelta(weeks=9, hours=hour, minutes=30))
    }


def test_nights_and_weekends_of_an_office_are_found() -> None:
    expected = {hour for hour in range(168) if office(MONDAY + timedelta(hours=hour)) < 0.5}
    assert open_hours(samples(21, office)) == expected
    assert learn_low_peak(samples(21, office), BERLIN).low_hours == expected


def test_a_host_that_is_busy_at_night_is_told_apart() -> None:
    batch = samples(14, lambda local: 0.9 if local.hour < 6 or local.hour >= 21 else 0.2)
    assert words(batch) == ["06:00-21:00"]
    low = learn_low_peak(batch, BERLIN).low_hours
    assert low == {day * 24 + hour for day in range(7) for hour in range(6, 21)}


def test_one_week_of_holidays_or_maintenance_changes_nothing() -> None:
    usual = open_hours(samples(28, office))
    holidays = samples(28, lambda local: 0.05 if local.isocalendar().week == 21 else office(local))
    assert open_hours(holidays) == usual
    maintenance = samples(28, lambda local: 1.0 if local.isocalendar().week == 20 else office(local))
    assert open_hours(maintenance) == usual


def test_days_that_were_never_seen_are_taken_from_others() -> None:
    three_days = samples(3, lambda local: 0.8 if 7 <= local.hour < 20 else 0.1)
    assert words(three_days) == ["20:00-07:00"]


@pytest.mark.parametrize(
    ("found", "because"),
    [
        ([], "never sampled"),
        (samples(2, office), "too little is known"),
        ([one for one in samples(20, office) if one.at.hour < 12], "too little is known"),
        (samples(14, lambda _: 0.5), "about as busy at all hours"),
    ],
    ids=["none", "two days", "mornings only", "flat"],
)
def test_what_is_not_known_is_not_proposed(found: list[LoadSample], because: str) -> None:
    learnt = learn_low_peak(found, BERLIN)
    assert learnt.windows == ()
    assert learnt.low_hours == set()
    assert because in learnt.because


def hours_of(window: Window, day: int) -> set[int]:
    """Give the hours of the week that a window covers when it begins on a day."""
    length = ((window.end - window.start) % 1440 or 1440) // 60
    return {(day * 24 + window.start // 60 + count) % 168 for count in range(length)}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from([0.1, 0.9]), min_size=24, max_size=24), st.integers(0, 9))
def test_low_hours_are_those_that_are_low(day: list[float], seed: int) -> None:
    learnt = learn_low_peak(samples(7, lambda local: day[local.hour], seed=seed), BERLIN)
    found = {hour for window in learnt.windows for number in window.days for hour in hours_of(window, number)}
    low = {hour for hour in range(168) if day[hour % 24] == 0.1}
    if len(set(day)) == 1:
        assert found == set()
        return
    lonely = {hour for hour in low if (hour - 1) % 168 not in low and (hour + 1) % 168 not in low}
    assert found == low - lonely


def test_what_is_scarcest_counts() -> None:
    rows = [LoadSample(at=MONDAY, cpu=0.1, disk=n * 5 * MIB, network=0, latency=None) for n in range(101)]
    assert busyness(rows)[0] == pytest.approx(0.1)
    assert busyness(rows)[98] == pytest.approx(1.0)
    assert busyness([]) == []
