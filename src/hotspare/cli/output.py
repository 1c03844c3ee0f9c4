"""What commands say: results on stdout, everything else on stderr.

A result is one JSON document or plain text. Texts from outside (machine names, messages of other
programs) may hold control characters; those never reach a terminal.
"""

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TextIO

from hotspare.documents.form import document, error_document, error_fields, utc_time

__all__ = [
    "document",
    "error_document",
    "error_fields",
    "local_time",
    "note",
    "print_document",
    "print_table",
    "print_text",
    "printable",
    "utc_time",
    "warn",
]

Row = Sequence[str]


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
