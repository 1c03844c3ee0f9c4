"""Which points stay: examples, and what must hold for all."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.errors import UsageError
from hotspare.thinning import Rule, Thinning, format_every, parse_every, parse_thinning

NOW = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC)


def every(seconds: int, count: int) -> dict[str, datetime]:
    """Points so many seconds apart, the newest at ``NOW``; ids count from the oldest."""
    return {f"{count - number:06}": NOW - timedelta(seconds=seconds * number) for number in range(count)}


durations = st.builds(
    lambda count, unit: f"{count}{unit}", st.integers(1, 90), st.sampled_from(["s", "m", "h", "d", "w"])
)


def sensible(pair: tuple[str, str]) -> bool:
    return parse_every(pair[0]) <= parse_every(pair[1])


rules = st.one_of(
    st.tuples(durations, durations).filter(sensible).map(" for ".join), durations.map("all for {}".format)
)
thinnings = st.builds(
    lambda several, last: ", ".join([*several, *last]),
    st.lists(rules, min_size=1, max_size=3),
    st.lists(st.integers(1, 5).map("last {}".format), max_size=1),
).map(parse_thinning)
moments = st.integers(-20_000, 200_000).map(lambda seconds: NOW - timedelta(seconds=seconds))
histories = st.lists(moments, max_size=60).map(
    lambda times: {f"{at:%Y%m%d-%H%M%S}-{number}": at for number, at in enumerate(sorted(times))}
)


def test_keeps_every_minute_for_an_hour_and_hourly_for_a_day() -> None:
    points = every(5, 2 * 24 * 720)
    kept = sorted(parse_thinning("1m for 1h, 1h for 1d").kept(points, NOW))
    ages = [NOW - points[one] for one in kept]
    # The newest, and the first of each minute from 11:01 to 12:00.
    assert sum(age <= timedelta(hours=1) for age in ages) == 61
    # The first of each hour from 12:00 of the day before to 10:00.
    assert sum(age > timedelta(hours=1, minutes=1) for age in ages) == 23
    assert max(ages) < timedelta(days=1, hours=1)


def test_keeps_all_of_the_last_minutes_and_the_last_ones() -> None:
    points = every(5, 1000)
    assert len(parse_thinning("all for 5m").kept(points, NOW)) == 61
    assert parse_thinning("last 7").kept(points, NOW) == {f"{number:06}" for number in range(994, 1001)}


def test_names_what_goes_in_the_order_of_time() -> None:
    assert parse_thinning("last 2").dropped(every(5, 4), NOW) == ["000001", "000002"]


@given(histories, thinnings)
def test_the_newest_stays(points: dict[str, datetime], thinning: Thinning) -> None:
    kept = thinning.kept(points, NOW)
    assert kept <= points.keys()
    assert not points or max(points) in kept
    assert kept | set(thinning.dropped(points, NOW)) == points.keys()


@given(histories, thinnings)
def test_there_is_one_of_each_piece_for_as_long_as_was_promised(
    points: dict[str, datetime], thinning: Thinning
) -> None:
    kept = [points[one] for one in thinning.kept(points, NOW)]
    for rule in thinning.rules:
        for at in points.values():
            if timedelta() <= NOW - at <= rule.duration:
                assert any(abs(at - one) <= rule.every for one in kept)


@given(histories, thinnings, st.lists(st.integers(0, 5000), max_size=6))
def test_it_does_not_matter_how_often_one_thins(
    points: dict[str, datetime], thinning: Thinning, steps: list[int]
) -> None:
    now = NOW
    alive: dict[str, datetime] = {}
    waiting = sorted(points)
    for step in [*steps, 0]:
        now += timedelta(seconds=step)
        arrived = [one for one in waiting if step == 0 or len(waiting) % 2 == 0]
        alive |= {one: points[one] for one in arrived}
        waiting = waiting[len(arrived) :]
        alive = {one: alive[one] for one in thinning.kept(alive, now)}
    once = thinning.kept(points, now)
    # "last" and a clock set back may keep more on the way, for a while; what stays for good is the same.
    by_rules = Thinning(thinning.rules).kept(points, now)
    assert {one for one in by_rules if points[one] <= now} <= set(alive)
    assert once <= set(alive)


@given(thinnings)
def test_its_text_is_read_again(thinning: Thinning) -> None:
    assert parse_thinning(str(thinning)) == thinning


@given(durations)
def test_durations_are_read_again(text: str) -> None:
    assert parse_every(format_every(parse_every(text))) == parse_every(text)


@pytest.mark.parametrize(
    "text", ["", "1m", "1m for", "for 1h", "0s for 1h", "last 0", "2h for 1h", "1x for 1h"]
)
def test_refuses_what_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        parse_thinning(text)


def test_reads_spaces_and_capitals() -> None:
    assert parse_thinning(" 90 S for 1H ").rules == (Rule(timedelta(seconds=90), timedelta(hours=1)),)
