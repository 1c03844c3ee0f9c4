"""What a collection of garbage did, or would do."""

from datetime import datetime

import msgspec


class PruneReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was, or with a dry run would be, done."""

    dry_run: bool
    points: int
    packs: int
    """Packs that were there at the start."""
    bytes: int
    """Their size."""
    packs_deleted: int
    bytes_deleted: int
    packs_repacked: int
    """Of those deleted, how many had chunks that are needed."""
    bytes_copied: int
    """What these chunks take."""
    bytes_freed: int
    """Deleted less copied."""
    bytes_wasted: int
    """What is not needed and stays, as copying around it would not pay."""
    sessions_expelled: int
    locks_renewed: int = 0
    versions_removed: int = 0
    """Of objects that were deleted earlier, and whose locks have ended."""
    bytes_locked: int = 0
    """What is deleted and stays in the store, locked."""
    locked_until: datetime | None = None
    """When the last of these locks ends."""
