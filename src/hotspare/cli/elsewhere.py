"""How a command says that it is for another host: ``run_elsewhere.py`` and ``on_server.py`` do it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the program's entry point needs this module, and must not import what these need
    from hotspare.cli.options import Options
    from hotspare.settings import Settings


class Elsewhere(Exception):
    """The platform of a command is on another host."""

    def __init__(self, settings: "Settings", options: "Options") -> None:
        super().__init__(settings.platform)
        self.settings = settings
        self.options = options


class OnServer(Exception):
    """The command is to be put to a server."""

    def __init__(self, options: "Options") -> None:
        super().__init__(options.server)
        self.options = options
