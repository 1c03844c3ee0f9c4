"""What commands say: results on stdout, everything else on stderr.

A result is one JSON document or plain text. Texts from outside (machine names, messages of other
programs) may hold control characters; those never reach a terminal.
"""

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from hotspare.errors import HotspareError

JSON_VERSION = 1

Row = Sequence[str]


def document(kind: str, **fields: object) -> dict[str, Any]:
    """Make a JSON document: every one of them has ``type`` and ``v``."""
    return {"type": kind, "v": JSON_VERSION, **fields}


def error_document(error: HotspareError) -> dict[str, Any]:
    """Make the JSON document of an error."""
    return document("error", **error_fields(error))


def error_fields(error: HotspareError) -> dict[str, Any]:
    """Describe an error in a JSON document."""
    return {"code": error.code, "what": error.what, "meaning": error.meaning, "hint": error.hint}


def print_document(content: dict[str, Any]) -> None:
    """Print a JSON document as the result."""
    _write(sys.stdout, json.dumps(content, indent=2))


def print_line(content: dict[str, Any]) -> None:
    """Print a JSON document in one line: one of many results, for programs that read line by line."""
    _write(sys.stdout, json.dumps(content))


def print_text(text: str) -> None:
    """Print text as the result, or as one part of it."""
    _write(sys.stdout, printable(text))


def print_table(header: Row, rows: Sequence[Row], *, right: Sequence[str] = (), indent: str = "") -> None:
    """Print a table: columns two spaces apart, never cut off, so that other programs can read it too.

    Args:
        header: the columns' names.
        rows: as many cells each.
        right: names of the columns that are aligned right.
        indent: what every line begins with.
    """
    lines = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, line, widths, strict=True)
        )
        _write(sys.stdout, indent + "  ".join(cells).rstrip())


def note(text: str) -> None:
    """Tell something beside the result, on stderr."""
    _write(sys.stderr, printable(text))


def warn(text: str) -> None:
    """Tell, on stderr, what the user should know although the command goes on."""
    note(f"Warning: {text}")


def local_time(moment: datetime) -> str:
    """Write a time for people, in the zone of this host."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def utc_time(moment: datetime) -> str:
    """Write a time for programs: RFC 3339, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """Replace what a terminal would obey rather than show; line ends stay."""
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def _write(stream: TextIO, line: str) -> None:
    encoding = stream.encoding or "utf-8"
    try:
        # In a locale that lacks a letter of some machine's name, a question mark stands for it.
        stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough. That does not make a backup fail: what is still to be
        # said goes nowhere, and the exit status tells how the command ended.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
