"""Whether a machine may run on this host, and whether its guest may go on without the replica.

Where another host may take a machine over by itself, no write may count as done that this host would lose: so
before the guest goes on without its replica, those who decide about a takeover must know of it.
"""

from collections.abc import Callable
from typing import Protocol


class Keeper(Protocol):
    """Of one protection. Called by the threads that look after it."""

    def set_in_sync(self, in_sync: bool) -> None:
        """Say whether the replica has all that the guest was told is done."""
        ...

    def may_degrade(self) -> bool:
        """Tell, after ``set_in_sync(False)``, whether the guest may go on without its replica."""
        ...

    def may_start(self) -> bool:
        """Tell whether the machine may be started on this host."""
        ...

    def on_deposed(self, callback: Callable[[], None]) -> None:
        """Name what is called when another host has taken the machine over."""
        ...


class NoKeeper:
    """Nobody takes over by himself: everything is allowed."""

    def set_in_sync(self, in_sync: bool) -> None:
        """Nobody needs to know."""

    def may_degrade(self) -> bool:
        """It may."""
        return True

    def may_start(self) -> bool:
        """It may."""
        return True

    def on_deposed(self, callback: Callable[[], None]) -> None:
        """Never happens."""
