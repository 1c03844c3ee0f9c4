"""What a command is told that runs here for a user of another host, in place of flags and prompts."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from hotspare.repository.keys.slot import Credential
from hotspare.storage.backend import Backend


@dataclass(frozen=True, slots=True)
class Directions:
    """All that the other host decides beside the command line itself."""

    settings: Mapping[str, str]
    """They go before those of the command line."""
    progress: Literal["auto", "jsonl", "none"]
    credential: Callable[[], Credential]
    """Gives what opens the repository."""
    has_credential: bool
    """Whether nobody has to be asked for it."""
    open_store: Callable[[], Backend] | None
    """Opens the repository's store, when it is the other host's folder."""


given: ContextVar[Directions | None] = ContextVar("directions", default=None)
"""None for a command of a user of this host."""
