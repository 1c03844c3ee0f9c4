"""A replica with two disks, and both of its hosts' identities."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.replication.link.tls import Identity
from hotspare.replication.model import Peer, Tenure
from hotspare.replication.standby.replica import Replica
from tests.replication.standby.disks import SIZES


@pytest.fixture
def source(tmp_path: Path) -> Identity:
    return Identity.open(tmp_path / "source", "source")


@pytest.fixture
def standby(tmp_path: Path, source: Identity) -> Identity:
    made = Identity.open(tmp_path / "standby", "standby")
    made.trust(Peer(id=source.id, name="source", address=""), source.authority)
    source.trust(Peer(id=made.id, name="standby", address="127.0.0.1"), made.authority)
    return made


@pytest.fixture
def tenure(source: Identity) -> Tenure:
    return Tenure(epoch=1, holder=source.id)


@pytest.fixture
def replica(tmp_path: Path, standby: Identity, tenure: Tenure) -> Iterator[Replica]:
    with socket.create_server(("", 0)) as unused:
        port: int = unused.getsockname()[1]
    made = Replica.create(
        tmp_path / "replica",
        standby,
        protection="p",
        machine_id="uuid",
        machine_name="web",
        tenure=tenure,
        port=port,
    )
    made.receive(SIZES)
    yield made
    made.remove()
