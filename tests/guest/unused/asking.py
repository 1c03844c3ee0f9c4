"""Asking a file system's map about a volume: what it leaves out, or why it keeps all."""

from pathlib import Path

from hotspare.block.device import BlockReader
from hotspare.block.file import RawFile
from hotspare.guest.unused.unused import FindUnused, KeepAll, Quiet, UnusedBlocks
from tests.guest.unused.patched import check_sane


def unused_in(find_unused: FindUnused, image: Path, quiet: Quiet = Quiet.OFFLINE) -> UnusedBlocks:
    """Read the map of an image."""
    with RawFile.open(image) as volume:
        return find_unused(volume, quiet)


def why_kept(find_unused: FindUnused, volume: BlockReader, quiet: Quiet = Quiet.OFFLINE) -> str:
    """Give why all of a volume is kept; empty when it is not, and then what is left out must make sense."""
    try:
        unused = find_unused(volume, quiet)
    except KeepAll as kept:
        return kept.reason
    check_sane(unused, volume.size)
    return ""


def why_kept_in(find_unused: FindUnused, image: Path, quiet: Quiet = Quiet.OFFLINE) -> str:
    """Give the same of an image."""
    with RawFile.open(image) as volume:
        return why_kept(find_unused, volume, quiet)
