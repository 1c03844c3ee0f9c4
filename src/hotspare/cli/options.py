"""The options that every command takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from hotspare.cli.directed import given

OutputFormat = Literal["text", "json"]
ProgressForm = Literal["auto", "jsonl", "none"]

Switch = Annotated[bool, Parameter(negative="", show_default=False)]
"""An option without a value: on when it is given."""
Repeatable = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False, show_default=False)]
"""An option that is given once for each of its values."""

_GROUP = Group.create_ordered("Options of every command")


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, kw_only=True)
class Options:
    """What every command can be told."""

    repository: Annotated[str | None, Parameter(name=("--repository", "-r"))] = None
    """URL or folder of the repository; else HOTSPARE_REPOSITORY, else the configuration file's."""
    config: Path | None = None
    """Configuration file; else HOTSPARE_CONFIG, else the usual place."""
    output: Annotated[OutputFormat, Parameter(name=("--output", "-o"))] = "text"
    """Form of the result: text for people, or one JSON document."""
    progress: ProgressForm = "auto"
    """Form of the progress on stderr: auto is bars on a terminal and nothing elsewhere."""
    no_progress: Switch = False
    """The same as --progress none."""
    server: str | None = None
    """Put the question to the server at this URL, with the token in HOTSPARE_TOKEN or HOTSPARE_TOKEN_FILE."""
    debug: Switch = False
    """Show the traceback of an error."""

    @property
    def progress_form(self) -> ProgressForm:
        """The progress that is wanted, ``--no-progress`` included."""
        directions = given.get()
        if directions is not None:
            return directions.progress
        return "none" if self.no_progress else self.progress


DEFAULTS = Options()
