"""What carries out the backups of a policy: the engine here, or the one on the host of the machines."""

from collections.abc import Sequence
from dataclasses import dataclass

from hotspare.backup.claim import Claim
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation
from hotspare.cli.backup_runs import Backups, EngineHere
from hotspare.cli.history import History
from hotspare.cli.known_hosts import KnownHost
from hotspare.cli.other_host import OtherHost
from hotspare.cli.quantities import parse_bytes
from hotspare.events import Listener
from hotspare.fleet.fleet import Fleet
from hotspare.fleet.host import Host, ThisHost
from hotspare.platforms.hooks.hook import parse_hook
from hotspare.platforms.platform import Consistency, DiskChoice, Machine
from hotspare.policy.policy import Manner, Policy
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class EngineThere:
    """Fulfils ``Engine`` for a platform of another host, with the command line of that host."""

    repository: Repository
    url: str | None
    """By which settings or policy name the repository."""
    known: Host
    """What is known of the host."""
    other: OtherHost
    words: Sequence[str]
    """Options of ``hotspare backup``."""

    @property
    def uri(self) -> str:
        """See ``Engine``."""
        return self.known.uri

    def inspect(self, reference: str) -> Machine:
        """See ``Engine``."""
        return self.other.inspect(reference)

    def back_up(
        self, reference: str, listener: Listener, cancellation: Cancellation, claim: Claim
    ) -> RestorePoint:
        """See ``Engine``."""
        repository = self.repository, self.url
        return self.other.back_up(repository, reference, self.words, listener, cancellation, claim)


def backups_of(fleet: Fleet, policy: Policy, uri: str) -> Backups:
    """Give what backs machines of a platform up by a policy. Raises as opening these does."""
    repository, host = fleet.repository(policy), fleet.host(uri)
    history = History(fleet.session, repository.backend.url, policy.name)
    if isinstance(host, ThisHost):
        return Backups(history, EngineHere(repository, host.platform, options_of(policy.backup)))
    other = host.other if isinstance(host, KnownHost) else host
    if not isinstance(other, OtherHost):
        raise TypeError(other)
    url = fleet.repository_url(policy)
    return Backups(history, EngineThere(repository, url, host, other, words_of(policy.backup)))


def options_of(manner: Manner) -> BackupOptions:
    """Give what the engine is to know of a policy."""
    return BackupOptions(
        consistency=Consistency(manner.consistency) if manner.consistency else None,
        require_consistency=manner.require_consistency,
        hooks=[parse_hook(hook) for hook in manner.hooks] or None,
        disks=DiskChoice(exclude=manner.exclude_disks),
        latency_factor=manner.latency_factor,
        read_limit=parse_bytes(manner.read_limit) if manner.read_limit else None,
        check_tracking=manner.check_tracking,
        skip_unused=manner.skip_unused,
        index_files=manner.index_files,
    )


def words_of(manner: Manner) -> list[str]:
    """Give the same as options of ``hotspare backup``."""
    words = [f"--latency-factor={manner.latency_factor}", f"--check-tracking={manner.check_tracking}"]
    words += [f"--consistency={manner.consistency}"] if manner.consistency else []
    words += ["--require-consistency"] if manner.require_consistency else []
    words += [f"--hook={hook}" for hook in manner.hooks]
    words += [f"--exclude-disk={pattern}" for pattern in manner.exclude_disks]
    words += [f"--read-limit={manner.read_limit}"] if manner.read_limit else []
    words += [] if manner.skip_unused else ["--no-skip-unused"]
    words += ["--index-files"] if manner.index_files else []
    return words
