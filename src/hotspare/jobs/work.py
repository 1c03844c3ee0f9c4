"""What jobs are made of, as those see it who know repositories, platforms and policies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hotspare.backup.claim import Claim
from hotspare.cancellation import Cancellation
from hotspare.events import Listener
from hotspare.jobs.orders import Order, Result
from hotspare.policy.admission import Request
from hotspare.policy.limits import Limits


class Work(Protocol):
    """What a mover does. Called from many threads, one for each run."""

    def back_up(self, order: Order, claim: Claim, listener: Listener, cancellation: Cancellation) -> Result:
        """Make a restore point; whatever goes wrong is in the result."""
        ...

    def settle(self, order: Order, session: str) -> str | None:
        """Find out what became of an attempt that was given up when it was about to publish its point.

        Gives the point's id; or None, and then sees to it that such a point never counts.

        Raises:
            HotspareError: it cannot be found out now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Due:
    """A machine that is due, and what admission is to know of it."""

    order: Order
    request: Request
    queue: str
    """Name of the host whose movers can carry it out."""
    stops_with_window: bool = False
    """What is not through when its window closes is stopped."""
    missed: str = ""
    """Earlier times at which it was due and had no run, in words."""


class Plans(Protocol):
    """Who is due. Called from one thread."""

    @property
    def limits(self) -> Limits:
        """How many runs may go on at once."""
        ...

    def due(self, now: float) -> Sequence[Due]:
        """Give the machines that are due by all policies. Raises nothing: what cannot be asked is not due."""
        ...

    def asked_for(self, order: Order, now: float) -> Due | None:
        """Give what somebody wants done whether it is due or not; None when it cannot be.

        Raises:
            PlatformUnavailable: that cannot be said now, for the machine's platform does not answer.
        """
        ...

    def latency(self) -> Sequence[tuple[str, float]]:
        """Give, for platforms that can tell, how many times their usual latency their guests have now."""
        ...

    def began(self, due: Due) -> None:
        """Note in the history what was missed before a run began."""
        ...

    def ended(self, order: Order, result: Result) -> None:
        """Note in the history how a run of any mover ended, and apply retention; may be told twice."""
        ...
