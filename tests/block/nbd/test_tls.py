"""Connections with TLS, to a real storage daemon of QEMU that asks for certificates of its clients."""

import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.tls import Tls
from hotspare.errors import HotspareError
from hotspare.replication.link.tls import Identity
from hotspare.units import MIB
from tests.replication.interval.replicas import HereStandby

SIZE = 5 * MIB


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HereStandby]:
    with HereStandby(tmp_path_factory.mktemp("tls") / "replica") as standby:
        standby.receive({"vda": SIZE})
        yield standby


def connect(served: HereStandby, tls: Tls | None) -> NbdClient:
    exports = served.exports()
    return NbdClient.connect(("127.0.0.1", exports.port), exports.names["vda"], timeout=10, tls=tls)


def trusted(served: HereStandby) -> ssl.SSLContext:
    identity = served.identity
    return identity.client_context(identity.id)


def test_reads_writes_and_clones(served: HereStandby) -> None:
    content = bytes(range(256)) * (3 * MIB // 256)
    with closing(connect(served, Tls(trusted(served), served.identity.id))) as client:
        assert client.size == SIZE
        client.write(512, content)
        client.write_zeroes(MIB, 64 * 1024)
        client.flush()
        expected = bytearray(512) + content
        expected[MIB : MIB + 64 * 1024] = bytes(64 * 1024)
        with closing(client.clone()) as other:
            read = bytearray(len(expected))
            other.read_into(0, memoryview(read))
    assert read == expected


def test_a_server_of_another_name_is_not_believed(served: HereStandby) -> None:
    with pytest.raises(HotspareError, match="certificate"):
        connect(served, Tls(trusted(served), "another"))


def test_a_server_that_nobody_vouches_for_is_not_believed(served: HereStandby, tmp_path: Path) -> None:
    stranger = Identity.open(tmp_path / "stranger")
    with pytest.raises(HotspareError, match="certificate"):
        connect(served, Tls(stranger.client_context(stranger.id), served.identity.id))


def test_without_tls_nothing_is_served(served: HereStandby) -> None:
    with pytest.raises(HotspareError):
        connect(served, None)


def test_a_client_without_a_certificate_is_refused(served: HereStandby) -> None:
    context = ssl.create_default_context(cadata=served.identity.authority.decode())
    with pytest.raises(HotspareError), closing(connect(served, Tls(context, served.identity.id))) as client:
        client.read_into(0, memoryview(bytearray(512)))
