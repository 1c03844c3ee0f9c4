"""Holding several machines still at once, for as short a time as can be.

QEMU itself is stopped, by the machine's fence: at once, whatever the machine's disks are doing, and with
nobody needed to let it go on again. libvirt would have QEMU wait for writes that are under way to the
standby, and with a standby that has just fallen silent nobody could end that.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from hotspare.errors import HotspareError, PlatformUnavailable
from hotspare.replication.failover import machine as machines
from hotspare.replication.lease.fencing import Fencing
from hotspare.replication.model import Protection

if TYPE_CHECKING:
    from hotspare.replication.agent import Agent

_TRIES = 20
_TRY_SECONDS = 0.5


@dataclass(slots=True)
class Hold:
    """What became of it; complete only after its block."""

    seconds: float = 0.0
    """From the order to stand still until the last was let go."""
    broken: str = ""
    """Which machine went on too early; empty when all stood still together until the end of the block."""


class Holder:
    """Holds one machine.

    Args:
        agent: of the host that it runs on.
        protection: of the machine.
    """

    def __init__(self, agent: "Agent", protection: Protection) -> None:
        self.machine = protection.machine
        self._fencing = Fencing(agent.state / "fences", protection.id, protection.machine_id)
        # The fence of a machine that has a lease is not started here: who does that tells it the lease.
        self._may_start = not (protection.witness and protection.failover.automatic)

    def prepare(self) -> None:
        """See to it that there is a fence, and that nothing is held. Raises ``PlatformUnavailable``."""
        if self._may_start:
            self._fencing.ensure(inf)
        self._fencing.release(self._pid)

    @property
    def _pid(self) -> int:
        return machines.pid_of(self.machine)

    def hold(self, seconds: float) -> None:
        """Have it stand still for so long at most. Raises ``HotspareError`` if it does not."""
        pid = self._pid
        if not pid or not self._fencing.hold(pid, seconds):
            raise HotspareError(f"{self.machine} cannot be held still")

    def release(self) -> bool:
        """Let it go on; give whether it stood still until now. Never raises."""
        try:
            return self._fencing.release(self._pid)
        except PlatformUnavailable:
            self._let_go_later()
            return False

    def _let_go_later(self) -> None:
        """Go on trying: a fence that died while it held the machine is followed by another."""
        for _ in range(_TRIES):
            time.sleep(_TRY_SECONDS)
            try:
                self.prepare()
            except PlatformUnavailable:
                continue
            return

    def end(self) -> None:
        """Let there be no fence any more that is just for this."""
        if self._may_start:
            self._fencing.quit()

    def close(self) -> None:
        """Let the fence go on alone."""
        self._fencing.close()


@contextmanager
def held(holders: Mapping[str, Holder], seconds: float) -> Iterator[Hold]:
    """Have all machines stand still while the block runs, but no longer than so many seconds.

    Raises:
        HotspareError: one does not stand still, or cannot be told to; all go on.
    """
    hold = Hold()
    with ThreadPoolExecutor(len(holders), thread_name_prefix="hold") as threads:
        began = time.monotonic()
        try:
            for result in [threads.submit(_holding(one, seconds)) for one in holders.values()]:
                result.result()
            yield hold
        finally:
            going = {one.machine: threads.submit(one.release) for one in holders.values()}
            early = [machine for machine, result in going.items() if not result.result()]
            hold.seconds = time.monotonic() - began
            hold.broken = ", ".join(early)


def _holding(holder: Holder, seconds: float) -> Callable[[], None]:
    return lambda: holder.hold(seconds)
