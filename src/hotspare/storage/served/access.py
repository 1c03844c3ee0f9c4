"""What a client of a served store may do, decided by the names of objects alone."""

import re
from dataclasses import dataclass
from enum import Enum

from hotspare.storage import backend

_NAME_MAX = 512
_NAME = re.compile(r"[a-z0-9_-][a-z0-9_.-]*(?:/[a-z0-9_-][a-z0-9_.-]*)*")


class Change(Enum):
    """How an object may come to be and go."""

    NONE = "none"
    ADD = "add"
    """It may be put where there is none, and stays; putting the same bytes again is no error."""
    ADD_HASHED = "add-hashed"
    """The same, and the last part of its name has to be the BLAKE3-256 of its bytes."""
    OWN = "own"
    """It may be put; who can show that he knows what is in it may replace and remove it. None may read it."""
    ANY = "any"


@dataclass(frozen=True, slots=True)
class NameRule:
    """What may be done to the objects whose whole name matches."""

    pattern: re.Pattern[str]
    change: Change


@dataclass(frozen=True, slots=True)
class AccessRules:
    """All that a client may do. Everything may be read, but for what is ``Change.OWN``."""

    access: backend.Access
    rules: tuple[NameRule, ...] = ()
    """The first that matches decides; where none does, nothing may be changed."""
    own_prefix: str = ""
    """What the names begin with that are ``Change.OWN``."""

    def change_of(self, name: str) -> Change:
        """Tell what may be done to an object."""
        return next((rule.change for rule in self.rules if rule.pattern.fullmatch(name)), Change.NONE)


FULL = AccessRules("full", (NameRule(re.compile(".*"), Change.ANY),))
READ_ONLY = AccessRules("read-only")


def is_object_name(name: str) -> bool:
    """Tell whether this can be the name of an object: nothing that leads out of the folder or is hidden."""
    return len(name) <= _NAME_MAX and _NAME.fullmatch(name) is not None


def is_prefix(prefix: str) -> bool:
    """Tell whether names can begin so; the empty prefix is that of all."""
    return not prefix or is_object_name(prefix.removesuffix("/"))
