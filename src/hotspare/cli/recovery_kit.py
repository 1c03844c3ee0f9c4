"""The recovery kit: a page to print, with all that is needed to open a repository when all else is lost."""

import os
from html import escape
from pathlib import Path
from typing import NamedTuple

import segno

from hotspare.errors import HotspareError, NoSpace, PermissionRefused, TargetExists, UsageError
from hotspare.repository.keys.recovery import format_recovery_key

FORMS = (".svg", ".txt")
_STEPS = (
    "Install Hotspare on any Linux host that reaches the repository.",
    "Run: hotspare repo info -r REPOSITORY (with the address above).",
    "When it asks for the passphrase, type the recovery key instead.",
    "Spaces and dashes do not matter; a mistyped group is named.",
    "Set a new passphrase: hotspare key add --passphrase -r REPOSITORY",
    "Put back a lost server: hotspare self rebuild -r REPOSITORY",
    "Restore: hotspare point list, then hotspare restore --help",
)
_WARNING = (
    "Whoever has this page can read every backup. Keep it where you keep deeds, not beside the repository."
)
_LINE_GROUPS = 5
_PAGE = (210, 297)
"""Millimetres: A4."""
_QR_SIZE = 60


class RecoveryKit(NamedTuple):
    """What the page says."""

    url: str
    repository_id: str
    created: str
    slot: str
    key: bytes

    @property
    def key_lines(self) -> list[str]:
        """The key in lines of few groups."""
        groups = format_recovery_key(self.key).split("-")
        return ["  ".join(groups[at : at + _LINE_GROUPS]) for at in range(0, len(groups), _LINE_GROUPS)]

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What is said about the repository."""
        return [
            ("Repository", self.url),
            ("Id", self.repository_id),
            ("Key slot", self.slot),
            ("Made on", self.created),
        ]


def check_kit_path(path: Path) -> None:
    """Refuse a place that a kit cannot be written to, before a key is made for it.

    Raises:
        UsageError: its name ends in no form that is known.
        TargetExists: something is there.
    """
    if path.suffix not in FORMS:
        raise UsageError(
            f"A recovery kit cannot be written as {path.name}",
            meaning="Nothing was done",
            hint=f"End the name in {' or '.join(FORMS)}; browsers print SVG, also to PDF",
        )
    if path.exists():
        raise TargetExists(
            f"There is something at {path}", meaning="Nothing was done", hint="Name another file"
        )


def write_kit(kit: RecoveryKit, path: Path) -> None:
    """Write the page to a new file that only its owner may read.

    Raises:
        TargetExists, PermissionRefused, NoSpace: it could not be written.
    """
    text = kit_as_svg(kit) if path.suffix == ".svg" else kit_as_text(kit)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise _explained(error, path) from error


def kit_as_text(kit: RecoveryKit) -> str:
    """Give the page as text, with the QR code in block letters."""
    lines = ["HOTSPARE RECOVERY KIT", ""]
    lines += [f"{title + ':':12}{value}" for title, value in kit.facts]
    lines += ["", "Recovery key:", "", *(f"    {line}" for line in kit.key_lines), ""]
    lines += [f"    {row}" for row in _block_rows(_qr(kit))]
    lines += ["", "To get the data back:", ""]
    lines += [f"{number}. {step}" for number, step in enumerate(_STEPS, start=1)]
    return "\n".join([*lines, "", _WARNING, ""])


def kit_as_svg(kit: RecoveryKit) -> str:
    """Give the page as an SVG image of the size of a sheet."""
    width, height = _PAGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}mm" height="{height}mm"'
        f' viewBox="0 0 {width} {height}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(20, 28, "Hotspare recovery kit", size=9, bold=True),
    ]
    y = 44
    for title, value in kit.facts:
        parts.append(_text(20, y, title, size=4.2, bold=True))
        parts.append(_text(50, y, value, size=_fitting(value, 140), mono=True))
        y += 8
    y += 8
    parts.append(_text(20, y, "Recovery key", size=5, bold=True))
    for line in kit.key_lines:
        y += 10
        parts.append(_text(20, y, line, size=6.2, mono=True))
    y += 10
    parts.append(_qr_as_svg(_qr(kit), 20, y))
    y += _QR_SIZE + 12
    parts.append(_text(20, y, "To get the data back", size=5, bold=True))
    for number, step in enumerate(_STEPS, start=1):
        y += 8
        parts.append(_text(20, y, f"{number}. {step}", size=4.2))
    y += 14
    parts.append(_text(20, y, _WARNING, size=3.5, bold=True))
    return "\n".join([*parts, "</svg>", ""])


def _qr(kit: RecoveryKit) -> segno.QRCode:
    return segno.make_qr(format_recovery_key(kit.key), error="m")


def _block_rows(code: segno.QRCode) -> list[str]:
    """Give two rows of the code in one line of text."""
    border = 2
    modules = [[bool(module) for module in row] for row in code.matrix_iter(border=border)]
    modules += [[False] * len(modules[0])] * (len(modules) % 2)
    shapes = {(True, True): " ", (True, False): "▄", (False, True): "▀", (False, False): "█"}
    return [
        "".join(shapes[above, below] for above, below in zip(modules[at], modules[at + 1], strict=True))
        for at in range(0, len(modules), 2)
    ]


def _qr_as_svg(code: segno.QRCode, x: float, y: float) -> str:
    rows = [list(row) for row in code.matrix_iter(border=0)]
    squares = "".join(
        f"M{column} {line}h1v1h-1z"
        for line, row in enumerate(rows)
        for column, dark in enumerate(row)
        if dark
    )
    return f'<path transform="translate({x} {y}) scale({_QR_SIZE / len(rows):.4f})" d="{squares}"/>'


def _text(x: float, y: float, text: str, *, size: float, bold: bool = False, mono: bool = False) -> str:
    family = "monospace" if mono else "sans-serif"
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x}" y="{y}" font-family="{family}" font-size="{size:.2f}"{weight}'
        f' xml:space="preserve">{escape(text)}</text>'
    )


def _fitting(text: str, width: float) -> float:
    """Give the size in which a text fits a width; letters of a monospaced font are 0.6 wide."""
    return min(4.2, width / (0.62 * max(1, len(text))))


def _explained(error: OSError, path: Path) -> HotspareError:
    what = f"The recovery kit {path} cannot be written: {error.strerror}"
    if isinstance(error, FileExistsError):
        return TargetExists(f"There is something at {path}", meaning="Nothing was done")
    if isinstance(error, PermissionError):
        return PermissionRefused(what, meaning="Nothing was done", hint="Name a folder you may write to")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UsageError(what, meaning="Nothing was done", hint="Name a folder that is there")
    return NoSpace(what, meaning="Nothing was done", hint="Name another folder")
