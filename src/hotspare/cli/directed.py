"""What a command is told that runs here for a user of another host, in place of flags and prompts."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from hotspare.backup.claim import UNDISPUTED, Claim
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
    known_as: str = ""
    """URI by which the other host knows the platform; empty where it does not say."""
    claim: Claim = UNDISPUTED
    """Says whether a backup may begin, and finish."""


given: ContextVar[Directions | None] = ContextVar("directions", default=None)
"""None for a command of a user of this host."""


def claim_on_runs() -> Claim:
    """Give what says whether a backup of this command may begin, and finish."""
    directions = given.get()
    return directions.claim if directions else UNDISPUTED


def known_as() -> str:
    """Give the URI by which who has this done knows the platform; empty for what it is called here."""
    directions = given.get()
    return directions.known_as if directions else ""
