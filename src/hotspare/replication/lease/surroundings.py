"""What the keeper of a lease needs of others: lines to voters, and the host that it is on."""

from typing import Protocol

from hotspare.replication.lease.terms import Record, Renew, Take, Verdict


class Line(Protocol):
    """The way to a voter. Every call raises ``HotspareError`` when it is not answered in time."""

    def renew(self, message: Renew, timeout: float) -> Verdict:
        """Ask for a renewal."""
        ...

    def take(self, message: Take, timeout: float) -> Verdict:
        """Ask for a takeover."""
        ...

    def begin(self, timeout: float) -> Verdict:
        """Let it note the lease."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class Surroundings(Protocol):
    """What a keeper needs to know of its host, and may ask of it."""

    def pid(self) -> int:
        """Give the process of the machine's QEMU here; 0 when it does not run."""
        ...

    def replica_is_whole(self) -> bool:
        """Tell whether there is a replica here that can be started."""
        ...

    def before_take(self) -> bool:
        """Make sure, by the user's command, that the holder is off; True when there is no command.

        Asked only when the witness would grant the takeover.
        """
        ...

    def held(self, record: Record, *, was_running: bool) -> None:
        """This host is the holder and may run the machine: see to it that it runs, if it is to."""
        ...

    def lost(self) -> None:
        """Another host is the holder: the machine was killed here, if it ran."""
        ...
