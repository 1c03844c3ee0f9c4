"""Small files that survive a crash whole: the old content, or the new."""

import os
from pathlib import Path

from hotspare.block.file import make_name_durable


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put content in place of a file, or make one, durably and at once.

    Args:
        path: of the file; its folder has to be there.
        content: all of it.
        mode: permission bits, less what the process's umask takes away.

    Raises:
        OSError: it cannot be written; the file is what it was.
    """
    # Several processes may write the same file: each has an unfinished one of its own.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    make_name_durable(path)
