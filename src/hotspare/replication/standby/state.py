"""What a replica is beside its points, over all restarts."""

import msgspec

from hotspare.replication.model import Tenure
from hotspare.replication.standby.chain import Chain
from hotspare.replication.standby.exports import Exports

STATE = "state.json"


class ReplicaState(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica is beside its points; kept in ``state.json``, which each change replaces."""

    tenure: Tenure
    """Who may write to it; never goes back."""
    port: int
    """Where its disks are served."""
    whole: bool = False
    """Whether what is on top of all disks is a machine as after a power cut; else only points are."""
    generation: int = 0
    """Counts the starts of the storage daemon: who was connected before may not go on as if nothing was."""
    chains: tuple[Chain, ...] = ()
    """The disks that the machine has now."""
    retired: tuple[Chain, ...] = ()
    """Disks that it does not have any more, but points do."""
    exports: Exports | None = None
    """How the disks are served; None when they are not."""
    clean: bool = True
    """Whether the storage daemon has written out all that it held, if it does not run."""
    base: str = ""
    """Sync mode: serial of the source's bitmaps which mark all that is lacking here; empty when none do."""
    blank: tuple[str, ...] = ()
    """Disks that nothing was written to yet."""
    pinned: dict[str, str] = {}
    """Points that must not be removed (a rehearsal uses them): id and why."""
