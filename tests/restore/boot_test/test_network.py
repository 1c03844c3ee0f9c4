"""The isolated network, with cards that the tests hold in their hands."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.restore.boot_test.network import Card, IsolatedNetwork, _neighbour
from hotspare.restore.boot_test.packets import (
    BROADCAST,
    OUR_MAC,
    Frame,
    parse_arp_question,
    parse_dhcp_question,
    parse_frame,
    parse_tcp_answer,
    sender_address,
    tcp_refusal,
)

SECONDS = 10.0
ADDRESS = IPv4Address("192.168.77.5")


class Cable:
    """The other end of a card's socket, as QEMU holds it."""

    def __init__(self, path: Path, mac: str, card: Card) -> None:
        self.card = card
        self.mac = bytes.fromhex(mac.replace(":", ""))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))
        self.socket.settimeout(SECONDS)

    def send(self, kind: int, payload: bytes, target: bytes = BROADCAST) -> None:
        data = Frame(target, self.mac, kind, payload).to_bytes()
        self.socket.sendall(len(data).to_bytes(4, "big") + data)

    def receive(self) -> Frame:
        size = int.from_bytes(self._exactly(4), "big")
        frame = parse_frame(self._exactly(size))
        assert frame is not None
        return frame

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, "the network hung up"
            data += piece
        return data

    def hears_nothing(self) -> bool:
        self.socket.settimeout(0.2)
        try:
            with suppress(TimeoutError):
                return not self.socket.recv(1)
            return True
        finally:
            self.socket.settimeout(SECONDS)

    def ask_who_has(self, wanted: str, sender: str) -> None:
        addresses = (socket.inet_aton(sender), bytes(6), socket.inet_aton(wanted))
        self.send(0x0806, struct.pack(">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, self.mac, *addresses))


MAC_A, MAC_B, MAC_C = "52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:0c"


@pytest.fixture
def network() -> Iterator[IsolatedNetwork]:
    with IsolatedNetwork() as network:
        yield network


Plug = Callable[..., Cable]


@pytest.fixture
def plug(network: IsolatedNetwork, tmp_path: Path) -> Iterator[Plug]:
    """Plugs a card in, and gives what its machine holds of it."""
    cables: list[Cable] = []

    def plug_in(mac: str, segment: str = "lan") -> Cable:
        path = tmp_path / mac[-2:]
        card = network.plug(segment, mac, path)
        cables.append(Cable(path, mac, card))
        return cables[-1]

    yield plug_in
    for cable in cables:
        cable.socket.close()


def test_whoever_is_looked_for_answers(network: IsolatedNetwork, plug: Plug) -> None:
    cable = plug(MAC_A)
    cable.ask_who_has("192.168.77.1", str(ADDRESS))
    answer = cable.receive()
    assert (answer.target, answer.source, answer.kind) == (cable.mac, OUR_MAC, 0x0806)
    assert answer.payload[14:18] == socket.inet_aton("192.168.77.1")
    assert network.addresses(cable.card) == [ADDRESS]


def test_nobody_says_that_an_address_is_taken(plug: Plug) -> None:
    """A system asks for its own address before it uses it, and would not use it upon an answer."""
    cable = plug(MAC_A)
    cable.ask_who_has(str(ADDRESS), "0.0.0.0")
    cable.ask_who_has(str(ADDRESS), str(ADDRESS))  # an announcement
    assert cable.hears_nothing()


def test_machines_of_a_segment_reach_each_other_and_no_others(plug: Plug) -> None:
    a, b, c = plug(MAC_A), plug(MAC_B), plug(MAC_C, "dmz")
    b.ask_who_has("192.168.77.1", "192.168.77.6")
    assert a.receive().source == b.mac
    a.ask_who_has("192.168.77.6", str(ADDRESS))
    assert b.receive().payload[24:28] == socket.inet_aton("192.168.77.6")
    assert a.hears_nothing()  # that address is a machine's: it has to answer itself
    b.send(0x86DD, b"only for you", target=a.mac)
    assert a.receive().payload == b"only for you"
    assert c.hears_nothing()
    a.ask_who_has("192.168.77.99", str(ADDRESS))
    assert a.hears_nothing()  # perhaps a machine that has said nothing so far
    a.ask_who_has("192.168.77.99", str(ADDRESS))
    assert a.receive().source == OUR_MAC


def dhcp_question(kind: int, mac: bytes, wished: bytes = b"") -> bytes:
    head = struct.pack(">BBBB4sHH16s16s192s", 1, 1, 6, 0, b"4242", 0, 0, b"", mac.ljust(16, b"\0"), b"")
    options = bytes.fromhex("63825363") + bytes([0, 53, 1, kind])
    options += (bytes([50, 4]) + wished if wished else b"") + b"\xff"
    datagram = struct.pack(">HHHH", 68, 67, 8 + len(head + options), 0) + head + options
    total = 20 + len(datagram)
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, total, 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4) + datagram


def test_a_machine_gets_the_address_that_it_had(plug: Plug) -> None:
    cable = plug(MAC_A)
    for asked, answered, wished, leased in (
        (1, 2, b"", "10.68.0.10"),
        (3, 5, socket.inet_aton("172.16.3.9"), "172.16.3.9"),
    ):
        cable.send(0x0800, dhcp_question(asked, cable.mac, wished))
        message = cable.receive().payload[28:]
        assert message[4:8] == b"4242"
        assert message[16:20] == socket.inet_aton(leased)
        assert message[240:243] == bytes([53, 1, answered])


def serve(cable: Cable, flags: int) -> None:
    """Answer the first TCP packet as a machine would: 0x12 opens, 0x14 refuses."""
    asked = cable.receive()
    source, target = asked.payload[12:16], asked.payload[16:20]
    ports, sequence = asked.payload[20:24], int.from_bytes(asked.payload[24:28], "big")
    segment = ports[2:] + ports[:2] + struct.pack(">IIBBHHH", 7, sequence + 1, 0x50, flags, 100, 0, 0)
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, target, source)
    cable.send(0x0800, head + segment, target=asked.source)


@pytest.mark.parametrize(("flags", "seen"), [(0x12, "open"), (0x14, "refused")])
def test_a_port_is_knocked_at(network: IsolatedNetwork, plug: Plug, flags: int, seen: str) -> None:
    cable = plug(MAC_A)
    machine = threading.Thread(target=serve, args=(cable, flags))
    machine.start()
    assert network.knock(cable.card, ADDRESS, 80, SECONDS) == seen
    machine.join()


def test_a_machine_that_is_not_there_is_silent(network: IsolatedNetwork, tmp_path: Path) -> None:
    card = network.plug("lan", MAC_A, tmp_path / "a")
    assert network.knock(card, ADDRESS, 80, 0.2) == "silent"


def test_a_machine_that_takes_nothing_holds_nobody_up(plug: Plug) -> None:
    a, b = plug(MAC_A), plug(MAC_B)
    b.ask_who_has("192.168.77.1", "192.168.77.6")
    a.receive()
    for _ in range(8000):
        a.send(0x86DD, bytes(1400), target=b.mac)  # 11 MB that b never reads
    a.ask_who_has("192.168.77.1", str(ADDRESS))
    a.ask_who_has("192.168.77.1", str(ADDRESS))
    assert a.receive().source == OUR_MAC


def test_what_is_no_qemu_is_hung_up_on(plug: Plug) -> None:
    cable = plug(MAC_A)
    cable.socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert cable.socket.recv(1) == b""


@given(st.binary(max_size=600), st.sampled_from([0x0800, 0x0806]))
def test_no_frame_of_a_guest_is_too_strange(payload: bytes, kind: int) -> None:
    frame = parse_frame(Frame(OUR_MAC, OUR_MAC, kind, payload).to_bytes())
    assert frame is not None
    for read in (sender_address, parse_arp_question, parse_dhcp_question, parse_tcp_answer, tcp_refusal):
        read(frame)


@given(st.ip_addresses(v=4))
def test_a_neighbour_is_near_and_usable(address: IPv4Address) -> None:
    taken = {IPv4Address(int(address) + 1)} if int(address) < 2**32 - 1 else set()
    near = _neighbour(address, taken)
    assert near != address
    assert near not in taken
    assert int(near) & 255 not in {0, 255}
