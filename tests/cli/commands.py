"""The commands of the program, as it knows them itself."""

from cyclopts import App

from hotspare.cli.app import NOUNS, app


def every_command() -> dict[str, App]:
    """Give every command by its words: ``repo create``, ``backup``."""
    found: dict[str, App] = {}
    for name in NOUNS:
        noun = app[name]
        if noun.default_command is not None:
            found[name] = noun
        found |= {f"{name} {verb}": noun[verb] for verb in noun if not verb.startswith("-")}
    return found
