"""What a collector does for the locks of a repository: it is who knows what is needed, and what is not."""

from collections.abc import Iterable

from hotspare.cancellation import Cancellation
from hotspare.repository.gc.view import View
from hotspare.repository.object_lock.keeper import packs_of
from hotspare.repository.object_lock.purge import Removal, remove_ended
from hotspare.repository.repository import Repository


def renew_needed(
    repository: Repository,
    view: View,
    condemned: Iterable[str],
    cancellation: Cancellation,
    *,
    dry_run: bool = False,
) -> int:
    """Renew the locks of what restore points need and is not about to go; give how many were due.

    What was copied out of condemned packs was stored just now, and locked with that.
    """
    keeper = repository.lock_keeper
    if keeper is None:
        return 0
    packs = set(packs_of(view.chunks, view.marks)).difference(condemned)
    names = (*sorted(packs), *view.points)
    return keeper.renew(names, cancellation, dry_run=dry_run).renewed


def remove_unneeded(repository: Repository, cancellation: Cancellation) -> Removal:
    """Remove what was deleted earlier and is not locked any more."""
    keeper = repository.lock_keeper
    return remove_ended(keeper, cancellation) if keeper else Removal()
