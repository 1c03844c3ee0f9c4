"""The few packets that the isolated network speaks: ARP, DHCP, and the first of a TCP connection.

See RFC 826 (ARP), RFC 2131 (DHCP), RFC 791 (IP), RFC 9293 (TCP). Guests are not trusted: whatever is
malformed is read as nothing.
"""

import struct
from ipaddress import IPv4Address
from typing import NamedTuple

OUR_MAC = bytes.fromhex("026873000001")
"""Of the network itself; the second digit says that no maker has given it."""
BROADCAST = b"\xff" * 6
NOBODY = IPv4Address(0)

_ETHERNET = struct.Struct(">6s6sH")
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_IP = struct.Struct(">BBHHHBBH4s4s")
_TCP = struct.Struct(">HHIIBBHHH")
_UDP = struct.Struct(">HHHH")
_BOOTP = struct.Struct(">BBBB4sHH4s4s4s4s16s192s4s")
_IS_ARP, _IS_IP = 0x0806, 0x0800
_IS_TCP, _IS_UDP = 6, 17
_SYN, _RST, _ACK = 2, 4, 16
_SERVER_PORT, _CLIENT_PORT = 67, 68
_COOKIE = bytes.fromhex("63825363")
_DISCOVER, _OFFER, _REQUEST, _ACKNOWLEDGED = 1, 2, 3, 5
_LEASE_SECONDS = 86_400


class Frame(NamedTuple):
    """An Ethernet frame."""

    target: bytes
    source: bytes
    kind: int
    payload: bytes

    def to_bytes(self) -> bytes:
        """Give what is sent."""
        return _ETHERNET.pack(self.target, self.source, self.kind) + self.payload


class ArpQuestion(NamedTuple):
    """Somebody asks who has an address."""

    mac: bytes
    sender: IPv4Address
    """``NOBODY`` of one who wants to see whether he may take the address."""
    wanted: IPv4Address


class DhcpQuestion(NamedTuple):
    """Somebody asks for an address."""

    kind: int
    transaction: bytes
    mac: bytes
    wished: IPv4Address
    """What it had before; ``NOBODY`` if it does not say."""


class TcpAnswer(NamedTuple):
    """What came back upon the first packet of a connection."""

    address: IPv4Address
    port: int
    """Of the one that answers."""
    our_port: int
    opened: bool
    """Else it was refused."""
    sequence: int


def parse_frame(data: bytes) -> Frame | None:
    """Read a frame."""
    if len(data) < _ETHERNET.size:
        return None
    target, source, kind = _ETHERNET.unpack_from(data)
    return Frame(target, source, kind, data[_ETHERNET.size :])


def sender_address(frame: Frame) -> IPv4Address | None:
    """Give the address that a frame says it comes from."""
    if frame.kind == _IS_ARP and len(frame.payload) >= _ARP.size:
        return _usable(IPv4Address(_ARP.unpack_from(frame.payload)[6]))
    if frame.kind == _IS_IP and len(frame.payload) >= _IP.size:
        return _usable(IPv4Address(frame.payload[12:16]))
    return None


def _usable(address: IPv4Address) -> IPv4Address | None:
    odd = address.is_unspecified or address.is_multicast or address.is_loopback or address.is_reserved
    return None if odd else address


def parse_arp_question(frame: Frame) -> ArpQuestion | None:
    """Read a question for an address that is not the sender's own."""
    if frame.kind != _IS_ARP or len(frame.payload) < _ARP.size:
        return None
    hardware, protocol, _, _, operation, mac, sender, _, wanted = _ARP.unpack_from(frame.payload)
    if (hardware, protocol, operation) != (1, _IS_IP, 1) or sender == wanted:
        return None
    return ArpQuestion(mac, IPv4Address(sender), IPv4Address(wanted))


def arp_answer(question: ArpQuestion) -> bytes:
    """Say that we have the address."""
    packet = _ARP.pack(
        *(1, _IS_IP, 6, 4, 2, OUR_MAC, question.wanted.packed, question.mac, question.sender.packed)
    )
    return Frame(question.mac, OUR_MAC, _IS_ARP, packet).to_bytes()


def parse_dhcp_question(frame: Frame) -> DhcpQuestion | None:
    """Read a client's discovery or request."""
    datagram = _udp_payload(frame)
    if datagram is None or datagram[0] != _SERVER_PORT or len(datagram[1]) < _BOOTP.size:
        return None
    fields = _BOOTP.unpack_from(datagram[1])
    operation, transaction, own, mac, cookie = fields[0], fields[4], fields[7], fields[11][:6], fields[13]
    if operation != 1 or cookie != _COOKIE:
        return None
    options = _options(datagram[1][_BOOTP.size :])
    kind = options.get(53, b"\0")[0] if options.get(53) else 0
    if kind not in {_DISCOVER, _REQUEST}:
        return None
    wished = options.get(50, b"")
    return DhcpQuestion(kind, transaction, mac, IPv4Address(wished if len(wished) == 4 else own))


def dhcp_answer(question: DhcpQuestion, given: IPv4Address, ours: IPv4Address) -> bytes:
    """Offer an address in a network of 256, or confirm it; we are its router."""
    kind = _OFFER if question.kind == _DISCOVER else _ACKNOWLEDGED
    nothing = bytes(4)
    message = _BOOTP.pack(
        *(2, 1, 6, 0, question.transaction, 0, 0x8000, nothing, given.packed, ours.packed, nothing),
        *(question.mac, b"", _COOKIE),
    )
    options = {
        53: bytes([kind]),
        54: ours.packed,
        51: _LEASE_SECONDS.to_bytes(4, "big"),
        1: bytes([255, 255, 255, 0]),
        3: ours.packed,
    }
    message += b"".join(bytes([code, len(value)]) + value for code, value in options.items()) + b"\xff"
    head = _UDP.pack(_SERVER_PORT, _CLIENT_PORT, _UDP.size + len(message), 0)  # no checksum: allowed in IPv4
    packet = _ip_packet(_IS_UDP, ours, IPv4Address("255.255.255.255"), head + message)
    return Frame(BROADCAST, OUR_MAC, _IS_IP, packet).to_bytes()


def tcp_opening(
    mac: bytes, ours: IPv4Address, our_port: int, address: IPv4Address, port: int, sequence: int
) -> bytes:
    """Ask for a connection."""
    return _tcp_frame(mac, (ours, our_port), (address, port), sequence, 0, _SYN)


def tcp_refusal(frame: Frame) -> bytes | None:
    """Refuse a connection that a guest asks us for, so that it does not wait for an answer."""
    found = _tcp_segment(frame)
    if found is None or found.flags & (_SYN | _ACK | _RST) != _SYN:
        return None
    ours, theirs = (found.target, found.target_port), (found.source, found.source_port)
    return _tcp_frame(frame.source, ours, theirs, 0, (found.sequence + 1) % 2**32, _RST | _ACK)


def tcp_reset(mac: bytes, ours: IPv4Address, answer: TcpAnswer) -> bytes:
    """Give a connection up that was just opened."""
    sequence = answer.sequence
    return _tcp_frame(mac, (ours, answer.our_port), (answer.address, answer.port), sequence, 0, _RST)


def parse_tcp_answer(frame: Frame) -> TcpAnswer | None:
    """Read what somebody says to our asking for a connection."""
    found = _tcp_segment(frame)
    if found is None or not found.flags & (_RST | _SYN) or not found.flags & _ACK:
        return None
    opened = not found.flags & _RST
    return TcpAnswer(found.source, found.source_port, found.target_port, opened, found.acknowledged)


class _Segment(NamedTuple):
    source: IPv4Address
    source_port: int
    target: IPv4Address
    target_port: int
    sequence: int
    acknowledged: int
    flags: int


def _tcp_segment(frame: Frame) -> _Segment | None:
    packet = _ip_payload(frame, _IS_TCP)
    if packet is None or len(packet[2]) < _TCP.size:
        return None
    source, target, payload = packet
    source_port, target_port, sequence, acknowledged, _, flags, *_ = _TCP.unpack_from(payload)
    return _Segment(source, source_port, target, target_port, sequence, acknowledged, flags)


def _udp_payload(frame: Frame) -> tuple[int, bytes] | None:
    packet = _ip_payload(frame, _IS_UDP)
    if packet is None or len(packet[2]) < _UDP.size:
        return None
    return _UDP.unpack_from(packet[2])[1], packet[2][_UDP.size :]


def _ip_payload(frame: Frame, protocol: int) -> tuple[IPv4Address, IPv4Address, bytes] | None:
    if frame.kind != _IS_IP or len(frame.payload) < _IP.size:
        return None
    first, _, total, _, _, _, found, _, source, target = _IP.unpack_from(frame.payload)
    head = (first & 15) * 4
    if first >> 4 != 4 or found != protocol or not _IP.size <= head <= total <= len(frame.payload):
        return None
    return IPv4Address(source), IPv4Address(target), frame.payload[head:total]


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 1 < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return found


def _tcp_frame(
    mac: bytes,
    ours: tuple[IPv4Address, int],
    theirs: tuple[IPv4Address, int],
    sequence: int,
    acknowledged: int,
    flags: int,
) -> bytes:
    def head(checksum: int) -> bytes:
        window = 65535 if flags & _SYN else 0
        return _TCP.pack(ours[1], theirs[1], sequence, acknowledged, 5 << 4, flags, window, checksum, 0)

    counted = ours[0].packed + theirs[0].packed + struct.pack(">HH", _IS_TCP, _TCP.size)
    segment = head(_checksum(counted + head(0)))
    return Frame(mac, OUR_MAC, _IS_IP, _ip_packet(_IS_TCP, ours[0], theirs[0], segment)).to_bytes()


def _ip_packet(protocol: int, source: IPv4Address, target: IPv4Address, payload: bytes) -> bytes:
    def head(checksum: int) -> bytes:
        total = _IP.size + len(payload)
        return _IP.pack(0x45, 0, total, 0, 0, 64, protocol, checksum, source.packed, target.packed)

    return head(_checksum(head(0))) + payload


def _checksum(data: bytes) -> int:
    """Give the ones' complement sum of 16 bit words (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(word for (word,) in struct.iter_unpack(">H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
