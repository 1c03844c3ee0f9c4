"""How full repositories' stores are: asked beside requests, and remembered for a minute.

A store that does not answer must not hold up a page or a scrape: nobody waits beyond two seconds after it was
asked, and gets what was known before, if anything. Each store has a connection of its own for this, so that
nobody waits for one that is busy with data.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hotspare.errors import HotspareError
from hotspare.storage.backend import Backend, Space
from hotspare.storage.registry import is_remote, open_backend
from hotspare.storage.wrappers.retry import RetryPolicy

_REMEMBERED_SECONDS = 60.0
_PATIENCE = 2.0
_ONCE = RetryPolicy(total=0.0, total_at_first=0.0)
"""Nobody waits for a second try: the next who asks is it."""


@dataclass(slots=True)
class _Known:
    """What is known of one store."""

    backend: Backend | None = None
    space: Space | None = None
    at: float = float("-inf")
    """When it was asked last."""
    asking: threading.Event | None = None
    """Somebody asks now; set when that has ended."""


class Spaces:
    """Safe for several threads."""

    def __init__(
        self, open_store: Callable[[str], Backend] = lambda url: open_backend(url, retry=_ONCE)
    ) -> None:
        self._open = open_store
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def of(self, url: str) -> Space | None:
        """Tell how full the store at a URL is; None where it does not tell, or not in time."""
        if not is_remote(url):
            return self._asked(_Known(), url)
        with self._lock:
            known = self._known.setdefault(url, _Known())
            if known.asking is None and time.monotonic() - known.at > _REMEMBERED_SECONDS:
                known.asking, known.at = threading.Event(), time.monotonic()
                # One that never comes back keeps nobody from stopping the server.
                threading.Thread(target=self._ask, args=(known, url), name="space", daemon=True).start()
            asking, patience = known.asking, known.at + _PATIENCE - time.monotonic()
        if asking is not None:
            asking.wait(max(0.0, patience))
        return known.space

    def close(self) -> None:
        """Let go of the stores; who does not answer is not waited for."""
        with self._lock:
            idle = [known.backend for known in self._known.values() if known.asking is None]
        for backend in idle:
            if backend is not None:
                backend.close()

    def _ask(self, known: _Known, url: str) -> None:
        space = self._asked(known, url)
        with self._lock:
            asking, known.asking = known.asking, None
            known.space, known.at = space, time.monotonic()
        if asking is not None:
            asking.set()

    def _asked(self, known: _Known, url: str) -> Space | None:
        try:
            known.backend = known.backend or self._open(url)
            ask = known.backend.capabilities.space
            return ask() if ask else None
        except HotspareError:
            return None
