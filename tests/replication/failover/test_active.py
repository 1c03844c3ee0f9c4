"""What a machine runs on that was taken over: an image upon its replica, which keeps all points."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hotspare.errors import PointNotFound
from hotspare.platforms.platform import Machine, PowerState
from hotspare.platforms.replica.record import ReplicaDisk, ReplicaPoint
from hotspare.replication.agent import Agent
from hotspare.replication.failover.active import (
    drop_active,
    end_active,
    fold_back,
    make_active,
    note_defined,
    read_active,
    runs_upon_replica,
)
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import Mode, Protection, Tenure
from hotspare.replication.standby.chain import Chain, new_layer
from hotspare.replication.standby.replica import Replica

MIB = 1024 * 1024
MACHINE = Machine(id="uuid", name="web", platform="qemu:///system", state=PowerState.RUNNING)
_BEGIN = datetime(2026, 11, 23, tzinfo=UTC)


def _write(image: Path, byte: int, at: int) -> None:
    words = ["qemu-io", "-f", "qcow2", "-c", f"write -P {byte} {at} 65536", str(image)]
    subprocess.run(words, check=True, capture_output=True)


def _read(image: Path, at: int) -> int:
    copy = image.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, copy], check=True)
    byte = copy.read_bytes()[at]
    copy.unlink()
    return byte


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    """A replica with the points one and two, and writes since: 1, 2 and 3, each at a place of its own."""
    made = Replica.create(
        tmp_path / "replica",
        Identity.open(tmp_path / "standby", "standby"),
        protection="p",
        machine_id="uuid",
        machine_name="web",
        tenure=Tenure(epoch=1, holder="source"),
        port=1,
    )
    layers: list[str] = []
    for number in (1, 2, 3):
        layers.append(new_layer(made.folder, "vda", 4 * MIB, layers[-1] if layers else None))
        _write(made.folder / layers[-1], number, number * MIB)
    made.change(chains=(Chain(name="vda", size=4 * MIB, layers=tuple(layers)),), whole=True)
    made.write_points([_point(name, layer) for name, layer in zip(("one", "two"), layers[:2], strict=True)])
    return made


def _point(name: str, image: str) -> ReplicaPoint:
    taken = _BEGIN + timedelta(minutes=len(name))
    disk = ReplicaDisk(name="vda", size=4 * MIB, image=image)
    return ReplicaPoint(
        id=name, taken_at=taken, finished_at=taken, consistency="crash", machine=MACHINE, disks=(disk,)
    )


def test_it_begins_with_all_writes_and_leaves_the_points_alone(tmp_path: Path, replica: Replica) -> None:
    active = make_active(tmp_path, replica, 2)
    (disk,) = active.disks
    image = replica.folder / disk.image
    assert active.newest
    assert [_read(image, at * MIB) for at in (1, 2, 3)] == [1, 2, 3]
    _write(image, 9, 0)
    assert [_read(replica.folder / disk.below, at) for at in (0, 3 * MIB)] == [0, 3]
    assert read_active(tmp_path) == active
    fold_back(tmp_path, replica)
    (chain,) = replica.state.chains
    assert chain.top == disk.image
    assert len(chain.layers) == 4
    assert [point.id for point in replica.points()] == ["one", "two"]
    assert not replica.state.whole
    assert read_active(tmp_path) is None


def test_a_replica_that_is_not_whole_begins_with_its_newest_point(tmp_path: Path, replica: Replica) -> None:
    half_shipped = replica.state.chains[0].top
    replica.change(whole=False)
    active = make_active(tmp_path, replica, 2)
    assert (active.newest, active.point) == (False, "two")
    image = replica.folder / active.disks[0].image
    assert [_read(image, at * MIB) for at in (1, 2, 3)] == [1, 2, 0]
    fold_back(tmp_path, replica)
    assert not (replica.folder / half_shipped).exists()
    assert replica.state.chains[0].layers[-1] == active.disks[0].image


def test_from_an_earlier_point_later_ones_are_dropped_only_on_the_way_back(
    tmp_path: Path, replica: Replica
) -> None:
    active = make_active(tmp_path, replica, 2, "one")
    image = replica.folder / active.disks[0].image
    assert [_read(image, at * MIB) for at in (1, 2, 3)] == [1, 0, 0]
    assert [point.id for point in replica.points()] == ["one", "two"]
    fold_back(tmp_path, replica)
    assert [point.id for point in replica.points()] == ["one"]
    assert [_read(replica.folder / replica.state.chains[0].top, at * MIB) for at in (1, 2)] == [1, 0]


def test_another_state_takes_the_place_of_the_one_that_it_runs_from(tmp_path: Path, replica: Replica) -> None:
    first = make_active(tmp_path, replica, 2, "one")
    _write(replica.folder / first.disks[0].image, 9, 0)
    note_defined(tmp_path, first)
    drop_active(tmp_path, replica)
    drop_active(tmp_path, replica)  # as after an interruption
    assert read_active(tmp_path) is None
    assert not (replica.folder / first.disks[0].image).exists()
    again = make_active(tmp_path, replica, 2)
    assert (again.newest, again.defined) == (True, False)
    image = replica.folder / again.disks[0].image
    assert [_read(image, at) for at in (0, MIB, 2 * MIB, 3 * MIB)] == [0, 1, 2, 3]
    assert [point.id for point in replica.points()] == ["one", "two"]


def test_nothing_is_made_without_a_whole_state(tmp_path: Path, replica: Replica) -> None:
    replica.change(whole=False)
    replica.write_points([])
    with pytest.raises(PointNotFound):
        make_active(tmp_path, replica, 2)
    assert read_active(tmp_path) is None


def test_what_has_ended_says_so(tmp_path: Path, replica: Replica) -> None:
    end_active(tmp_path)
    assert not runs_upon_replica(tmp_path)
    make_active(tmp_path, replica, 2)
    assert runs_upon_replica(tmp_path)
    end_active(tmp_path)
    assert not runs_upon_replica(tmp_path)
    active = read_active(tmp_path)
    assert active is not None
    assert active.ended


def test_an_agent_that_forgets_leaves_the_disks_of_a_machine_alone(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "state", {}, (), name="standby", address="127.0.0.1", port=0)
    try:
        for name in ("here", "elsewhere"):
            protection = Protection(
                id=name, machine_id="uuid", machine="web", mode=Mode.SYNC, source="a", standby="b"
            )
            agent.keep(protection)
            replica = agent.make_replica(protection, Tenure(epoch=1, holder="a"))
            replica.receive({"vda": MIB})
            replica.change(whole=True)
            replica.write_points([_point("one", replica.state.chains[0].top)])
            make_active(agent.folder_of(name), replica, 2)
            if name == "elsewhere":
                end_active(agent.folder_of(name))
            agent.forget(name)
            assert bool(list(replica.folder.glob("*.qcow2"))) is (name == "here")
        assert agent.protections() == []
    finally:
        agent.close()
