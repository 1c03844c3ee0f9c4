"""The commands of all nouns. Each one's file is imported when the noun is used."""

from cyclopts import App

from hotspare import __version__
from hotspare.cli.nouns import NOUNS

app = App(
    name="hotspare",
    help_format="plaintext",
    version=__version__,
    version_flags=("--version",),
    result_action="return_value",
)
for _name, _summary in NOUNS.items():
    app.command(f"hotspare.cli.{_name}:app", name=_name, help=_summary)
