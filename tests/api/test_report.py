"""The route of reports: the sums of the command, and of what a caller sees only."""

from typing import Any

import pytest

from hotspare.access.roles import Grant, Role
from tests.api.world import World, get


def test_it_is_the_report_of_the_command(world: World) -> None:
    world.estate.look_again()
    day = get(world.client("viewer"), "/report", period="day")
    command = world.program.expect("report", "--period", "day", "-o", "json").document()
    for document in (day, command):
        for time in ("since", "until"):
            del document[time]
    assert day == command
    web = next(one for one in day["machines"] if one["machine"] == "web")
    assert web["runs_ok"] >= 1
    assert web["protected_bytes"] == (world.program.folder / "images/web.raw").stat().st_size
    assert (web["points_unmeasured"], day["totals"]["points_unmeasured"]) == (0, 0)
    assert 0 < web["points_bytes"] <= web["bytes_stored"]


def test_periods_are_read_as_they_are_written(world: World) -> None:
    client = world.client()
    ends: dict[str, Any] = {"from": "2020-01-01", "to": "2020-02-01T06:00+01:00"}
    past = get(client, "/report", **ends)
    assert (past["since"], past["until"]) == ("2020-01-01T00:00:00.000Z", "2020-02-01T05:00:00.000Z")
    assert (past["totals"]["runs_ok"], past["totals"]["points"]) == (0, 0)


@pytest.mark.parametrize(
    "query",
    [
        {"period": "year"},
        {"from": "yesterday"},
        {"from": "2020-02-01", "to": "2020-01-01"},
        {"from": "2999-01-01"},
    ],
)
def test_what_is_no_period_is_refused(world: World, query: dict[str, Any]) -> None:
    assert get(world.client(), "/report", 422, **query)["code"] == "usage"


def test_who_is_restricted_gets_the_report_of_what_is_theirs(world: World) -> None:
    whole = get(world.client(), "/report")
    uri = whole["machines"][0]["platform"]
    assert get(world.client("elsewhere"), "/report")["machines"] == []
    world.access.users.add("hoster", "correct horse battery", [Grant(role=Role.VIEWER, platform=uri)])
    try:
        own = get(world.client("hoster"), "/report")
    finally:
        world.access.users.remove("hoster")
    assert [one["machine"] for one in own["machines"]] == [one["machine"] for one in whole["machines"]]
    assert own["totals"]["runs_ok"] == whole["totals"]["runs_ok"]
