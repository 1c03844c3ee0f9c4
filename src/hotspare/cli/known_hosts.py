"""What other hosts have said lately: a server asks them in the background, and never waits for one.

Whoever asks gets the last answer. One that could not be had is an error until the next is: machines of a host
that does not answer are left out, and others go on.
"""

import threading
import time
from dataclasses import dataclass, field

from hotspare.cli.other_host import OtherHost, machine_among, pools_at
from hotspare.documents.host import HostReport
from hotspare.errors import HotspareError, PlatformUnavailable
from hotspare.fleet.host import QUICK_SECONDS
from hotspare.platforms.offers import Offers
from hotspare.platforms.platform import Machine
from hotspare.policy.load import LoadSample

ASKED_SECONDS = 60.0
"""Between two questions to one host, while anybody wants to know."""
_FIRST_PATIENCE = 10.0
"""Seconds that the first answer of a host is waited for."""


@dataclass(slots=True)
class _Known:
    """One host, and what it has said."""

    host: OtherHost
    answer: HostReport | HotspareError | None = None
    answered_at: float = 0.0
    asking: threading.Thread | None = None
    asked_at: float = field(default_factory=time.monotonic)
    """When it was asked for the first time."""
    answered: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        """Put the question, and keep what comes."""
        try:
            # The first answer is waited for, and looking at the load takes a while.
            self.answer = self.host.report(0.0 if self.answer is None else QUICK_SECONDS)
        except HotspareError as error:
            self.answer = error
        except Exception as error:  # noqa: BLE001 - a mistake of ours; it must not look like silence for ever
            self.answer = HotspareError(f"{self.host.uri} could not be asked: {error!r}")
        self.answered_at = time.monotonic()
        self.asking = None
        self.answered.set()


class KnownHosts:
    """All other hosts that somebody has asked about. Thread-safe."""

    def __init__(self, seconds: float = ASKED_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def known(self, host: OtherHost) -> "KnownHost":
        """Give what is known of a host, in place of it."""
        with self._lock:
            self._ask_if_old(self._known.setdefault(host.uri, _Known(host)))
        return KnownHost(host.uri, self, host)

    def report(self, uri: str) -> HostReport:
        """Give what a host has said last.

        Raises:
            PlatformUnavailable: it has not answered yet.
            HotspareError: why it could not be asked.
        """
        with self._lock:
            known = self._known[uri]
            self._ask_if_old(known)
        known.answered.wait(max(0.0, known.asked_at + _FIRST_PATIENCE - time.monotonic()))
        answer = known.answer
        if isinstance(answer, HostReport):
            return answer
        raise answer or PlatformUnavailable(
            f"{uri} has not answered yet", meaning="Its machines are left out until it does"
        )

    def _ask_if_old(self, known: _Known) -> None:
        old = known.answer is None or time.monotonic() - known.answered_at >= self._seconds
        if old and known.asking is None:
            known.asking = threading.Thread(target=known.ask, name=f"ask {known.host.uri}", daemon=True)
            known.asking.start()


@dataclass(frozen=True, slots=True)
class KnownHost:
    """Fulfils ``fleet.host.Host`` with what a host has said last; machines are backed up by ``other``."""

    uri: str
    hosts: KnownHosts
    other: OtherHost

    def machines(self) -> list[Machine]:
        """See ``Host``."""
        return list(self.hosts.report(self.uri).machines)

    def inspect(self, reference: str) -> Machine:
        """See ``Host``."""
        return machine_among(self.machines(), reference, self.uri)

    def pools(self, machine: Machine) -> frozenset[str]:
        """See ``Host``."""
        return pools_at(self.uri, self.hosts.report(self.uri).pools.get(machine.id, frozenset()))

    def load(self, seconds: float) -> LoadSample | None:
        """See ``Host``; of the last time that it was asked, whatever ``seconds`` are wanted."""
        del seconds
        return self.hosts.report(self.uri).load

    def offers(self) -> Offers:
        """See ``Host``."""
        return self.hosts.report(self.uri).offers
