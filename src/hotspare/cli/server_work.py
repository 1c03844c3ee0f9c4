"""What a mover does: a backup, by the same road as ``hotspare backup``, for a job."""

import socket
import time
from contextlib import suppress

import msgspec

from hotspare.backup.claim import Claim
from hotspare.cancellation import Cancellation
from hotspare.cli.backup_results import BackupResult
from hotspare.cli.backup_runs import WantedMachine
from hotspare.cli.known_hosts import KnownHosts
from hotspare.cli.options import Options
from hotspare.cli.policy_engine import backups_of
from hotspare.cli.session import Session
from hotspare.errors import HotspareError
from hotspare.events import Listener
from hotspare.fleet.fleet import Fleet
from hotspare.fleet.work import Work
from hotspare.jobs.orders import Order, Result
from hotspare.policy.policy import Policy
from hotspare.repository.abandoned import settle_abandoned


class ServerWork:
    """Fulfils ``jobs.work.Work``. Each run opens what it needs, with this host's own credential."""

    def __init__(self, options: Options, hosts: KnownHosts) -> None:
        self._options = options
        self._hosts = hosts

    def back_up(self, order: Order, claim: Claim, listener: Listener, cancellation: Cancellation) -> Result:
        """See ``Work``."""
        began = time.time()
        try:
            with Session(self._options, known_hosts=self._hosts) as session:
                policy = policy_of(order)
                fleet = Fleet(session.limited(order.upload_limit))
                backups = backups_of(fleet, policy, order.platform)
                tags = tags_of(fleet, order)
                wanted = WantedMachine(order.machine, order.machine_id, listed=True, tags=tags)
                done = backups.one(wanted, listener, cancellation, claim)
                return _result(done, began, own_catalog(session))
        except HotspareError as error:
            # It failed before there was a run that a history could have.
            return Result(
                outcome="failed",
                error_code=error.code,
                error=error.what,
                started_at=began,
                finished_at=time.time(),
            )

    def settle(self, order: Order, session: str) -> str | None:
        """See ``Work``."""
        with Session(self._options) as opened:
            repository = Fleet(opened).repository(policy_of(order))
            point = settle_abandoned(repository, order.machine_id, session)
        return point.id if point else None


def policy_of(order: Order) -> Policy:
    """Give the policy as it was when the order was given."""
    return msgspec.convert(order.definition, Policy)


def tags_of(fleet: Fleet, order: Order) -> tuple[str, ...] | None:
    """Give the tags of an order's machine; None when the platform cannot say."""
    with suppress(HotspareError):
        return fleet.machine(order.platform, order.machine_id).marks.tags
    return None


def own_catalog(session: Work) -> str:
    """Name this host's catalog, so that the server knows whether it has a run already."""
    return f"{socket.gethostname()}:{session.settings.state_folder}"


def _result(done: BackupResult, began: float, catalog: str) -> Result:
    stopped = done.outcome in {"interrupted", "not-begun"}
    return Result(
        outcome="ok" if done.outcome == "ok" else "interrupted" if stopped else "failed",
        point=done.point.id if done.point else None,
        error_code=done.error.code if done.error else None,
        error=done.error.what if done.error else None,
        started_at=began,
        finished_at=time.time(),
        bytes_read=done.bytes_read,
        bytes_stored=done.bytes_stored,
        warnings=done.warnings,
        stages=done.stages,
        catalog=catalog,
    )
