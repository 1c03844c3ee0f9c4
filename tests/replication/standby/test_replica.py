"""A replica with a real storage daemon: points, space given back, kills, who may write."""

import os
import signal
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hotspare.block.nbd.client import NbdClient
from hotspare.block.qemu import QemuNbd, create_image
from hotspare.errors import HotspareError, PermissionRefused, PointNotFound, SourceLost, UsageError
from hotspare.platforms.platform import Machine, PowerState
from hotspare.platforms.replica.record import ReplicaDisk, ReplicaPoint
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import Peer, Tenure
from hotspare.replication.standby import chain as chain_module
from hotspare.replication.standby import replica as replica_module
from hotspare.replication.standby.replica import Replica
from hotspare.replication.standby.storage_daemon import PID_FILE
from tests.replication.standby.disks import MIB, SIZES, opened

MACHINE = Machine(id="uuid", name="web", platform="qemu:///system", state=PowerState.RUNNING)


def point(name: str) -> ReplicaPoint:
    now = datetime.now(UTC)
    return ReplicaPoint(
        id=name,
        taken_at=now,
        finished_at=now,
        consistency="crash",
        machine=MACHINE,
        disks=tuple(ReplicaDisk(name=disk, size=size) for disk, size in SIZES.items()),
    )


def fill(replica: Replica, tenure: Tenure, source: Identity, standby: Identity, value: int) -> None:
    """Write a number all over the first MiB of the first disk, and to a place of its own on the second."""
    with closing(opened(replica, tenure, source, standby, "vda")) as disk:
        disk.write(0, bytes([value]) * MIB)
        disk.flush()
    with closing(opened(replica, tenure, source, standby, "vdb")) as disk:
        disk.write(value * 65536, bytes([value]) * 65536)
        disk.flush()


def write_for_long(disk: NbdClient) -> None:
    for _ in range(100):
        disk.write(0, bytes(MIB))
        disk.flush()


def content(replica: Replica, name: str, disk: str) -> bytes:
    """Read a disk of a point as anybody would who follows the images' headers."""
    (image,) = (one.image for one in replica.point(name).disks if one.name == disk)
    with (
        QemuNbd(replica.folder / image, "qcow2", allow_references=True, force_share=True) as served,
        closing(served.connect()) as reader,
    ):
        buffer = bytearray(reader.size)
        reader.read_into(0, memoryview(buffer))
    return bytes(buffer)


def expected(value: int) -> dict[str, bytes]:
    vda = bytes([value]) * MIB + bytes(SIZES["vda"] - MIB)
    vdb = bytearray(SIZES["vdb"])
    for earlier in range(1, value + 1):
        vdb[earlier * 65536 : (earlier + 1) * 65536] = bytes([earlier]) * 65536
    return {"vda": vda, "vdb": bytes(vdb)}


def test_points_show_the_machine_at_their_instants_also_after_others_are_removed(
    replica: Replica, tenure: Tenure, source: Identity, standby: Identity
) -> None:
    for value in range(1, 6):
        fill(replica, tenure, source, standby, value)
        replica.make_point(point(f"p{value}"))
    replica.remove_points({"p1", "p3", "p4"})
    assert [one.id for one in replica.points()] == ["p2", "p5"]
    for value in (2, 5):
        for disk in SIZES:
            assert content(replica, f"p{value}", disk) == expected(value)[disk]
    # Base, the point, and what is written now: everything else was given back.
    assert [len(chain.layers) for chain in replica.state.chains] == [3, 3]
    used = {layer for chain in replica.state.chains for layer in chain.layers}
    assert {path.name for path in replica.folder.glob("*.qcow2")} == used


def test_asking_twice_for_a_point_makes_one(replica: Replica) -> None:
    assert replica.make_point(point("p")) == replica.make_point(point("p"))
    assert len(replica.points()) == 1


def test_points_in_use_stay(replica: Replica) -> None:
    replica.make_point(point("p1"))
    replica.make_point(point("p2"))
    replica.pin("p1", "a rehearsal")
    replica.remove_points({"p1"})
    assert [one.id for one in replica.points()] == ["p1", "p2"]
    replica.unpin("p1")
    replica.remove_points({"p1"})
    assert [one.id for one in replica.points()] == ["p2"]


def test_a_killed_daemon_starts_a_new_generation_and_what_was_on_top_is_not_whole(
    replica: Replica, tenure: Tenure, source: Identity, standby: Identity
) -> None:
    fill(replica, tenure, source, standby, 1)
    replica.make_point(point("p1"))
    replica.set_whole(True)
    before = replica.serve(tenure)
    with closing(opened(replica, tenure, source, standby, "vda")) as disk:
        os.kill(int((replica.folder / PID_FILE).read_text()), signal.SIGKILL)
        with pytest.raises(SourceLost):
            write_for_long(disk)
        assert not replica.answers(1)
        after = replica.serve(tenure)
        assert not replica.state.whole
        # Who was connected cannot go on as if nothing had happened.
        assert set(before.names.values()).isdisjoint(after.names.values())
    assert content(replica, "p1", "vda") == expected(1)["vda"]
    assert replica.newest_images()["vda"].name == replica.point("p1").disks[0].image


def test_an_orderly_end_of_the_daemon_keeps_what_is_on_top_whole(
    replica: Replica, tenure: Tenure, source: Identity, standby: Identity
) -> None:
    fill(replica, tenure, source, standby, 1)
    replica.set_whole(True)
    replica.stop_daemon()
    replica.serve(tenure)
    assert replica.state.whole
    fill(replica, tenure, source, standby, 2)


def test_no_point_is_made_of_what_a_daemon_that_was_killed_may_have_lost(
    replica: Replica, tenure: Tenure, source: Identity, standby: Identity
) -> None:
    """Nobody has noticed yet that it is dead: what is noted still says that all is whole."""
    fill(replica, tenure, source, standby, 1)
    replica.set_whole(True)
    daemon = int((replica.folder / PID_FILE).read_text())
    os.kill(daemon, signal.SIGKILL)
    os.waitid(os.P_PID, daemon, os.WEXITED | os.WNOWAIT)
    assert replica.state.whole
    with pytest.raises(HotspareError, match="not whole"):
        replica.make_point(point("p1"), of_whole=True)
    assert replica.points() == []
    assert not replica.state.whole


def test_images_made_ready_before_are_the_ones_that_a_point_takes(
    replica: Replica, tenure: Tenure, source: Identity, standby: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(replica, tenure, source, standby, 1)
    replica.make_ready()
    replica.make_ready()
    assert len(list(replica.folder.glob("spares/*"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(replica_module, "new_layer", None)  # nothing takes time now
        replica.make_point(point("p1"))
    fill(replica, tenure, source, standby, 2)
    replica.make_ready()
    replica.make_point(point("p2"))
    for value in (1, 2):
        for disk in SIZES:
            assert content(replica, f"p{value}", disk) == expected(value)[disk]
    # What an agent has left that was killed is not used, and not left for ever.
    replica.make_ready()
    again = Replica(replica.folder, standby)
    replica.let_go()
    again.make_ready()
    assert len(list(again.folder.glob("spares/*"))) == 2
    again.let_go()


def test_the_next_agent_goes_on_with_the_daemon(
    replica: Replica, tenure: Tenure, source: Identity, standby: Identity
) -> None:
    with closing(opened(replica, tenure, source, standby, "vda")) as disk:
        exports = replica.serve(tenure)
        replica.set_whole(True)
        replica.let_go()
        again = Replica(replica.folder, standby)
        assert again.serve(tenure) == exports
        assert again.state.whole
        again.make_point(point("p1"))
        disk.write(0, b"x" * 4096)
        disk.flush()
        again.let_go()


@pytest.mark.parametrize("step", ["noted", "used"])
def test_an_agent_that_dies_while_a_point_is_made(
    replica: Replica,
    tenure: Tenure,
    source: Identity,
    standby: Identity,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It dies after the new images were noted, or after they were put on top, and before there is a point."""
    fill(replica, tenure, source, standby, 1)
    really = chain_module.put_on_top

    class Died(BaseException):
        pass

    def die(*arguments: object) -> None:
        if step == "used":
            really(*arguments)  # type: ignore[arg-type]
        raise Died

    monkeypatch.setattr(replica_module, "put_on_top", die)
    monkeypatch.setattr(replica, "change", _until_images_are_noted(replica))
    with pytest.raises(Died):
        replica.make_point(point("p1"))
    monkeypatch.undo()
    replica.let_go()
    again = Replica(replica.folder, standby)
    fill(again, tenure, source, standby, 2)
    again.make_point(point("p2"))
    fill(again, tenure, source, standby, 3)
    again.make_point(point("p3"))
    again.remove_points({"p2"})
    assert [one.id for one in again.points()] == ["p3"]
    for disk in SIZES:
        assert content(again, "p3", disk) == expected(3)[disk]
    again.stop_daemon()


def _until_images_are_noted(replica: Replica) -> object:
    """Give what changes the state once, and is dead then."""
    really = replica.change
    calls: list[dict[str, object]] = []

    def change(**changes: object) -> None:
        if not calls:
            calls.append(changes)
            really(**changes)

    return change


def test_a_later_tenure_shuts_the_one_before_out(
    replica: Replica, tenure: Tenure, source: Identity, standby: Identity
) -> None:
    with closing(opened(replica, tenure, source, standby, "vda")) as disk:
        disk.write(0, b"x" * 4096)
        disk.flush()
        replica.pass_on(Tenure(epoch=2, holder=standby.id))
        with pytest.raises(SourceLost):
            write_for_long(disk)
    with pytest.raises(PermissionRefused, match="tenure"):
        replica.serve(tenure)
    with pytest.raises(PermissionRefused, match="tenure"):
        replica.pass_on(tenure)
    with pytest.raises(PermissionRefused, match="tenure"):
        replica.pass_on(Tenure(epoch=2, holder=source.id))


def test_a_stranger_cannot_connect(
    replica: Replica, tenure: Tenure, standby: Identity, tmp_path: Path
) -> None:
    stranger = Identity.open(tmp_path / "stranger", "stranger")
    stranger.trust(Peer(id=standby.id, name="standby", address=""), standby.authority)
    with pytest.raises(HotspareError):
        opened(replica, tenure, stranger, standby, "vda").flush()


def test_a_point_is_made_while_images_are_merged(
    replica: Replica, tenure: Tenure, source: Identity, standby: Identity
) -> None:
    for value in range(1, 6):
        fill(replica, tenure, source, standby, value)
        replica.make_point(point(f"p{value}"))
    merging = threading.Thread(target=replica.remove_points, args=({"p1", "p2", "p3", "p4"},))
    merging.start()
    for value in range(6, 9):
        replica.make_point(point(f"p{value}"))
        time.sleep(0.02)
    merging.join()
    replica.remove_points({"p6", "p7"})
    assert content(replica, "p5", "vdb") == expected(5)["vdb"]
    assert content(replica, "p8", "vda") == expected(5)["vda"]


def test_disks_may_come_go_and_grow(replica: Replica, tenure: Tenure) -> None:
    assert replica.receive(SIZES) == {"vda", "vdb"}
    replica.serve(tenure)
    replica.make_point(point("p1"))
    replica.set_whole(True)
    assert replica.receive({"vda": SIZES["vda"], "vdc": 2 * MIB}) == {"vdc"}
    assert not replica.state.whole
    assert {path.name.split(".")[0] for path in replica.folder.glob("*.qcow2")} == {"vda", "vdb", "vdc"}
    replica.remove_points({"p1"})
    assert {path.name.split(".")[0] for path in replica.folder.glob("*.qcow2")} == {"vda", "vdc"}
    assert replica.receive({"vda": 16 * MIB, "vdc": 2 * MIB}) == {"vda", "vdc"}


def test_there_is_nothing_to_start_before_the_first_copy_is_whole(replica: Replica) -> None:
    with pytest.raises(PointNotFound, match="not been whole"):
        replica.newest_images()


def test_an_image_that_was_restored_before_is_what_a_disk_begins_with(
    replica: Replica, tenure: Tenure, source: Identity, standby: Identity, tmp_path: Path
) -> None:
    seed = tmp_path / "seed"
    seed.mkdir()
    create_image(seed / "vdc.qcow2", "qcow2", 2 * MIB)
    create_image(seed / "vdd.qcow2", "qcow2", 1 * MIB)
    sizes = {**SIZES, "vdc": 2 * MIB}
    assert replica.receive(sizes, seed) == {"vda", "vdb"}  # the third has to be compared
    assert not (seed / "vdc.qcow2").exists()
    with closing(opened(replica, tenure, source, standby, "vdc")) as disk:
        assert disk.size == 2 * MIB
    with pytest.raises(UsageError, match="holds 1048576 bytes"):
        replica.receive({**sizes, "vdd": 2 * MIB}, seed)
    assert (seed / "vdd.qcow2").exists()
