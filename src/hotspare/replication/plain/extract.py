"""Getting a disk of a replica's point out, as a file or onto a device."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from hotspare.block.copy import copy_disk
from hotspare.block.file import RawFile
from hotspare.cancellation import Cancellation
from hotspare.errors import TargetExists, UsageError
from hotspare.platforms.platform import Snapshot
from hotspare.replication.compare.bring_alike import CompareCounts, bring_alike
from hotspare.replication.compare.digests import LocalHasher


def extract_disk(
    snapshot: Snapshot,
    disk: str | None,
    target: Path,
    *,
    overwrite: bool,
    on_progress: Callable[[int, int], None],
    cancellation: Cancellation,
) -> int:
    """Write a disk to a raw file or a device; of what is there already only what differs is written.

    Args:
        snapshot: of the point.
        disk: its name; None for the only one.
        target: where to.
        overwrite: change what is there.
        on_progress: called with bytes handled and bytes written so far.
        cancellation: looked at again and again. What was written stays, and is not written again.

    Returns:
        Bytes of the disk.

    Raises:
        TargetExists: something is there, and ``overwrite`` is not set.
        UsageError: there is no such disk, or what is there has another size.
        NoSpace, PermissionRefused, SourceLost: it cannot be written or read.
    """
    names = [one.name for one in snapshot.disks]
    chosen = disk or (names[0] if len(names) == 1 else "")
    if chosen not in names:
        raise UsageError(
            f"Which disk of {snapshot.machine.name}: {', '.join(names)}?",
            meaning="Nothing was written",
            hint="Name one with --disk",
        )
    with ExitStack() as stack:
        source = stack.enter_context(closing(snapshot.reader(chosen)))
        if not target.exists():
            file = stack.enter_context(RawFile.create(target, source.size))
            copy_disk(source, file, target_is_blank=True, on_progress=on_progress, cancellation=cancellation)
            return source.size
        if not overwrite:
            raise TargetExists(
                f"{target} is there already",
                meaning="It was left alone",
                hint="Overwrite it with --overwrite",
            )
        file = stack.enter_context(RawFile.open(target, read_only=False))
        if file.size != source.size:
            raise UsageError(
                f"{target} has {file.size} bytes, and the disk {source.size}", meaning="It was left alone"
            )

        def note(counts: CompareCounts) -> None:
            on_progress(counts.compared, counts.sent)

        theirs = stack.enter_context(closing(LocalHasher(file.clone())))
        bring_alike(source, file, theirs, on_progress=note, cancellation=cancellation)
        return source.size
