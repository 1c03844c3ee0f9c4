"""What policies ask of a host: its machines, and how busy it is; wherever it is.

Machines are backed up by who carries a run out; here they are only looked at.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from hotspare.platforms.offers import Offers, offers_of
from hotspare.platforms.platform import Machine, Platform
from hotspare.platforms.pools import pools_of
from hotspare.policy.load import LoadSample, sample_between

QUICK_SECONDS = 3.0
"""For how long the latency of now is looked at."""


class Host(Protocol):
    """A platform, of this host or another."""

    @property
    def uri(self) -> str:
        """By which it is known here."""
        ...

    def machines(self) -> list[Machine]:
        """Give all machines, each of this platform.

        Raises:
            PlatformUnavailable: it does not answer.
        """
        ...

    def inspect(self, reference: str) -> Machine:
        """Give one machine, by its name or id. Raises ``MachineNotFound``, and as ``machines`` else."""
        ...

    def pools(self, machine: Machine) -> frozenset[str]:
        """Name the storage that the disks of a machine share with others; no two hosts have one name."""
        ...

    def load(self, seconds: float) -> LoadSample | None:
        """Look how busy it is, for a while; None where that is not counted. Raises as ``machines``."""
        ...

    def offers(self) -> Offers:
        """Say what a machine that is restored there can be given. Raises as ``machines``."""
        ...


class RemoteHost(Protocol):
    """A host where something is done by the mover there."""

    def plan_restore(self, repository: str | None, words: Sequence[str]) -> dict[str, Any]:
        """Give the plan of ``hotspare restore WORDS`` there, as documents have it.

        Args:
            repository: the URL that settings or policy name it by.
            words: with the name of the machine to be, and the restore point.

        Raises:
            PlatformUnavailable: the host does not answer.
            HotspareError: what stands in the way of such a restore.
        """
        ...


@dataclass(frozen=True, slots=True)
class ThisHost:
    """A platform of this host."""

    platform: Platform

    @property
    def uri(self) -> str:
        """See ``Host``."""
        return self.platform.uri

    def machines(self) -> list[Machine]:
        """See ``Host``."""
        return self.platform.machines()

    def inspect(self, reference: str) -> Machine:
        """See ``Host``."""
        return self.platform.inspect(reference)

    def pools(self, machine: Machine) -> frozenset[str]:
        """See ``Host``."""
        return pools_of(machine)

    def load(self, seconds: float) -> LoadSample | None:
        """See ``Host``."""
        before = self.platform.use(datetime.now(UTC))
        if before is None:
            return None
        time.sleep(seconds)
        after = self.platform.use(datetime.now(UTC))
        return sample_between(before, after) if after is not None else None

    def offers(self) -> Offers:
        """See ``Host``."""
        return offers_of(self.platform)
