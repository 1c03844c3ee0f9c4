"""The part of an agent that votes: on the standby about its own machines, as a witness about those of others.

A witness is an agent that has no protections: it notes the leases that it is told of, and answers.
"""

import threading
from pathlib import Path

import msgspec

from hotspare.errors import MachineNotFound, PermissionRefused
from hotspare.replication.lease.fence import boottime
from hotspare.replication.lease.kept_lease import KeptLease, Lease
from hotspare.replication.lease.terms import Record, Renew, Take, Terms, Verdict
from hotspare.replication.link.server import Caller, Services
from hotspare.replication.link.wire import PEER, Verb


class LeaseUnknown(MachineNotFound):
    """The agent was never told of the lease, or has lost what it had noted."""


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """Note a lease that has just begun."""

    lease: str
    holder: str
    standby: str
    terms: Terms


class AskRenew(msgspec.Struct, frozen=True, kw_only=True):
    """A holder's message about a lease."""

    lease: str
    message: Renew


class AskTake(msgspec.Struct, frozen=True, kw_only=True):
    """A standby's message about a lease."""

    lease: str
    message: Take


BEGIN = Verb("lease.begin", Begin, Verdict, PEER)
RENEW = Verb("lease.renew", AskRenew, Verdict, PEER)
TAKE = Verb("lease.take", AskTake, Verdict, PEER)


class Leases:
    """All leases that an agent has a say in.

    Args:
        folder: for a file for each.
        services: of the agent.
    """

    def __init__(self, folder: Path, services: Services) -> None:
        self._folder = folder
        self._turn = threading.Lock()
        self._leases: dict[str, Lease] = {}
        services.register(BEGIN, self._begin)
        services.register(RENEW, self._renew)
        services.register(TAKE, self._take)

    def find(self, name: str) -> Lease:
        """Give a lease. Raises ``LeaseUnknown``."""
        with self._turn:
            known = self._leases.get(name)
            if known is None:
                path = self._path(name)
                if not path.exists():
                    raise LeaseUnknown(
                        f"This agent does not know the lease {name}",
                        meaning="It cannot vote about a takeover",
                        hint='Protect the machine again, see "hotspare replica create --help"',
                    )
                known = self._leases[name] = Lease(path)
            return known

    def begin(self, name: str, holder: str, standby: str, terms: Terms) -> Lease:
        """Give a lease; if it is not known, it begins in its first epoch."""
        with self._turn:
            known = self._leases.get(name)
            if known is None:
                first = KeptLease(record=Record(1, holder), terms=terms, parties=(holder, standby))
                known = self._leases[name] = Lease.open(self._path(name), lambda: first)
            return known

    def forget(self, name: str) -> None:
        """Forget a lease: the machine is not protected any more."""
        with self._turn:
            self._leases.pop(name, None)
            self._path(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """List all that are known."""
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def _path(self, name: str) -> Path:
        if not name.isalnum():
            raise MachineNotFound(f"{name!r} is not the name of a lease")
        return self._folder / f"{name}.json"

    def _begin(self, caller: Caller, asked: Begin, _body: bytes) -> Verdict:
        _refuse_others(caller, (asked.holder, asked.standby))
        lease = self.begin(asked.lease, asked.holder, asked.standby, asked.terms)
        with lease.turn:
            return lease.voter.take(Take(0, "", look=True), boottime())

    def _renew(self, caller: Caller, asked: AskRenew, _body: bytes) -> Verdict:
        lease = self.find(asked.lease)
        _refuse_others(caller, lease.kept.parties)
        with lease.turn:
            return lease.voter.renew(asked.message, boottime())

    def _take(self, caller: Caller, asked: AskTake, _body: bytes) -> Verdict:
        lease = self.find(asked.lease)
        _refuse_others(caller, lease.kept.parties)
        with lease.turn:
            return lease.voter.take(asked.message, boottime())


def _refuse_others(caller: Caller, parties: tuple[str, ...]) -> None:
    if caller.id not in parties:
        raise PermissionRefused("The lease is of other hosts", meaning="Nothing was done")
