"""Challenges: random texts that somebody has to bring back, for one purpose, once, within some minutes.

Nothing is kept of a challenge until it comes back: each carries until when it holds, and a seal that only
this process can make. So nobody can fill the server's memory, or push out another's challenge, by asking for
many.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hotspare.errors import LoginRefused

LASTS = 300
"""Seconds."""
_SPENT_MAX = 100_000
_TIME = 8
_NONCE = 16


@dataclass(slots=True)
class Challenges:
    """Makes challenges, and takes each once."""

    clock: Callable[[], float] = time.time
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _spent: dict[bytes, float] = field(default_factory=dict)
    """Until when those that came back would hold, in the order in which they came."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def new(self, purpose: str) -> bytes:
        """Make one of 56 bytes, 16 of them at random (WebAuthn Level 3, 13.4.3, asks for as many)."""
        body = int(self.clock() + LASTS).to_bytes(_TIME, "big") + secrets.token_bytes(_NONCE)
        return body + self._seal(body, purpose)

    def spend(self, challenge: bytes, purpose: str) -> None:
        """Take one back, whatever is then found out about who brings it.

        Raises:
            LoginRefused: it is none of this server's for that purpose, or is over, or was taken already.
        """
        body = challenge[: _TIME + _NONCE]
        until = int.from_bytes(body[:_TIME], "big")
        good = hmac.compare_digest(challenge, body + self._seal(body, purpose)) and until > self.clock()
        with self._lock:
            self._forget()
            if not good or body in self._spent or len(self._spent) >= _SPENT_MAX:
                raise LoginRefused(
                    "This was begun too long ago, or used already",
                    meaning="Nothing was done",
                    hint="Begin again",
                )
            self._spent[body] = until

    def _seal(self, body: bytes, purpose: str) -> bytes:
        return hmac.new(self._key, body + purpose.encode(), hashlib.sha256).digest()

    def _forget(self) -> None:
        now = self.clock()
        for body, until in list(self._spent.items()):
            if until > now:
                break
            del self._spent[body]
