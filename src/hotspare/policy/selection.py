"""Which machines a policy is for. Asked anew each time, so machines that come later are in by themselves."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from functools import lru_cache

import msgspec


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which machines; each empty field leaves all in, so that without any it is the whole host."""

    platforms: tuple[str, ...] = ()
    """URIs; empty for the platform that is set for commands."""
    names: tuple[str, ...] = ()
    """Patterns, as of a shell: one of them fits the machine's name."""
    exclude: tuple[str, ...] = ()
    """Patterns: none of them does."""
    tags: tuple[str, ...] = ()
    """The machine has one of these, exactly."""

    def obstacle(self, name: str, tags: Iterable[str]) -> str | None:
        """Say why a machine of one of its platforms is not meant; None when it is."""
        if self.exclude and _any_of(self.exclude).match(name):
            return f"excluded by {_fitting(self.exclude, name)[0]}"
        if self.names and not _any_of(self.names).match(name):
            return "no pattern fits its name"
        if self.tags and set(self.tags).isdisjoint(tags):
            return "it has none of the tags"
        return None

    def reason(self, name: str, tags: Iterable[str]) -> str:
        """Say by what a machine that is meant got in."""
        fitting = _fitting(self.names, name)
        shared = [tag for tag in self.tags if tag in set(tags)]
        parts = [*(f"name fits {pattern}" for pattern in fitting[:1]), *(f"tag {tag}" for tag in shared[:1])]
        return ", ".join(parts) or "the whole host"


@lru_cache(maxsize=4096)
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Give one expression for all of them: each is asked for each machine, every few seconds."""
    return re.compile("|".join(map(translate, patterns)))


def _fitting(patterns: tuple[str, ...], name: str) -> list[str]:
    return [pattern for pattern in patterns if fnmatchcase(name, pattern)]


@dataclass(frozen=True, slots=True)
class KnownMachine:
    """What a selection has to know of a machine."""

    id: str
    name: str
    platform: str
    """URI."""
    tags: tuple[str, ...] = ()
