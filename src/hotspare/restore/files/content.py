"""Reading the content of files in pieces, for whoever writes it elsewhere."""

from collections.abc import Iterator

from hotspare.errors import FileSystemUnreadable
from hotspare.guest.files.file_system import FileContent
from hotspare.units import MIB

PIECE = 4 * MIB


def stored_pieces(content: FileContent) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of all that is not in a hole.

    Raises:
        FileSystemUnreadable: the file ends too early, or its holes make no sense.
    """
    at = 0
    for start, end in content.holes():
        if not at <= start < end:
            raise FileSystemUnreadable("The file's map of holes makes no sense")
        yield from pieces(content, at, min(start, content.size))
        at = end
        if at >= content.size:
            return
    yield from pieces(content, at, content.size)


def pieces(content: FileContent, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of a run of a file. Raises ``FileSystemUnreadable`` when it ends too early."""
    at = start
    while at < end:
        piece = content.read(at, min(PIECE, end - at))
        if not piece:
            raise FileSystemUnreadable(f"The file ends after {at} bytes, and should have {content.size}")
        yield at, piece
        at += len(piece)
