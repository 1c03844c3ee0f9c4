"""The commands about failovers, asked of real agents of which none has a machine."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hotspare.cancellation import Cancellation
from hotspare.replication import pairing
from hotspare.replication.agent import Agent
from hotspare.replication.lease.fencing import Fencing
from hotspare.replication.link.client import LocalClient
from hotspare.replication.model import Mode, Phase, Protection, Status
from hotspare.replication.parts import PARTS
from tests.cli.program import Program
from tests.cli.test_json_output import differences, examples, shape

MACHINE_ID = "5f3a0c5e-9d55-4c43-8f6b-0d6b6f0c7f11"
MAC = "52:54:00:00:00:01"
LIBVIRT = f"""
<node><domain type='test'>
  <name>web</name><uuid>{MACHINE_ID}</uuid><memory>1024</memory><os><type>hvm</type></os>
  <devices><interface type='network'><mac address='{MAC}'/><source network='lan'/></interface></devices>
</domain></node>"""
"""For libvirt's own driver for tests, which has what is in a file."""


class IdleRunner:
    """Looks after nothing."""

    def __init__(self, _agent: Agent, protection: Protection) -> None:
        self._protection = protection

    def run(self, cancellation: Cancellation) -> None:
        cancellation.wait()

    def status(self) -> Status:
        return Status(protection=self._protection, phase=Phase.WAITING, since=0.0)

    def release(self) -> None:
        pass


@pytest.fixture
def states(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Three paired agents, and a protection of a machine that nobody can start."""
    (tmp_path / "libvirt.xml").write_text(LIBVIRT)
    with ExitStack() as stack:
        agents = {}
        for name in ("source", "standby", "witness"):
            agent = Agent(
                tmp_path / name,
                dict.fromkeys(Mode, IdleRunner),
                PARTS,
                name=name,
                address="127.0.0.1",
                port=0,
            )
            agent.start()
            stack.callback(agent.close)
            agents[name] = agent
        for one, other in (("source", "standby"), ("source", "witness"), ("standby", "witness")):
            with LocalClient(tmp_path / one) as here, LocalClient(tmp_path / other) as there:
                token = there.call(pairing.OFFER, pairing.Offer(address="127.0.0.1")).token
                here.call(pairing.ACCEPT, pairing.Accept(token=token, address="127.0.0.1"))
        protection = Protection(
            id="0123456789abcdef",
            machine_id=MACHINE_ID,
            machine="web",
            mode=Mode.SYNC,
            source=agents["source"].identity.id,
            standby=agents["standby"].identity.id,
            witness=agents["witness"].identity.id,
            platform=f"test://{tmp_path}/libvirt.xml",
        )
        for name in ("source", "standby"):
            agents[name].keep(protection)
        yield {name: tmp_path / name for name in agents}
    for name in agents:
        Fencing(tmp_path / name / "fences", protection.id, MACHINE_ID).quit()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_the_lease_of_a_machine(program: Program, states: dict[str, Path]) -> None:
    end = time.monotonic() + 90
    while True:
        lease = program.run("replica", "lease", "web", "--state", states["source"], "-o", "json").document()
        if all(lease["answers"].values()) or time.monotonic() > end:
            break
    assert lease["type"] == "lease"
    assert (lease["epoch"], lease["holder"], lease["armed"]) == (1, lease["me"], False)
    assert len(lease["answers"]) == 2
    assert all(lease["answers"].values())
    said = program.run("replica", "lease", "web", "--state", states["standby"]).out
    assert "Epoch 1: the other host may run web." in said
    assert "does not take over by itself" in said


def test_the_documents_are_as_described(program: Program, states: dict[str, Path]) -> None:
    described = examples()
    described["lease"]["answers"] = {}  # by ids of hosts
    asked = (["lease", "web"], ["list"], ["pair", "--list"], ["pair", "--address", "::1"])
    for words in asked:
        state = ["--state", str(states["source"]), "-o", "json"]
        printed = program.run("replica", *words, *state).document()
        kind = printed["type"]
        if kind == "lease":
            printed["answers"] = {}
        assert differences(shape(described[kind]), shape(printed), kind) == []


def test_the_policy(program: Program, states: dict[str, Path]) -> None:
    def policy(*words: str) -> dict[str, Any]:
        return program.run(
            "replica", "policy", "web", *words, "--state", states["source"], "-o", "json"
        ).document()

    set_up = policy("--map-network", "lan=lan2", "--address", "52:54:00:00:00:01=10.0.0.5/24,10.0.0.1")
    assert set_up["terms"] == {"lease": 4.0, "beat": 0.5, "silence": 1.5, "drift": 0.02, "stop": 1.0}
    assert set_up["network_map"] == {"lan": "lan2"}
    assert set_up["addresses"] == {"52:54:00:00:00:01": "10.0.0.5/24 via 10.0.0.1"}
    assert not set_up["automatic"]
    automatic = policy("--automatic")
    assert automatic == {**set_up, "automatic": True}
    end = time.monotonic() + 90
    while not list(states["source"].glob("fences/*.fence")):
        assert time.monotonic() < end, "nobody would stop the machine"
        time.sleep(0.05)
    refused = program.run("replica", "policy", "web", "--map-network", "lan", "--state", states["source"])
    assert (refused.status, "NAME=VALUE" in refused.err) == (2, True)
    both = ("--map-network", "lan=lan2", "--map-network", "dmz=lan2")
    refused = program.run("replica", "policy", "web", *both, "--state", states["source"])
    assert (refused.status, "Two networks would both become lan2" in refused.err) == (2, True)
    assert policy() == automatic
    changed = policy("--map-mac", "all=new")
    assert changed == {**automatic, "mac_map": {MAC: changed["mac_map"][MAC]}}
    assert changed["mac_map"][MAC].startswith("02:")
    words = ("replica", "policy", "web", "--state")
    assert changed["mac_map"][MAC] in program.run(*words, states["source"]).out
    refused = program.run(*words, states["source"], "--map-mac", f"{MAC}=01:00:5e:00:00:01")
    assert (refused.status, "multicast" in refused.err) == (2, True)
    refused = program.run(*words, states["standby"], "--map-mac", "all=keep")
    assert (refused.status, "does not run on this host" in refused.err) == (2, True)
    assert policy("--map-mac", "all=keep") == automatic


@pytest.mark.parametrize("command", ["failover", "rehearse", "failback"])
def test_what_needs_a_replica_is_refused_without(
    program: Program, states: dict[str, Path], command: str
) -> None:
    on_source = program.run("replica", command, "web", "--state", states["source"], "-o", "json").error()
    assert (on_source["code"], on_source["hint"]) == ("usage", "Run this on the standby")
    on_standby = program.run("replica", command, "web", "--state", states["standby"], "-o", "json").error()
    assert on_standby["code"] == "no-machine"


def test_only_who_holds_a_machine_can_turn_its_protection(program: Program, states: dict[str, Path]) -> None:
    refused = program.run("replica", "reprotect", "web", "--state", states["standby"], "-o", "json").error()
    assert "was not taken over by this host" in refused["what"]
