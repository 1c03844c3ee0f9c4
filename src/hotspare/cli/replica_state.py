"""Where this host's agent is to be found."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hotspare.cli.options import Options
from hotspare.cli.session import settings_of
from hotspare.replication.link.client import LocalClient

State = Annotated[Path | None, Parameter(name="--state")]
"""The option that every command of ``hotspare replica`` has."""


def state_folder(named: Path | None, options: Options) -> Path:
    """Give the agent's folder: the one that is named, else the one beside the catalog."""
    return named.absolute() if named else settings_of(options).state_folder / "replication"


@contextmanager
def agent_of(named: Path | None, options: Options) -> Iterator[LocalClient]:
    """Connect to this host's agent while the block runs. Raises ``PlatformUnavailable`` without one."""
    with LocalClient(state_folder(named, options)) as client:
        yield client
