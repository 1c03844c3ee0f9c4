"""A slow way between two hosts: a relay on a third, which delays what goes through and limits the rate.

The kernel here has no ``netem``. What is lost on the way costs a TCP connection the time to notice and to
send it again; so that is what "loss" does: a piece waits for ``RETRANSMIT`` seconds more, and so does
whatever comes after it.

    python -m lab.slow_link --to ADDRESS --ports 10861-10870 --delay 0.02 --loss 0.01 --rate 2000000
"""

import argparse
import random
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress

RETRANSMIT = 0.25
"""Seconds; TCP's least is 0.2 beside the time of a round trip."""
_PIECE = 64 * 1024
_WINDOW = 1024 * 1024
"""Bytes that may be on their way in one direction of one connection."""


class Relay:
    """What goes through one connection, both ways."""

    def __init__(self, delay: float, loss: float, rate: float) -> None:
        self._delay = delay
        self._loss = loss
        self._rate = rate
        self._chance = random.Random(1)

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        """Carry one direction, until its end."""
        on_the_way: deque[tuple[float, bytes]] = deque()
        waiting, free_at, ended = 0, 0.0, False
        with suppress(OSError):
            while not ended or on_the_way:
                now = time.monotonic()
                due = on_the_way[0][0] - now if on_the_way else 1.0
                if on_the_way and due <= 0:
                    waiting -= len(on_the_way[0][1])
                    sink.sendall(on_the_way.popleft()[1])
                    continue
                if ended or waiting >= _WINDOW:
                    time.sleep(max(due, 0))
                    continue
                if not select.select([source], [], [], max(due, 0))[0]:
                    continue
                data = source.recv(_PIECE)
                ended = not data
                if data:
                    now = time.monotonic()
                    free_at = max(free_at, now) + (len(data) / self._rate if self._rate else 0)
                    lost = RETRANSMIT if self._chance.random() < self._loss else 0
                    arrives = max(free_at + self._delay + lost, on_the_way[-1][0] if on_the_way else 0)
                    on_the_way.append((arrives, data))
                    waiting += len(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def serve(port: int, to: str, relay: Relay) -> None:
    """Relay all connections to a port to the same port of another host, for ever."""
    with socket.create_server(("", port)) as listener:
        while True:
            near, _ = listener.accept()
            try:
                far = socket.create_connection((to, port), timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=relay.carry, args=(source, sink), daemon=True).start()


def main() -> None:
    """Run it, until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", required=True)
    parser.add_argument("--ports", required=True, help="first-last")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, each way")
    parser.add_argument("--loss", type=float, default=0.0, help="share of the pieces")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes per second, each connection and way")
    options = parser.parse_args()
    relay = Relay(options.delay, options.loss, options.rate)
    first, last = (int(port) for port in options.ports.split("-"))
    for port in range(first, last + 1):
        threading.Thread(target=serve, args=(port, options.to, relay), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
