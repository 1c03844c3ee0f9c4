"""A network of nothing but tested machines, in the memory of this process.

QEMU hands each Ethernet frame of a card to a unix socket of ours (``-netdev stream``: each frame behind its
length in four bytes), and gets from it what the card is to receive. There is no bridge, no address and no
route on this host, so nothing can leave: frames go to the other cards of the same segment, and to us.

We pretend to be whoever a machine looks for and does not find: its gateway, a name server. So a machine with
an address of its own works as it is, whatever that address. One that asks for an address is given the one it
had before, if it says so. Connections to the outside are refused at once, which is quicker than silence.
"""

import secrets
import selectors
import socket
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from hotspare.restore.boot_test.packets import (
    BROADCAST,
    NOBODY,
    OUR_MAC,
    ArpQuestion,
    DhcpQuestion,
    Frame,
    TcpAnswer,
    arp_answer,
    dhcp_answer,
    parse_arp_question,
    parse_dhcp_question,
    parse_frame,
    parse_tcp_answer,
    sender_address,
    tcp_opening,
    tcp_refusal,
    tcp_reset,
)
from hotspare.units import KIB, MIB

Knock = Literal["open", "refused", "silent"]

_LENGTH = 4
_FRAME_MAX = 128 * KIB
_WAITING_MAX = 4 * MIB
"""Bytes that may wait for a machine that does not take them; what comes later is lost, as on a real one."""
_AGAIN_SECONDS = 1.0
_ADDRESSES_MAX = 8
_QUESTIONS_MAX = 1024


@dataclass(eq=False)
class Card:
    """A network card, plugged in or not."""

    segment: str
    mac: bytes
    listening: socket.socket
    connection: socket.socket | None = None
    received: bytearray = field(default_factory=bytearray)
    waiting: bytearray = field(default_factory=bytearray)
    addresses: OrderedDict[IPv4Address, None] = field(default_factory=OrderedDict)
    """Those it was seen to use, the last one at the end."""


class IsolatedNetwork:
    """Carries the frames of all cards that were plugged in, in a thread of its own, until ``close``.

    A context manager. Its methods may be called by any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._cards: list[Card] = []
        self._questions: OrderedDict[tuple[bytes, IPv4Address], None] = OrderedDict()
        self._ours: set[IPv4Address] = set()
        self._answers: dict[int, TcpAnswer | None] = {}
        """By our port: what was answered to it."""
        self._answered = threading.Condition(self._lock)
        self._closed = False
        self._bell, self._rope = socket.socketpair()
        self._rope.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="isolated-network", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def plug(self, segment: str, mac: str, path: Path) -> Card:
        """Make the socket for one card.

        Args:
            segment: cards of one segment reach each other.
            mac: the card's hardware address.
            path: of the socket; who reaches it is in the network.

        Raises:
            OSError: it cannot be made.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(path))
            path.chmod(0o666)  # QEMU is another user; only it and we can enter the folder
            listening.listen(1)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
        card = Card(segment, bytes.fromhex(mac.replace(":", "")), listening)
        with self._lock:
            self._cards.append(card)
            self._selector.register(listening, selectors.EVENT_READ, card)
            self._ring()
        return card

    def addresses(self, card: Card) -> list[IPv4Address]:
        """Give the addresses that a card was seen to use, the last one first."""
        with self._lock:
            return list(reversed(card.addresses))

    def knock(self, card: Card, address: IPv4Address, port: int, seconds: float) -> Knock:
        """Ask a machine for a TCP connection, and give it up as soon as it is there.

        Args:
            card: of the machine.
            address: one of the machine's own.
            port: which.
            seconds: how long an answer is waited for.
        """
        ours = _neighbour(address, taken=self._taken(card))
        our_port = 20_000 + secrets.randbelow(40_000)
        sequence = secrets.randbelow(2**32)
        opening = tcp_opening(card.mac, ours, our_port, address, port, sequence)
        deadline = time.monotonic() + seconds
        with self._answered:
            self._ours.add(ours)
            self._answers[our_port] = None
            try:
                while (answer := self._answers[our_port]) is None or not _fits(answer, address, port):
                    left = deadline - time.monotonic()
                    if left <= 0 or self._closed:
                        return "silent"
                    self._send(card, opening)
                    self._answered.wait(min(left, _AGAIN_SECONDS))
                if answer.opened:
                    self._send(card, tcp_reset(card.mac, ours, answer))
                return "open" if answer.opened else "refused"
            finally:
                del self._answers[our_port]

    def close(self) -> None:
        """Take the network down; a second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._ring()
            self._answered.notify_all()
        self._thread.join()
        for card in self._cards:
            card.listening.close()
            if card.connection is not None:
                card.connection.close()
        self._selector.close()
        self._bell.close()
        self._rope.close()

    # What follows runs in the network's own thread, but for ``_send`` and ``_ring``.

    def _run(self) -> None:
        while True:
            ready = self._selector.select()
            with self._lock:
                if self._closed:
                    return
                for key, events in ready:
                    card = key.data
                    if card is None:
                        self._bell.recv(4096)
                    elif key.fileobj is card.listening:
                        self._accept(card)
                    elif events & selectors.EVENT_WRITE:
                        self._flush(card)
                    else:
                        self._receive(card)
                self._watch()

    def _watch(self) -> None:
        """Wait for room only where something waits for it."""
        for card in self._cards:
            if card.connection is not None:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if card.waiting else 0)
                self._selector.modify(card.connection, events, card)

    def _accept(self, card: Card) -> None:
        try:
            connection, _peer = card.listening.accept()
        except OSError:
            return
        if card.connection is not None:  # a machine that is started again has a new QEMU
            self._unplug(card)
        connection.setblocking(False)
        card.connection = connection
        card.received.clear()
        card.waiting.clear()
        self._selector.register(connection, selectors.EVENT_READ, card)

    def _unplug(self, card: Card) -> None:
        if card.connection is not None:
            self._selector.unregister(card.connection)
            card.connection.close()
            card.connection = None

    def _receive(self, card: Card) -> None:
        if card.connection is None:
            return
        try:
            data = card.connection.recv(256 * KIB)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._unplug(card)
            return
        card.received += data
        while len(card.received) >= _LENGTH:
            size = int.from_bytes(card.received[:_LENGTH], "big")
            if size > _FRAME_MAX:
                self._unplug(card)  # this is no QEMU
                return
            if len(card.received) < _LENGTH + size:
                return
            frame = parse_frame(bytes(card.received[_LENGTH : _LENGTH + size]))
            del card.received[: _LENGTH + size]
            if frame is not None:
                self._take(card, frame)

    def _flush(self, card: Card) -> None:
        if card.connection is None:
            return
        try:
            sent = card.connection.send(card.waiting)
        except BlockingIOError:
            return
        except OSError:
            self._unplug(card)
            return
        del card.waiting[:sent]

    def _send(self, card: Card, frame: bytes) -> None:
        if card.connection is not None and len(card.waiting) < _WAITING_MAX:
            card.waiting += len(frame).to_bytes(_LENGTH, "big") + frame
            self._ring()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # then it rings already
            self._rope.send(b"\0")

    def _take(self, card: Card, frame: Frame) -> None:
        address = sender_address(frame)
        if address is not None and address not in self._ours:
            card.addresses[address] = None
            card.addresses.move_to_end(address)
            if len(card.addresses) > _ADDRESSES_MAX:
                card.addresses.popitem(last=False)
        others = [one for one in self._cards if one.segment == card.segment and one is not card]
        meant = [one for one in others if one.mac == frame.target]
        for other in meant or ([] if frame.target == OUR_MAC else others):
            self._send(other, frame.to_bytes())
        if frame.target in {OUR_MAC, BROADCAST}:
            self._answer(card, frame)

    def _answer(self, card: Card, frame: Frame) -> None:
        if (question := parse_arp_question(frame)) is not None:
            if self._is_ours(card, question):
                self._send(card, arp_answer(question))
        elif (asked := parse_dhcp_question(frame)) is not None:
            self._lease(card, asked)
        elif (answer := parse_tcp_answer(frame)) is not None:
            if answer.our_port in self._answers:
                self._answers[answer.our_port] = answer
                self._answered.notify_all()
        elif (refusal := tcp_refusal(frame)) is not None:
            self._send(card, refusal)

    def _is_ours(self, card: Card, question: ArpQuestion) -> bool:
        """Tell whether to answer for an address: for any that no machine has, or has not yet shown."""
        if question.wanted in self._ours:
            return True
        if question.sender == NOBODY or question.wanted in self._taken(card):
            return False
        key = (question.mac, question.wanted)
        alone = not any(one.segment == card.segment and one is not card for one in self._cards)
        if alone or key in self._questions:
            return True
        # Another machine of the segment may have it, and answers the first time.
        self._questions[key] = None
        if len(self._questions) > _QUESTIONS_MAX:
            self._questions.popitem(last=False)
        return False

    def _lease(self, card: Card, question: DhcpQuestion) -> None:
        given = question.wished
        if given.is_unspecified or given.is_multicast or given in self._taken(card):
            segments = list(dict.fromkeys(one.segment for one in self._cards))
            number = 10 + self._cards.index(card)
            given = IPv4Address(f"10.68.{segments.index(card.segment) % 256}.{number % 240}")
        router = _first_of_network(given)
        if len(self._ours) < _QUESTIONS_MAX:
            self._ours.add(router)
        self._send(card, dhcp_answer(question, given, router))

    def _taken(self, card: Card) -> set[IPv4Address]:
        """Give the addresses of the other cards of a segment."""
        others = [one for one in self._cards if one.segment == card.segment and one is not card]
        return {address for one in others for address in one.addresses}


def _fits(answer: TcpAnswer, address: IPv4Address, port: int) -> bool:
    return (answer.address, answer.port) == (address, port)


def _first_of_network(address: IPv4Address) -> IPv4Address:
    first = IPv4Address(int(address) & ~255 | 1)
    return first if first != address else IPv4Address(int(address) & ~255 | 254)


def _neighbour(address: IPv4Address, taken: set[IPv4Address]) -> IPv4Address:
    """Give an address that a machine takes for one beside it, so that its answer needs no gateway."""
    for step in (1, -1, 2, -2, 3, -3):
        candidate = IPv4Address((int(address) + step) % 2**32)
        if int(candidate) & 255 not in {0, 255} and candidate not in taken:
            return candidate
    return _first_of_network(address)
