"""What an agent keeps from one start to the next."""

from pathlib import Path

import msgspec

from hotspare.whole_file import replace_file


def write_struct(path: Path, content: msgspec.Struct) -> None:
    """Put a struct, as JSON, in place of a file. Raises as ``replace_file``."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(content)))
