"""Small files that must survive a crash whole: the old content, or the new."""

import os
from pathlib import Path

import msgspec

from hotspare.block.file import make_name_durable


def write_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put content in place of a file, durably and at once.

    Raises:
        OSError: it cannot be written; the file is what it was.
    """
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    make_name_durable(path)


def write_struct(path: Path, content: msgspec.Struct) -> None:
    """Put a struct, as JSON, in place of a file. Raises as ``write_file``."""
    write_file(path, msgspec.json.format(msgspec.json.encode(content)))
