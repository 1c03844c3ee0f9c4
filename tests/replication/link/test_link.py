"""Agents that speak to each other: who gets in, what is asked and answered, what is lost."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from hotspare.errors import HotspareError, NoSpace, PermissionRefused, PlatformUnavailable, UsageError
from hotspare.replication.link.client import LocalClient, PeerClient
from hotspare.replication.link.server import Caller, Server, Services
from hotspare.replication.link.tls import Identity
from hotspare.replication.link.wire import (
    LOCAL,
    PEER,
    LinkProtocolError,
    PeerUnavailable,
    Verb,
    decode_lengths,
    encode_frame,
)
from hotspare.replication.model import Peer


class Text(msgspec.Struct, frozen=True):
    text: str


ECHO = Verb("test.echo", Text, Text)
WHO = Verb("test.who", Text, Text)
FAIL = Verb("test.fail", Text, Text)
BREAK = Verb("test.break", Text, Text)
SLOW = Verb("test.slow", Text, Text)
FOR_LOCAL = Verb("test.local", Text, Text, LOCAL)
FOR_PEERS = Verb("test.peers", Text, Text, PEER)


def fail(_caller: Caller, asked: Text, _body: bytes) -> Text:
    raise NoSpace(asked.text, meaning="nothing was lost", hint="make room")


def break_down(_caller: Caller, _asked: Text, _body: bytes) -> Text:
    raise KeyError("oops")


def be_slow(_caller: Caller, asked: Text, _body: bytes) -> Text:
    time.sleep(1.5)
    return asked


@pytest.fixture
def services() -> Services:
    made = Services()
    made.register(ECHO, lambda _caller, asked, body: (asked, body[::-1]))
    made.register(WHO, lambda caller, _asked, _body: Text(f"{caller.who} {caller.id}".strip()))
    made.register(FAIL, fail)
    made.register(BREAK, break_down)
    made.register(SLOW, be_slow)
    made.register(FOR_LOCAL, lambda _caller, asked, _body: asked)
    made.register(FOR_PEERS, lambda _caller, asked, _body: asked)
    return made


@pytest.fixture
def here(tmp_path: Path) -> Identity:
    return Identity.open(tmp_path / "here", "here")


@pytest.fixture
def there(tmp_path: Path) -> Identity:
    return Identity.open(tmp_path / "there", "there")


@pytest.fixture
def server(services: Services, there: Identity, tmp_path: Path) -> Iterator[Server]:
    running = Server(services, there, tmp_path / "agent.sock", "127.0.0.1", 0)
    running.start()
    yield running
    running.close()


def paired(here: Identity, there: Identity, port: int) -> PeerClient:
    there.trust(Peer(id=here.id, name="here", address=""), here.authority)
    peer = Peer(id=there.id, name="there", address="127.0.0.1", port=port)
    here.trust(peer, there.authority)
    return PeerClient(here, peer)


def test_a_paired_agent_is_answered_and_known(here: Identity, there: Identity, server: Server) -> None:
    with paired(here, there, server.port) as client:
        assert client.exchange(ECHO, Text("hello"), b"abc") == (Text("hello"), b"cba")
        assert client.call(WHO, Text("")) == Text(f"peer {here.id}")


def test_the_command_line_is_answered(server: Server, tmp_path: Path) -> None:
    with LocalClient(tmp_path) as client:
        assert client.call(WHO, Text("")) == Text("local")


def test_verbs_are_for_some_only(here: Identity, there: Identity, server: Server, tmp_path: Path) -> None:
    with paired(here, there, server.port) as peer, LocalClient(tmp_path) as local:
        assert peer.call(FOR_PEERS, Text("x")) == local.call(FOR_LOCAL, Text("x"))
        with pytest.raises(PermissionRefused, match="not for a peer"):
            peer.call(FOR_LOCAL, Text("x"))
        with pytest.raises(PermissionRefused, match="not for a local"):
            local.call(FOR_PEERS, Text("x"))


def test_one_that_is_not_trusted_gets_no_answer(here: Identity, there: Identity, server: Server) -> None:
    peer = Peer(id=there.id, name="there", address="127.0.0.1", port=server.port)
    here.trust(peer, there.authority)  # but not the other way round
    with PeerClient(here, peer) as client, pytest.raises(HotspareError, match=r"does not (know|answer)"):
        client.call(ECHO, Text("x"))


def test_one_who_only_says_to_be_another_is_found_out(
    here: Identity, there: Identity, server: Server, tmp_path: Path
) -> None:
    third = Identity.open(tmp_path / "third", "third")
    there.trust(Peer(id=here.id, name="here", address=""), here.authority)
    # Who answers there has a certificate of "there", and not of the one that is expected.
    peer = Peer(id=third.id, name="third", address="127.0.0.1", port=server.port)
    here.trust(peer, third.authority)
    with PeerClient(here, peer) as client, pytest.raises(PermissionRefused, match="not the agent"):
        client.call(ECHO, Text("x"))


def test_an_authority_can_vouch_for_its_own_host_only(here: Identity, there: Identity) -> None:
    with pytest.raises(UsageError, match="not its own"):
        here.trust(Peer(id="0123456789abcdef", name="other", address="x"), there.authority)


def test_errors_keep_their_class_and_words(here: Identity, there: Identity, server: Server) -> None:
    with paired(here, there, server.port) as client:
        with pytest.raises(NoSpace) as caught:
            client.call(FAIL, Text("the disk is full"))
        assert (caught.value.what, caught.value.meaning) == ("the disk is full", "nothing was lost")
        assert caught.value.hint == "make room"
        with pytest.raises(HotspareError, match="KeyError"):
            client.call(BREAK, Text("x"))
        assert client.call(ECHO, Text("still there")) == Text("still there")


def test_a_verb_that_the_other_side_does_not_know(here: Identity, there: Identity, server: Server) -> None:
    unknown = Verb("test.unknown", Text, Text)
    with paired(here, there, server.port) as client, pytest.raises(UsageError, match="does not know"):
        client.call(unknown, Text("x"))


def test_one_that_is_too_slow_is_given_up(here: Identity, there: Identity, server: Server) -> None:
    with paired(here, there, server.port) as client:
        with pytest.raises(PeerUnavailable):
            client.call(SLOW, Text("x"), timeout=0.3)
        assert client.call(ECHO, Text("next")) == Text("next")  # and not the answer that came late


def test_a_call_in_its_midst_can_be_broken_off(here: Identity, there: Identity, server: Server) -> None:
    with paired(here, there, server.port) as client:
        client.call(ECHO, Text("connect"))
        server.close()
        breaker = threading.Timer(0.2, client.hang_up)
        breaker.start()
        with pytest.raises(PeerUnavailable):
            client.call(SLOW, Text("x"), timeout=20)
        breaker.join()


def test_an_agent_that_was_started_anew_is_connected_to_again(
    services: Services, here: Identity, there: Identity, tmp_path: Path
) -> None:
    first = Server(services, there, tmp_path / "agent.sock", "127.0.0.1", 0)
    first.start()
    with paired(here, there, first.port) as client:
        assert client.call(ECHO, Text("a")) == Text("a")
        first.close()
        again = Server(services, there, tmp_path / "agent.sock", "127.0.0.1", first.port)
        again.start()
        assert client.call(ECHO, Text("b")) == Text("b")
        again.close()


def test_nobody_there(here: Identity, there: Identity, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
    with paired(here, there, port) as client, pytest.raises(PeerUnavailable, match="does not answer"):
        client.call(ECHO, Text("x"))
    with LocalClient(tmp_path) as local, pytest.raises(PlatformUnavailable, match="replica agent"):
        local.call(ECHO, Text("x"))


def test_rubbish_ends_the_connection_and_nothing_else(
    here: Identity, there: Identity, server: Server, tmp_path: Path
) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as rude:
        rude.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(tmp_path / "agent.sock"))
        rude.sendall(b"\xff" * 64)
        with suppress(ConnectionResetError):
            assert rude.recv(1) == b""
    with paired(here, there, server.port) as client:
        assert client.call(ECHO, Text("x")) == Text("x")


def test_frames_have_bounds() -> None:
    with pytest.raises(LinkProtocolError):
        decode_lengths(b"\xff" * 8)
    with pytest.raises(ValueError, match="bytes"):
        encode_frame(Text("x" * (5 << 20)), 0)


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    first, again = Identity.open(tmp_path / "id", "a"), Identity.open(tmp_path / "id", "b")
    assert (first.id, first.name, first.fingerprint) == (again.id, again.name, again.fingerprint)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "id").glob("*key*"))
