"""Admission: who begins when, by example; and what holds whatever happens."""

import random
from math import inf
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.policy.admission import Admission, Patience, Request
from hotspare.policy.limits import Limits, Resource, resources
from hotspare.policy.openings import Openings

HOUR = 3600.0
NOW = 1_800_000_000.0
STORE = "file:///srv/backup"


def asked(name: str, *, host: str = "a", repository: str = STORE, **more: object) -> Request:
    fields: dict[str, object] = {
        "id": name,
        "host": host,
        "resources": resources(host=host, repository=repository),
        "asked_at": NOW,
        "expected": 600.0,
    }
    return Request(**{**fields, **more})  # type: ignore[arg-type]


def begun(admission: Admission, now: float = NOW) -> list[str]:
    return [grant.request.id for grant in admission.grants(now)]


def with_requests(*requests: Request, limits: Limits | None = None) -> Admission:
    admission = Admission(limits or Limits(host=1))
    for request in requests:
        admission.ask(request)
    return admission


def test_the_fastest_goes_first_and_the_slot_is_given_on() -> None:
    admission = with_requests(asked("slow", rate=10.0), asked("fast", rate=90.0), asked("new"))
    assert begun(admission) == ["fast"]
    assert begun(admission) == []
    assert admission.why_waiting("slow", NOW) == "host a has 1 of 1 runs"
    admission.finish("fast")
    assert begun(admission) == ["slow"]


def test_an_rpo_at_risk_goes_before_speed_and_priority() -> None:
    soon, sooner = NOW + HOUR, NOW + 0.5 * HOUR
    admission = with_requests(
        asked("fast", rate=90.0, priority=9, deadline=NOW + 24 * HOUR),
        asked("soon", deadline=soon, expected=2400.0),
        asked("sooner", deadline=sooner, expected=60.0),
        limits=Limits(host=3),
    )
    grants = admission.grants(NOW)
    # What counts is when it has to begin: the one with the later deadline takes longer.
    assert [grant.request.id for grant in grants] == ["soon", "sooner", "fast"]
    assert [grant.because for grant in grants] == ["its RPO is at risk"] * 2 + ["it is through fastest"]


def test_a_machine_without_any_point_is_urgent() -> None:
    admission = with_requests(asked("fast", rate=90.0), asked("bare", deadline=-inf))
    grants = admission.grants(NOW)
    assert [(grant.request.id, grant.because) for grant in grants] == [
        ("bare", "it has no restore point yet")
    ]


def test_every_kind_of_limit_holds() -> None:
    limits = Limits(host=9, pool=2, link=1, repository=9, mover=9, named={"pool ssd": 1})
    admission = Admission(limits)
    for number in range(4):
        taken = resources(host="a", repository=STORE, pools=["ssd" if number < 2 else "disks"])
        admission.ask(asked(f"pool{number}", resources=taken))
        linked = resources(host="a", repository=STORE, links=["wan"])
        admission.ask(asked(f"link{number}", resources=linked))
    assert begun(admission) == ["link0", "pool0", "pool2", "pool3"]


def test_a_limit_of_nothing_lets_nothing_begin_and_holds_up_nobody() -> None:
    limits = Limits(host=1, repository=1, named={"host a": 0})
    admission = with_requests(asked("a1", deadline=-inf), asked("b1", host="b"), limits=limits)
    assert begun(admission) == ["b1"]
    assert admission.why_waiting("a1", NOW) == "host a has 0 of 0 runs"


def test_what_an_urgent_run_waits_for_is_held_for_it() -> None:
    # Its host is full, and its repository has one place left, which a faster machine would take for ever.
    admission = with_requests(asked("first"), limits=Limits(host=1, repository=2))
    assert begun(admission) == ["first"]
    admission.ask(asked("urgent", deadline=NOW))
    admission.ask(asked("fast", host="b", rate=90.0))
    assert begun(admission) == []
    admission.finish("first")
    assert begun(admission) == ["urgent", "fast"]


def test_only_the_first_in_line_holds() -> None:
    admission = with_requests(asked("first"), limits=Limits(host=1, repository=3))
    assert begun(admission) == ["first"]
    for number in range(5):
        admission.ask(asked(f"urgent{number}", deadline=NOW))
    admission.ask(asked("fast", host="b", rate=90.0))
    assert begun(admission) == ["fast"]


def test_windows_are_kept_and_a_run_has_to_fit() -> None:
    window = Openings((NOW + HOUR,), (NOW + 2 * HOUR,))
    admission = with_requests(asked("one", openings=window, expected=0.4 * HOUR))
    assert begun(admission, NOW) == []
    assert admission.why_waiting("one", NOW) == "its window is closed"
    assert begun(admission, NOW + 1.7 * HOUR) == []
    assert admission.why_waiting("one", NOW + 1.7 * HOUR) == "the rest of its window is too short for it"
    assert begun(admission, NOW + 1.5 * HOUR) == ["one"]


def test_a_run_that_is_longer_than_any_window_begins_early_in_one() -> None:
    window = Openings((NOW,), (NOW + 2 * HOUR,))
    assert begun(with_requests(asked("long", openings=window, expected=9 * HOUR)), NOW + 1.1 * HOUR) == []
    assert begun(with_requests(asked("long", openings=window, expected=9 * HOUR)), NOW + 0.9 * HOUR) == [
        "long"
    ]


def test_windows_are_broken_for_a_promise_only_where_that_is_allowed_and_never_in_a_blackout() -> None:
    closed, blackout = Openings((), ()), Openings((NOW,), (NOW + HOUR,))
    late = NOW + 600.0
    assert begun(with_requests(asked("kept", openings=closed, deadline=late))) == []
    allowed = asked("broken", openings=closed, deadline=late, may_break_openings=True)
    assert begun(with_requests(allowed), NOW - 1801) == []
    assert begun(with_requests(allowed), NOW - 1799) == ["broken"]
    # A window that opens in time is waited for.
    opens = Openings((NOW - 60,), (NOW + HOUR,))
    in_time = asked("in time", openings=opens, deadline=late, may_break_openings=True)
    assert begun(with_requests(in_time), NOW - 600) == []
    assert begun(with_requests(in_time), NOW - 60) == ["in time"]
    dark = asked("dark", openings=closed, deadline=late, may_break_openings=True, blackouts=blackout)
    admission = with_requests(dark)
    assert begun(admission) == []
    assert admission.why_waiting("dark", NOW) == "there is a blackout"
    assert begun(admission, NOW + HOUR) == ["dark"]


def test_a_host_whose_guests_are_slow_gets_nothing_until_they_recover() -> None:
    admission = with_requests(asked("a1"), asked("b1", host="b"))
    admission.latency("a", 2.5, NOW)
    assert begun(admission) == ["b1"]
    assert admission.why_waiting("a1", NOW) == "the guests of a are slower than usual"
    admission.latency("a", 1.8, NOW + 60)  # not well yet: no back and forth around one limit
    assert begun(admission, NOW + 60) == []
    admission.latency("a", 1.2, NOW + 120)
    assert begun(admission, NOW + 120) == ["a1"]


def test_a_host_that_is_slow_for_hours_gets_what_is_urgent_one_at_a_time() -> None:
    admission = with_requests(
        asked("u1", deadline=NOW), asked("u2", deadline=NOW), asked("calm", rate=9.0), limits=Limits(host=5)
    )
    admission.latency("a", 3.0, NOW)
    assert begun(admission, NOW + HOUR) == []
    assert begun(admission, NOW + 2 * HOUR) == ["u1"]
    admission.finish("u1")
    assert begun(admission, NOW + 2 * HOUR) == ["u2"]


def test_asking_again_keeps_the_place_and_withdrawing_gives_it_up() -> None:
    admission = with_requests(asked("one", rate=1.0), asked("two", rate=2.0))
    assert begun(admission) == ["two"]
    admission.ask(asked("two"))
    assert [request.id for request in admission.waiting] == ["one"]
    admission.withdraw("one")
    admission.withdraw("nobody")
    admission.finish("nobody")
    admission.finish("two")
    assert begun(admission) == []
    assert not admission.running
    assert admission.taken(Resource("host", "a")) == 0


# What holds whatever happens: machines of random needs ask again as soon as they may, the quickest the most.

HOSTS, STORES, POOLS = ("a", "b", "c"), ("s", "t"), ("p", "q")
LONGEST = 1800.0
MACHINES = st.lists(
    st.fixed_dictionaries(
        {
            "host": st.sampled_from(HOSTS),
            "repository": st.sampled_from(STORES),
            "pools": st.sets(st.sampled_from(POOLS), max_size=2),
            "seconds": st.sampled_from([300.0, 900.0, LONGEST]),
            "rate": st.floats(0.0, 100.0),
            "priority": st.integers(-2, 2),
            "rpo": st.sampled_from([inf, inf, 600.0, 4 * HOUR, -24 * HOUR]),
        }
    ),
    min_size=1,
    max_size=10,
)
LIMITS = st.builds(Limits, host=st.integers(1, 2), pool=st.integers(1, 3), repository=st.integers(1, 3))


@settings(deadline=None, max_examples=30)
@given(MACHINES, LIMITS, st.integers(0, 2**32))
def test_limits_are_never_exceeded_and_nobody_starves(
    machines: list[dict[str, Any]], limits: Limits, seed: int
) -> None:
    chance = random.Random(seed)
    patience = Patience(risk_margin=300.0, waiting=HOUR)
    admission = Admission(limits, patience)
    ends: dict[str, float] = {}
    since: dict[str, float] = {}
    # Those ahead of a run that has become urgent asked before; each is through once before it asks again.
    bound = patience.waiting + (len(machines) + 1) * LONGEST

    def ask(number: int, now: float) -> None:
        machine = machines[number]
        taken = resources(host=machine["host"], repository=machine["repository"], pools=machine["pools"])
        since[str(number)] = now
        admission.ask(
            Request(
                id=str(number),
                host=machine["host"],
                resources=taken,
                asked_at=now,
                deadline=now + machine["rpo"],
                expected=machine["seconds"],
                rate=machine["rate"],
                priority=machine["priority"],
            )
        )

    now = NOW
    for number in range(len(machines)):
        ask(number, now)
    while now < NOW + 10 * HOUR:
        for grant in admission.grants(now):
            assert now - since[grant.request.id] <= bound
            ends[grant.request.id] = now + chance.uniform(200.0, machines[int(grant.request.id)]["seconds"])
        for kind, names in (("host", HOSTS), ("repository", STORES), ("pool", POOLS)):
            for name in names:
                resource = Resource(kind, name)  # type: ignore[arg-type]
                running = sum(resource in request.resources for request in admission.running)
                assert admission.taken(resource) == running <= limits.of(resource)
        assert all(now - since[request.id] <= bound for request in admission.waiting)
        # Nothing lies idle: whoever waits is kept by a limit that is reached, or by somebody urgent.
        assert admission.running or not admission.waiting
        first = min(ends, key=ends.__getitem__)
        now = max(now, ends.pop(first))
        admission.finish(first)
        ask(int(first), now)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.floats(0, 47), st.floats(0.2, 6)), max_size=5),
    st.lists(
        st.tuples(st.floats(0, 40), st.floats(0.1, 3), st.sampled_from([inf, 2.0, 20.0]), st.booleans()),
        min_size=1,
        max_size=12,
    ),
)
def test_windows_are_only_left_for_a_promise_that_would_break(
    windows: list[tuple[float, float]], runs: list[tuple[float, float, float, bool]]
) -> None:
    starts: list[float] = []
    ends: list[float] = []
    for start, length in sorted(windows):
        if not ends or NOW + start * HOUR > ends[-1]:
            starts.append(NOW + start * HOUR)
            ends.append(NOW + (start + length) * HOUR)
    openings = Openings(tuple(starts), tuple(ends))
    admission = Admission(Limits(host=3))
    coming = sorted(enumerate(runs), key=lambda pair: pair[1][0])
    ending: list[tuple[float, str]] = []
    for tick in range(12 * 48):
        now = NOW + tick * 300.0
        for when, name in list(ending):
            if when <= now:
                ending.remove((when, name))
                admission.finish(name)
        while coming and NOW + coming[0][1][0] * HOUR <= now:
            number, (_, hours, rpo, may) = coming.pop(0)
            admission.ask(
                asked(
                    str(number),
                    asked_at=now,
                    openings=openings,
                    expected=hours * HOUR,
                    deadline=now + rpo * HOUR,
                    may_break_openings=may,
                )
            )
        for grant in admission.grants(now):
            request = grant.request
            ending.append((now + request.expected, request.id))
            if openings.at(now) is None:
                assert request.may_break_openings
                assert request.deadline - request.expected <= now + admission.patience.risk_margin
