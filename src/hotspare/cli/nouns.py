"""The list of nouns, and the page that shows them all: made without the libraries that commands need."""

import shutil
import textwrap
from collections.abc import Mapping

_TITLE = "Back up virtual machines while they run, and get them back."
GROUPS = {
    "Protect": {
        "machine": "See which machines a platform has, and since when they are protected.",
        "backup": "Back up machines, or a disk image.",
        "policy": "Say what is protected, when, how and for how long, and have it done.",
        "config": "Keep all policies in one YAML document: export, compare, apply.",
        "load": "Sample how busy hosts are, and see when backups disturb least.",
        "replica": "Keep machines on a second host as well, ready to go on there.",
        "sweep": "Remove what backups that were killed left on a platform.",
    },
    "Get back": {
        "point": "See restore points, serve their disks, forget them.",
        "restore": "Restore a machine as a new one or over itself, or single disks to files.",
        "recover": "Start a machine straight from the repository, within seconds.",
        "files": "Look for files inside restore points, and get them back.",
        "mount": "Show the files of restore points as a folder, until Ctrl-C.",
    },
    "Be sure": {
        "verify": "Read restore points back, or start them, and prove that they are good.",
        "run": "See what was done on this host, and how it ended.",
        "report": "Sum up a period: runs, promises kept, tested restores, what is protected and stored.",
        "watchdog": "Look whether machines are protected as promised, whatever the server does or does not.",
        "notice": "See who is told when something is wrong, try that out, and see what was sent.",
    },
    "The repository": {
        "repo": "Make a repository, describe it, check it, repair it, copy it.",
        "key": "See who can open the repository, and change it.",
        "self": "Keep Hotspare's own memory in the repository, and rebuild a lost server of it.",
    },
    "The server": {
        "server": "Have policies run by themselves and serve the HTTP interface; movers on other hosts.",
        "job": "See what the server does, cancel it, have it done again or sooner.",
        "user": "See who may use the server, and change it.",
        "audit": "See what was done on the server, and prove that nobody has changed that record.",
        "mover": "Do a command's work on this host, for a user of another.",
    },
    "This host": {
        "doctor": "Say what this host lacks, and how to mend it.",
        "completion": "Print the completion script of a shell.",
    },
}
"""What there are commands for, by what people come for."""
NOUNS = {noun: summary for group in GROUPS.values() for noun, summary in group.items()}

_BEGINNING = """\
Begin with:
  export HOTSPARE_REPOSITORY=file:///srv/backup
  hotspare repo create
  hotspare machine list
  hotspare backup MACHINE

Each command has its own --help, with examples. Exit statuses: 0 is done, all else is not; "hotspare
backup --help" lists those of a backup."""
_OPTIONS = {
    "--help, -h": "Show this; behind a command, show what that does.",
    "--version": "Show the version.",
}
_WIDTH_MAX = 100
_INDENT = max(map(len, NOUNS)) + 4


def overview() -> str:
    """Give what ``hotspare --help`` prints."""
    width = min(shutil.get_terminal_size().columns, _WIDTH_MAX)
    parts = ["Usage: hotspare COMMAND", textwrap.fill(_TITLE, width)]
    parts += [f"{title}:\n{_table(nouns, width)}" for title, nouns in GROUPS.items()]
    return "\n\n".join([*parts, _table(_OPTIONS, width), _BEGINNING])


def _table(rows: Mapping[str, str], width: int) -> str:
    """Put words and what they mean side by side, however narrow the terminal is."""
    return "\n".join(
        textwrap.fill(
            meaning,
            max(width, 2 * _INDENT),
            initial_indent=f"  {word}".ljust(_INDENT),
            subsequent_indent=" " * _INDENT,
        )
        for word, meaning in rows.items()
    )
