"""Who is told of what: receivers as users define them in ``notices.yaml``; see docs/notices.md."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from hotspare.errors import UsageError
from hotspare.policy.calendar import Calendar
from hotspare.policy.local_time import zone_named
from hotspare.policy.occurrence import SEVERITIES, Kind, Occurrence, Severity
from hotspare.policy.policy import NAME, Misfit

_TIME_OF_DAY = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_A_DAY = timedelta(days=1)


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One part of a definition; what is not known in it is refused, for it is most likely misspelt."""


class Match(_Part, frozen=True, kw_only=True):
    """What a receiver is told; each empty field leaves all in."""

    events: tuple[Kind, ...] = ()
    severity: Severity | None = None
    """At least so bad; None for ``warning``, and for whatever is named in ``events``."""
    machines: tuple[str, ...] = ()
    """Patterns, as of a shell: one of them fits the machine's name."""
    exclude: tuple[str, ...] = ()
    """Patterns: none of them does."""
    policies: tuple[str, ...] = ()
    """Patterns for the name of the policy."""
    tags: tuple[str, ...] = ()
    """The machine has one of these. Where it is not known which it has, it counts as if it had."""

    def fits(self, occurrence: Occurrence) -> bool:
        """Tell whether it is about what is meant here. What is about no machine has no name that fits."""
        if self.events and occurrence.kind not in self.events:
            return False
        least: Severity = self.severity or ("info" if self.events else "warning")
        return (
            SEVERITIES.index(occurrence.severity) >= SEVERITIES.index(least)
            and _fits(self.machines, occurrence.machine)
            and not any(fnmatchcase(occurrence.machine, pattern) for pattern in self.exclude)
            and _fits(self.policies, occurrence.policy)
            and self._has_tag(occurrence)
        )

    def _has_tag(self, occurrence: Occurrence) -> bool:
        if not self.tags:
            return True
        if occurrence.tags is None:
            return bool(occurrence.machine)
        return not set(self.tags).isdisjoint(occurrence.tags)


class Receiver(_Part, frozen=True, kw_only=True):
    """Somebody, or something, that is told. Where exactly is a secret, so it is only said where that lies."""

    name: str
    url_file: str = ""
    """Path of a file with one line: a URL of apprise."""
    url_variable: str = ""
    """Name of an environment variable with that."""
    enabled: bool = True
    match: Match = Match()
    mended: bool = True
    """Tell also that something is well again, to who was told that it was not."""
    delivery: Literal["immediate", "digest"] = "immediate"
    digest_at: str = "07:00"
    time_zone: str = ""
    """Of ``digest_at``; empty for that of the policy which it is about, else UTC."""

    def due(self, occurrence: Occurrence, now: datetime) -> datetime:
        """Say when it is to be told of an occurrence."""
        if self.delivery == "immediate":
            return now
        zone = self.zone or _zone_or_utc(occurrence.time_zone)
        return Calendar(self.digest_at, zone).next_after(now) or now + _A_DAY

    @property
    def zone(self) -> ZoneInfo | None:
        """Its own time zone."""
        return zone_named(self.time_zone) if self.time_zone else None

    @property
    def place(self) -> str:
        """Where its URL is to be found, for people."""
        return f"file {self.url_file}" if self.url_file else f"variable {self.url_variable}"


def checked_receiver(receiver: Receiver) -> Receiver:
    """Give the receiver back when all its texts can be used.

    Raises:
        Misfit: one cannot.
    """
    for path, problem in _problems(receiver):
        raise Misfit(path, problem)
    return receiver


def _problems(receiver: Receiver) -> Iterator[tuple[tuple[str | int, ...], UsageError]]:
    if not NAME.fullmatch(receiver.name):
        hint = "Use small letters, digits and . _ - behind the first; 63 at most"
        yield (), UsageError(f"A receiver cannot be called {receiver.name!r}", hint=hint)
    if bool(receiver.url_file) == bool(receiver.url_variable):
        hint = "Put the URL into a file that only root may read, and name that: url_file: /etc/hotspare/..."
        yield (), UsageError("Either url_file or url_variable has to say where the URL is", hint=hint)
    if receiver.url_file and not receiver.url_file.startswith("/"):
        problem = UsageError(f"{receiver.url_file!r} is no absolute path", hint="Begin it with /")
        yield ("url_file",), problem
    if receiver.url_variable and not _VARIABLE.fullmatch(receiver.url_variable):
        hint = "Give the name of a variable, as HOTSPARE_NOTICE_ONCALL; not what is in it"
        yield ("url_variable",), UsageError("This is no name of a variable", hint=hint)
    if not _TIME_OF_DAY.fullmatch(receiver.digest_at):
        problem = UsageError(f"{receiver.digest_at!r} is no time of day", hint="Write it like 07:00")
        yield ("digest_at",), problem
    try:
        _ = receiver.zone
    except UsageError as error:
        yield ("time_zone",), error


def _fits(patterns: tuple[str, ...], name: str) -> bool:
    return not patterns or (bool(name) and any(fnmatchcase(name, pattern) for pattern in patterns))


def _zone_or_utc(name: str) -> ZoneInfo:
    try:
        return zone_named(name or "UTC")
    except UsageError:
        return ZoneInfo("UTC")
