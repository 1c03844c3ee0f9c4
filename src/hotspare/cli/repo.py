"""``hotspare repo``: make a repository, describe it, check it."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output, repo_care, repo_lock
from hotspare.cli.help import OPENING, closing, noun
from hotspare.cli.key import add_recovery_key
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.passphrase import new_passphrase, read_key_file
from hotspare.cli.progress import shown_progress
from hotspare.cli.recovery_kit import check_kit_path
from hotspare.cli.repo_prune import prune_repository
from hotspare.cli.repo_serve import serve
from hotspare.cli.session import Session
from hotspare.errors import (
    NoSpace,
    PermissionRefused,
    PointNotFound,
    RepositoryDamaged,
    RunExpelled,
    StorageError,
    TargetExists,
)
from hotspare.repository.format import PARITY_MAX, StoreRecord
from hotspare.repository.keys.slot import Credential, KeyFile, Passphrase
from hotspare.repository.object_lock.store import refuse_buried
from hotspare.repository.opening import open_keys, refuse_occupied
from hotspare.repository.reindex import rebuild_index
from hotspare.repository.repository import Repository
from hotspare.storage.backend import Backend
from hotspare.storage.probe import probe_store
from hotspare.storage.registry import is_remote
from hotspare.units import format_bytes

app = noun("repo", "Make a repository, describe it, check it, repair it, copy it.")


@app.command(
    help_epilogue=closing(
        [
            "hotspare repo create file:///srv/backup",
            "hotspare repo create file:///srv/backup --parity 4 --recovery-kit kit.svg",
            "hotspare repo create s3:https://s3.example.org/bucket/prefix --object-lock 30",
            "hotspare repo create /mnt/second --like /srv/backup",
        ],
        PermissionRefused,
        NoSpace,
        TargetExists,
        StorageError,
    )
)
def create(
    url: str | None = None,
    /,
    *,
    parity: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=PARITY_MAX))] = 0,
    recovery_kit: Path | None = None,
    object_lock: Annotated[int | None, Parameter(validator=validators.Number(gte=1, lte=36500))] = None,
    like: str | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Make a repository in an empty or new folder.

    Everything in it is encrypted; the passphrase is asked for twice, or comes from the settings. With
    HOTSPARE_KEY_FILE set, that file opens it instead.

    Args:
        url: Where, as file:///FOLDER or a folder; else the repository that is set.
        parity: Percent of additional space from which damaged packs are repaired; 0 for none, 4 is plenty.
        recovery_kit: Write a page to print (.svg or .txt), with a key for when the passphrase is lost.
        object_lock: Lock what a restore needs for so many DAYS, and renew that: until then nobody can remove
            it, yourself included. Takes an S3 bucket with object lock; whether it keeps locks is tried out.
        like: Another repository, from which copies will come: chunks get the same ids, so copies are quick.
            It is opened as usual; the new one's passphrase is HOTSPARE_TO_PASSPHRASE (_FILE, _COMMAND), or is
            asked for.
        options: See below.
    """
    if recovery_kit:
        check_kit_path(recovery_kit)
    with Session(options) as session:
        other = session.repository(like) if like else None
        backend = session.backend(url)
        credential = _new_credential(session, backend.url, "TO" if like else None)
        seen = _try_out(backend, lock=object_lock is not None)
        lock = timedelta(days=object_lock) if object_lock else None
        repository = Repository.create(backend, credential, parity=parity, like=other, store=seen, lock=lock)
        if recovery_kit:
            config, chest = open_keys(backend, credential)
            add_recovery_key(config, chest, backend.url, recovery_kit)
        if session.as_json:
            output.print_document(output.document("repository-created", url=backend.url, id=repository.id))
        else:
            output.print_text(f"Made the repository {repository.id} at {backend.url}.")
        if recovery_kit:
            output.note(f"Print the recovery kit {recovery_kit}, then delete the file.")
        thing = "key file" if isinstance(credential, KeyFile) else "passphrase"
        output.warn(
            f"Keep the {thing} in a safe place outside this host. Without it nobody can read the"
            " repository: if it is lost, so is the data."
        )
        if not recovery_kit:
            output.note("A recovery key on paper saves it: hotspare key recovery-kit FILE.svg")


_DURABILITY = {
    "fsync": "every object is synced to disk before it counts",
    "best-effort": "best effort: the server cannot be asked to sync",
    "store": "what the object store acknowledges counts",
}


_ACCESS = {
    "full": "full",
    "append-only": "append-only: restore points can be added from here, nothing can be changed or removed",
    "read-only": "read-only: nothing can be written from here",
}
_LOCK_TRIAL_SECONDS = 60.0


def _try_out(backend: Backend, *, lock: bool) -> StoreRecord:
    """Find out what a store really does. Raises ``StorageError`` when it cannot hold such a repository."""
    refuse_occupied(backend)
    if not is_remote(backend.url) and not lock:
        return StoreRecord(durability=backend.durability)
    # Nobody wants to wait for the end of the trial's lock: what was locked is hidden, and a prune removes it.
    traits = probe_store(
        backend, try_lock=lock, lock_seconds=_LOCK_TRIAL_SECONDS, sleep=lambda _seconds: None
    )
    if not (traits.read_after_write and traits.list_after_write):
        raise StorageError(
            f"{backend.url} does not show at once what was just written to it",
            meaning="No repository was made: it would lose data there",
            hint="Use a store with read-after-write and list-after-write consistency",
        )
    if lock and not traits.object_lock:
        raise StorageError(
            f"{backend.url} does not keep object locks"
            + (", though it says so" if traits.object_lock is False else ""),
            meaning="No repository was made: a locked object could be deleted there",
            hint="Use an S3 bucket that was created with object lock, or leave out --object-lock",
        )
    if lock:
        refuse_buried(backend)
    return StoreRecord(
        durability=traits.durability,
        conditional_put=traits.conditional_put,
        object_lock=traits.object_lock,
    )


def _new_credential(session: Session, url: str, variables: str | None) -> Credential:
    """Get what shall open a new repository."""
    if variables:
        return Passphrase(new_passphrase(session.passphrase_of(variables), url))
    if session.settings.key_file is not None:
        return read_key_file(session.settings.key_file)
    return Passphrase(new_passphrase(session.settings.passphrase, url))


@app.command(help_epilogue=closing(["hotspare repo info", "hotspare repo info -o json"], *OPENING))
def info(*, options: Options = DEFAULTS) -> None:
    """Describe the repository: what it is, and how much it holds.

    Args:
        options: See below.
    """
    with Session(options) as session:
        repository = session.repository()
        config, counted = repository.config, repository.statistics()
        access = repository.backend.capabilities.access
        if session.as_json:
            fields = {
                "url": repository.backend.url,
                "id": repository.id,
                "format_version": config.version,
                "created": config.created,
                "chunk_size": config.chunk_size,
                "parity": config.parity,
                "durability": config.store.durability if config.store else None,
                "object_lock": repo_lock.lock_fields(repository),
                "access": access,
                **counted._asdict(),
            }
            output.print_document(output.document("repository", **fields))
            return
        lines = {
            "Repository": repository.backend.url,
            "Id": repository.id,
            "Format": f"version {config.version}, chunks of {format_bytes(config.chunk_size)}"
            + (f", {config.parity} % parity" if config.parity else ""),
            "Durability": _DURABILITY[config.store.durability] if config.store else "not known",
            "Object lock": repo_lock.lock_in_words(repository),
            "Access": _ACCESS[access],
            "Created": config.created,
            "Restore points": f"{counted.points}, of machines: {counted.machines}",
            "Their disks": f"{format_bytes(counted.disk_bytes)} in all, each point counted whole",
            "Stored": f"{format_bytes(counted.stored_bytes)}: {counted.chunks} chunks, {counted.packs} packs",
        }
        for name, value in lines.items():
            output.print_text(f"{name + ':':16}{value}")


app.command(
    repo_care.check,
    help_epilogue=closing(
        [
            "hotspare repo check",
            "hotspare repo check --packs --no-key",
            "hotspare repo check -o json",
        ],
        *OPENING,
        interruptible=True,
    ),
)
app.command(
    repo_care.repair,
    help_epilogue=closing(
        ["hotspare repo repair --dry-run", "hotspare repo repair"], *OPENING, NoSpace, interruptible=True
    ),
)
app.command(
    prune_repository,
    name="prune",
    help_epilogue=closing(
        ["hotspare repo prune --dry-run", "hotspare repo prune", "hotspare repo prune --keep-waste 0"],
        *OPENING,
        NoSpace,
        RunExpelled,
        interruptible=True,
    ),
)
app.command(
    repo_lock.extend_locks,
    help_epilogue=closing(
        ["hotspare repo extend-locks", "hotspare repo extend-locks --dry-run -o json"],
        *OPENING,
        interruptible=True,
    ),
)
app.command(
    repo_lock.recover,
    help_epilogue=closing(
        ["hotspare repo recover --dry-run", "hotspare repo recover", "hotspare repo recover --forgotten"],
        *OPENING,
        NoSpace,
        interruptible=True,
    ),
)
app.command(
    serve,
    help_epilogue=closing(
        [
            "hotspare repo serve /srv/backup  # what a client with a key of its own choice runs",
            'command="hotspare repo serve --append-only /srv/backup",restrict ssh-ed25519 AAAA... web01',
        ],
        StorageError,
    ),
)
app.command(
    repo_care.copy,
    help_epilogue=closing(
        [
            "hotspare repo copy --to file:///mnt/second",
            "hotspare repo copy --to /mnt/second --machine web --since 2026-11-01",
            "hotspare repo copy --to /mnt/second --point 20261123-021500-k3fz7",
        ],
        PointNotFound,
        *OPENING,
        NoSpace,
        interruptible=True,
    ),
)


@app.command(
    help_epilogue=closing(
        ["hotspare repo reindex", "hotspare repo reindex -o json"], *OPENING, NoSpace, interruptible=True
    )
)
def reindex(*, options: Options = DEFAULTS) -> None:
    """Make the index again from the packs, when a part of it is lost or damaged.

    Only the table of each pack is read. Backups may go on meanwhile.

    Args:
        options: See below.
    """
    with Session(options) as session:
        repository = session.repository()
        with (
            cancelled_by_signals() as cancellation,
            shown_progress(options.progress_form, cancellation) as listener,
        ):
            report = rebuild_index(repository, listener, cancellation)
        if session.as_json:
            fields = {
                "packs": report.packs,
                "chunks": report.chunks,
                "segments": report.segments,
                "problems": [{"object": one.object, "detail": one.detail} for one in report.problems],
            }
            output.print_document(output.document("repository-reindexed", **fields))
        else:
            output.print_text(f"Listed {report.chunks} chunks in {report.packs} packs.")
            for problem in report.problems:
                output.print_text(f"{problem.object}: {problem.detail}")
        if report.problems:
            raise RepositoryDamaged(
                f"{len(report.problems)} packs could not be listed",
                meaning="What was known of their chunks from the old index is kept",
                hint="Run 'hotspare repo check' to see which restore points need them",
            )
