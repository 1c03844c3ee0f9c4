"""Runs one half of the protocol on bytes that are there already."""

from typing import Any

from hotspare.block.nbd.protocol import MAX_PAYLOAD, Exchange


class StarvedError(Exception):
    """The bytes have run out before the exchange was satisfied."""


def feed(exchange: Exchange[Any], received: bytes) -> tuple[Any, bytes]:
    """Run one exchange on fixed bytes; return its result and what it sent."""
    sent, at = b"", 0
    while True:
        try:
            step = next(exchange)
        except StopIteration as finished:
            return finished.value, sent
        if isinstance(step, memoryview):
            assert 0 < len(step) <= MAX_PAYLOAD
            if at + len(step) > len(received):
                raise StarvedError
            step[:] = received[at : at + len(step)]
            at += len(step)
        else:
            sent += step
