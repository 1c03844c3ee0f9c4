"""What the user may choose for the backup of a machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from hotspare.backup.pacing import DEFAULT_FACTOR
from hotspare.platforms.hooks.hook import Hook
from hotspare.platforms.platform import ALL_DISKS, Consistency, DiskChoice


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """What the user may choose."""

    full: bool = False
    """Read every disk in full; what the repository knows is still not stored again."""
    consistency: Consistency | None = None
    """The level that is wanted; None for the best that the machine is prepared for."""
    require_consistency: bool = False
    """Rather fail than go on with less."""
    hooks: Sequence[Hook] | None = None
    """What quiesces the applications inside; None for the machine's own."""
    disks: DiskChoice = ALL_DISKS
    latency_factor: float | None = DEFAULT_FACTOR
    """Read more slowly when the guest's I/O takes more than so many times its usual time; None never does."""
    read_limit: int | None = None
    """Bytes per second that are read at most."""
    check_tracking: float = 0.0
    """Percentage of the chunks that the platform calls unchanged, to be read and compared nevertheless."""
    skip_unused: bool = True
    """Leave out what no file system in the machine needs."""
    index_files: bool = False
    """Keep an index of the names of its files with the point."""
    continuous: str = ""
    """Mark the point as one of a continuous backup, by what that keeps; see ``continuous.py``."""
    known_as: str = ""
    """URI that the point is to name as its platform; empty for the platform's own. To the host that has this
    done from elsewhere, ``qemu:///system`` is another host's."""
