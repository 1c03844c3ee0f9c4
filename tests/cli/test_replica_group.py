"""The commands about groups, asked of real agents whose machines nobody looks after."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotspare.cli.replica_documents import group_point_fields
from hotspare.replication import pairing
from hotspare.replication.agent import Agent
from hotspare.replication.failover.report import Step, new_report
from hotspare.replication.groups.failover import GroupReport, Outcome
from hotspare.replication.groups.rehearsal import GroupRehearsal
from hotspare.replication.groups.whole import GroupPoint
from hotspare.replication.lease.fencing import Fencing
from hotspare.replication.link.client import LocalClient
from hotspare.replication.model import Membership, Mode, Protection
from hotspare.replication.parts import PARTS
from tests.cli.program import Program
from tests.cli.test_json_output import differences, examples, shape
from tests.cli.test_replica_failover import IdleRunner

MACHINES = {"db": Mode.SYNC, "web": Mode.SYNC, "cold": Mode.INTERVAL}


@pytest.fixture
def states(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Two paired agents, and some protections without machines; the standby knows of a group."""
    with ExitStack() as stack:
        agents = {}
        for name in ("standby", "source"):  # the source ends first: it speaks to the other
            runners = dict.fromkeys(Mode, IdleRunner)
            agent = Agent(tmp_path / name, runners, PARTS, name=name, address="127.0.0.1", port=0)
            agent.start()
            stack.callback(agent.close)
            agents[name] = agent
        with LocalClient(tmp_path / "source") as here, LocalClient(tmp_path / "standby") as there:
            token = there.call(pairing.OFFER, pairing.Offer(address="127.0.0.1")).token
            here.call(pairing.ACCEPT, pairing.Accept(token=token, address="127.0.0.1"))
        for number, (machine, mode) in enumerate(MACHINES.items()):
            protection = Protection(
                id=f"{number:016x}",
                machine_id=f"5f3a0c5e-9d55-4c43-8f6b-{number:012x}",
                machine=machine,
                mode=mode,
                source=agents["source"].identity.id,
                standby=agents["standby"].identity.id,
            )
            agents["source"].keep(protection)
            place = Membership(name="shop") if mode is Mode.SYNC else None
            agents["standby"].keep(msgspec.structs.replace(protection, group=place))
        yield {name: tmp_path / name for name in agents}
    for number in range(len(MACHINES)):
        Fencing(tmp_path / "source" / "fences", f"{number:016x}", "").quit()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_a_group_is_made_changed_and_left(program: Program, states: dict[str, Path]) -> None:
    def group(*words: str) -> dict[str, Any]:
        state = ["--state", str(states["source"]), "-o", "json"]
        return program.run("replica", "group", *words, *state).document()

    made = group("set", "shop", "web", "db", "--every", "30s")
    assert differences(shape(examples()["replica-groups"]), shape(made), "replica-groups") == []
    (shop,) = made["groups"]
    assert [one["machine"] for one in shop["machines"]] == ["web", "db"]
    assert (shop["interval"], shop["here"], shop["points"]) == (30.0, True, 0)
    (shop,) = group("set", "shop", "--order", "db,web", "--delay", "db=20s", "--wait", "web=start")["groups"]
    places = [(one["machine"], one["wait"], one["delay"]) for one in shop["machines"]]
    assert places == [("db", "agent", 20.0), ("web", "start", 0.0)]
    listed = program.run("replica", "list", "--state", states["source"], "-o", "json").document()
    assert {one["machine"]: one["group"] for one in listed["replicas"]} == {
        "db": "shop",
        "web": "shop",
        "cold": None,
    }
    assert group("leave", "web")["machine"] == "web"
    (shop,) = group("list")["groups"]
    assert [one["machine"] for one in shop["machines"]] == ["db"]


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["set", "shop", "cold"], "usage", "only machines in sync mode can be in a group"),
        (["set", "shop", "nobody"], "no-machine", "No protections"),
        (["set", "shop", "db", "--order", "web"], "usage", "is no member"),
        (["set", "shop", "db", "--delay", "db"], "usage", "MACHINE=VALUE"),
        (["set", "shop", "db", "--wait", "db=long"], "usage", "agent or start"),
        (["set", "shop", "db", "--pause-limit", "10s"], "usage", "two seconds"),
        (["set", "nobody"], "no-machine", "No machine of a group"),
        (["leave", "db"], "usage", "is in no group"),
        (["failover", "nobody"], "no-machine", "No machine of a group"),
    ],
)
def test_what_makes_no_sense_is_refused(
    program: Program, states: dict[str, Path], words: list[str], code: str, why: str
) -> None:
    refused = program.run("replica", "group", *words, "--state", states["source"], "-o", "json").error()
    assert refused["code"] == code
    assert why in refused["what"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["failover", "shop"], "no-machine"),
        (["failover", "shop", "--point", "2026"], "no-point"),
        (["failover", "shop", "--point", "2026", "--planned"], "usage"),
        (["failback", "shop"], "no-machine"),
        (["rehearse", "shop"], "no-point"),
    ],
)
def test_what_needs_replicas_is_refused_without(
    program: Program, states: dict[str, Path], words: list[str], code: str
) -> None:
    error = program.run("replica", "group", *words, "--state", states["standby"], "-o", "json").error()
    assert error["code"] == code


def test_the_standby_lists_what_it_has(program: Program, states: dict[str, Path]) -> None:
    state = ["--state", str(states["standby"]), "-o", "json"]
    (shop,) = program.run("replica", "group", "list", *state).document()["groups"]
    assert (shop["here"], shop["newest_point"], shop["longest_pause"]) == (False, None, None)
    assert program.run("replica", "group", "points", "shop", *state).document()["points"] == []
    turned = program.run("replica", "group", "reprotect", "shop", *state)
    assert turned.status == 3
    assert "was not taken over by this host" in turned.out


def test_the_documents_are_as_described() -> None:
    described = examples()
    report = new_report("rehearsal", "db", "0")
    report.point_taken_at = datetime.now(UTC)
    report.steps.append(Step(name="start it", seconds=0.1))
    rehearsal = GroupRehearsal(group="shop", point="p", seconds=1.0, reports=(report,))
    moved = GroupReport(group="shop", point="", began=1.0)
    moved.machines.append(Outcome(machine="db", protection="0", moved=True, answered=True))
    point = GroupPoint(id="p", group="shop", taken_at=datetime.now(UTC), members=("0",), paused_seconds=0.1)
    for kind, fields in (
        ("group-rehearsal", msgspec.to_builtins(rehearsal)),
        ("group-failover", {"dry_run": False, **msgspec.to_builtins(moved)}),
        ("group-points", {"points": [group_point_fields(point)]}),
    ):
        printed = {"type": kind, "v": 1, **fields}
        assert differences(shape(described[kind]), shape(printed), kind) == []
