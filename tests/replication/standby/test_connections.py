"""Who may write to a replica's disks, and how long: connections of before, and how durable writes are."""

from contextlib import closing, suppress

import pytest

from hotspare.block.nbd.client import NbdClient
from hotspare.errors import PermissionRefused, SourceLost
from hotspare.replication.link.tls import Identity
from hotspare.replication.model import Tenure
from hotspare.replication.standby.replica import Replica
from tests.replication.standby.disks import opened


def overwrite(disk: NbdClient) -> None:
    for _ in range(100):
        disk.write(0, b"old" * 1024)
        disk.flush()


def test_how_durable_writes_are_stays_unless_it_is_said_otherwise(replica: Replica, tenure: Tenure) -> None:
    durable = replica.serve(tenure, durable=True)
    assert replica.serve(tenure) == durable
    assert durable.durable
    relaxed = replica.serve(tenure, durable=False)
    assert set(relaxed.names.values()).isdisjoint(durable.names.values())


def test_a_write_of_an_earlier_connection_never_arrives_once_the_disks_are_served_anew(
    replica: Replica, tenure: Tenure, source: Identity, standby: Identity
) -> None:
    """The network had held it up: it would undo what the source has brought up to date meanwhile."""
    held_up = opened(replica, tenure, source, standby, "vda")
    before = replica.serve(tenure)
    replica.check_session(before.session)
    after = replica.serve(tenure, anew=True)
    with closing(opened(replica, tenure, source, standby, "vda")) as disk:
        disk.write(0, b"new" * 1024)
        with pytest.raises(SourceLost):
            overwrite(held_up)
        with suppress(SourceLost):
            held_up.close()
        found = bytearray(3 * 1024)
        disk.read_into(0, memoryview(found))
    assert bytes(found) == b"new" * 1024
    assert set(after.names.values()).isdisjoint(before.names.values())
    replica.check_session(after.session)
    with pytest.raises(PermissionRefused, match="earlier connection"):
        replica.check_session(before.session)
    replica.close_exports()
    with pytest.raises(PermissionRefused, match="earlier connection"):
        replica.check_session(after.session)
