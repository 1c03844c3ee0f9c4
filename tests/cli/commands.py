"""The commands of the program, as it knows them itself."""

from collections.abc import Iterable, Iterator

from cyclopts import App

from hotspare.cli.app import app
from hotspare.cli.nouns import NOUNS


def every_command() -> dict[str, App]:
    """Give every command by its words: ``repo create``, ``backup``, ``replica group set``."""
    return dict(_commands(app, "", NOUNS))


def _commands(parent: App, words: str, names: Iterable[str]) -> Iterator[tuple[str, App]]:
    for name in names:
        command = parent[name]
        if command.default_command is not None:
            yield f"{words}{name}", command
        inner = [verb for verb in command if not verb.startswith("-")]
        yield from _commands(command, f"{words}{name} ", inner)
