"""What was done, in steps with their time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import msgspec

from hotspare.errors import HotspareError


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One of them."""

    name: str
    seconds: float
    problem: str = ""
    """Why it failed; empty when it did not."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A network card of the machine."""

    mac: str
    """Its MAC address on the other host."""
    here: str
    """The one that it has, or would have, on this host."""
    network: str
    """What it is plugged into here, in words: ``network lan2``."""


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine does not have any more that it had on the host before."""

    seconds: float | None
    """How much older it is than when the replica was last heard to follow; None when that is not known."""
    bytes: int | None
    """How much was written since; None when nobody can tell."""


class Report(msgspec.Struct, kw_only=True):
    """How a failover, a rehearsal or a failback went."""

    what: str
    machine: str
    protection: str
    began: float
    """Seconds since 1970."""
    seconds: float = 0.0
    epoch: int = 0
    point: str = ""
    """Where the disks began; empty for all that the replica had."""
    point_taken_at: datetime | None = None
    loss: Loss | None = None
    cards: list[Card] = []
    steps: list[Step] = []
    warnings: list[str] = []
    bytes_compared: int = 0
    bytes_sent: int = 0
    problem: str = ""
    """Why it failed; empty when all went well."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is in the block; what it raises is noted and goes on."""
        began = time.monotonic()
        problem = ""
        try:
            yield
        except BaseException as error:
            problem = self.problem = str(error) or type(error).__name__
            raise
        finally:
            self.steps.append(Step(name=name, seconds=round(time.monotonic() - began, 3), problem=problem))
            self.seconds = round(time.time() - self.began, 3)


def new_report(what: str, machine: str, protection: str) -> Report:
    """Begin a report."""
    return Report(what=what, machine=machine, protection=protection, began=time.time())


def refused(report: Report) -> HotspareError:
    """Give the error of a report that has a problem."""
    return HotspareError(f"{report.what} of {report.machine} failed: {report.problem}")
