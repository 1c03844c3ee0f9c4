"""A storage daemon that stands still, and goes on when nobody waits for it any more."""

import os
import signal
from contextlib import closing
from typing import Any

import pytest

from hotspare.errors import SourceLost
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import Tenure
from hotspare.replication.standby.replica import Replica
from hotspare.replication.standby.storage_daemon import StorageDaemon
from tests.replication.standby.disks import opened
from tests.replication.standby.test_replica import point


def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_command(
    replica: Replica, tenure: Tenure
) -> None:
    replica.serve(tenure)
    daemon = replica.daemon()
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        with pytest.raises(SourceLost):
            daemon.ask("query-block-exports", timeout=0.2)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    version: dict[str, Any] = daemon.ask("query-version")
    assert set(version) == {"qemu", "package"}
    assert {export["id"] for export in daemon.ask("query-block-exports")} == {"disk-vda", "disk-vdb"}


def test_one_that_hangs_when_a_point_is_made_does_not_put_images_on_top_afterwards(
    replica: Replica, tenure: Tenure, source: Identity, standby: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes would go to files that nobody knows of."""
    with closing(opened(replica, tenure, source, standby, "vda")) as disk:
        disk.write(0, b"kept" * 1024)
        disk.flush()
    daemon, before = replica.daemon(), replica.state.chains
    defaults = StorageDaemon.ask.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout", 0.5)
    os.kill(daemon.pid, signal.SIGSTOP)
    with pytest.raises(SourceLost):
        replica.make_point(point("p1"))
    assert not daemon.is_running
    assert replica.points() == []
    monkeypatch.setitem(defaults, "timeout", 30.0)
    with closing(opened(replica, tenure, source, standby, "vda")) as disk:
        found = bytearray(4096)
        disk.read_into(0, memoryview(found))
    assert bytes(found) == b"kept" * 1024
    assert [chain.layers[0] for chain in replica.state.chains] == [chain.layers[0] for chain in before]
    assert {path.name for path in replica.folder.glob("*.qcow2")} >= {
        layer for chain in replica.state.chains for layer in chain.layers
    }
    assert replica.make_point(point("p2")).id == "p2"
