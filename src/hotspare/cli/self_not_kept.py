"""What no self-backup holds: secrets that lie elsewhere for a reason, and what must not be rolled back."""

from collections.abc import Iterable, Iterator, Sequence

from hotspare.policy.policy import Policy
from hotspare.policy.receiver import Receiver
from hotspare.self_backup.manifest import NotKept
from hotspare.settings import Settings

_OVER_SSH = ("sftp:", "ssh:")


def not_kept(
    settings: Settings, url: str, policies: Sequence[Policy], receivers: Iterable[Receiver]
) -> Iterator[NotKept]:
    """Yield what the control plane uses that a rebuild cannot bring back, each with what to do about it.

    Args:
        settings: of this host.
        url: of the repository that the self-backup goes to.
        policies: that can be understood.
        receivers: of notices.
    """
    yield from _credential(settings)
    urls = {url, *(policy.repository for policy in policies if policy.repository)}
    platforms = {settings.platform, *(uri for policy in policies for uri in policy.select.platforms)}
    if urls != {url}:
        yield NotKept(
            what="What opens the other repositories that policies go to",
            remedy="See that this host's passphrase or key file opens them as well",
        )
    if any(one.startswith("s3:") for one in urls):
        yield NotKept(
            what="The credentials of the S3 store (AWS_ACCESS_KEY_ID and so on, or a profile)",
            remedy="Set them for the server, as for this command",
        )
    if any(one.startswith(_OVER_SSH) for one in urls) or any("+ssh" in uri for uri in platforms):
        yield NotKept(
            what="SSH keys and known hosts, of stores and platforms that are reached over SSH",
            remedy="Make a new key and let the other hosts know it",
        )
    for receiver in receivers:
        yield NotKept(
            what=f"The URL of {receiver.name}, who receives notices: {receiver.place}",
            remedy=f"Put it there again, and try it: hotspare notice test {receiver.name}",
        )
    if settings.sign_on_file is not None:
        yield NotKept(
            what=f"Who the provider of single sign-on is ({settings.sign_on_file}), and the secret for it",
            remedy="Put both files there again; until then, log in by password",
        )
    yield from _must_not_return(settings)


def _credential(settings: Settings) -> Iterator[NotKept]:
    if settings.key_file is not None:
        yield NotKept(
            what=f"The key file {settings.key_file}",
            remedy="Put it there again, or make a new one: hotspare key add --key-file FILE",
        )
    elif settings.passphrase is not None:
        places = {
            "value": settings.passphrase.origin,
            "file": settings.passphrase.value,
            "command": f"the command that {settings.passphrase.origin} names",
        }
        yield NotKept(
            what=f"The passphrase of the repository, from {places[settings.passphrase.kind]}",
            remedy="Put it there again, or add a new one: hotspare key add --passphrase",
        )


def _must_not_return(settings: Settings) -> Iterator[NotKept]:
    """Yield what would do harm as it was: promises of who may run a machine; what ran and is gone."""
    if (settings.state_folder / "replication").exists():
        yield NotKept(
            what="Replication: pairings, the agent's keys, and promises of who may run a machine",
            remedy="Pair the hosts anew, see docs/replication.md: an old promise could start a machine twice",
        )
    if any((settings.state_folder / "recoveries").glob("*")):
        yield NotKept(
            what="Machines that ran straight from the repository",
            remedy="Recover them again, see docs/instant-recovery.md",
        )
    if not settings.job_database.startswith("sqlite"):
        yield NotKept(
            what=f"The job database {settings.job_database}",
            remedy="It is another server's, with backups of its own; if it is lost, an empty one will do",
        )
