"""A policy as users define it, and what its texts mean.

The fields are those of the YAML that docs/policies.md describes. ``checked`` holds a definition to what its
texts have to be, so that a policy which was accepted once never fails for its wording later.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec

from hotspare.errors import UsageError
from hotspare.policy.calendar import Calendar
from hotspare.policy.local_time import zone_named
from hotspare.policy.retention import Retention
from hotspare.policy.selection import Selection
from hotspare.policy.window import OpenTimes, parse_blackout, parse_window

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
"""Names are file names too."""
RESERVED = frozenset({"limits", "notices"})
"""What other files of their folder are called."""
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:[KMGT]i?)?B?(?:/s)?", re.IGNORECASE)
_calendar = lru_cache(maxsize=4096)(Calendar)
"""Each is read once: a server asks all policies for each of their machines every few seconds."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One part of a definition; what is not known in it is refused, for it is most likely misspelt."""


class Schedule(_Part, frozen=True, kw_only=True):
    """When runs are due, and when they may begin."""

    when: tuple[str, ...] = ()
    """Calendar expressions; empty for a policy that is due by its RPO alone, or without one only by hand."""
    time_zone: str = "UTC"
    windows: tuple[str, ...] = ()
    """When runs may begin; empty for always."""
    blackouts: tuple[str, ...] = ()
    """When they may not, whatever the windows say."""
    low_peak: Literal["ignore", "propose", "use"] = "propose"
    """Hours in which a host was seen to have little to do: not looked at, shown, or runs wait for them."""
    rpo: str = ""
    """The oldest that the newest restore point may become: ``26h``; empty for no promise."""
    break_windows_for_rpo: bool = False
    """Begin outside of windows (never in a blackout) what would break that promise by waiting."""
    tested_within: str = ""
    """The oldest that the last trial of a machine may become, as the watchdog sees it: ``30d``."""
    stop_at_window_end: bool = False
    """Stop what is not through when its window closes; the next run uses what it has stored."""


class Manner(_Part, frozen=True, kw_only=True):
    """How each machine is backed up, as the options of ``hotspare backup``."""

    consistency: Literal["crash", "filesystem", "application"] | None = None
    """None for the best that each machine is prepared for."""
    require_consistency: bool = False
    hooks: tuple[str, ...] = ()
    """Empty for the machines' own."""
    skip_unused: bool = True
    index_files: bool = False
    latency_factor: Annotated[float, msgspec.Meta(gt=1)] = 2.0
    read_limit: str = ""
    """``100MiB/s``; empty for none."""
    check_tracking: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    """Percentage."""
    exclude_disks: tuple[str, ...] = ()


class Policy(_Part, frozen=True, kw_only=True):
    """All that is wanted for some machines."""

    name: str
    description: str = ""
    enabled: bool = True
    """A policy that is not is never due; it can still be run by hand."""
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    """Machines of a higher one go first, except before what is urgent."""
    repository: str = ""
    """URL; empty for the one that is set for commands."""
    select: Selection = Selection()
    schedule: Schedule = Schedule()
    backup: Manner = Manner()
    retention: Retention = Retention()

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of its clock."""
        return zone_named(self.schedule.time_zone)

    @property
    def calendars(self) -> list[Calendar]:
        """When it is due."""
        return [_calendar(expression, self.zone) for expression in self.schedule.when]

    @property
    def by_rpo_alone(self) -> bool:
        """Whether no calendar says when it is due, but the age of restore points."""
        return bool(self.schedule.rpo) and not self.schedule.when

    @property
    def runs_by_itself(self) -> bool:
        """Whether it is ever due."""
        return self.enabled and bool(self.schedule.when or self.schedule.rpo)

    @property
    def open_times(self) -> OpenTimes:
        """When its runs may begin."""
        return OpenTimes(
            self.zone,
            tuple(parse_window(text) for text in self.schedule.windows),
            tuple(parse_blackout(text) for text in self.schedule.blackouts),
        )

    @property
    def rpo_seconds(self) -> float | None:
        """The promised recovery point objective; None without a promise."""
        return parse_span(self.schedule.rpo) if self.schedule.rpo else None


def parse_span(text: str) -> float:
    """Read a span of time, as seconds: ``90m``, ``26h``, ``1d12h``. Raises ``UsageError``."""
    squeezed = text.replace(" ", "").lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)([mhdw])", squeezed)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != squeezed or seconds <= 0:
        raise UsageError(f"{text!r} is no span of time", hint="Write it like 90m, 26h or 1d12h")
    return seconds


def checked(policy: Policy) -> Policy:
    """Give the policy back when all its texts can be read.

    Raises:
        Misfit: one cannot.
    """
    for path, problem in _problems(policy):
        raise Misfit(path, problem)
    return policy


class Misfit(UsageError):
    """A text in a definition cannot be read.

    Args:
        path: where it stands: ``("schedule", "when", 0)``.
        problem: what is wrong with it.
    """

    def __init__(self, path: tuple[str | int, ...], problem: UsageError) -> None:
        super().__init__(problem.what, meaning="Nothing was changed", hint=problem.hint)
        self.path = path


def _problems(policy: Policy) -> Iterator[tuple[tuple[str | int, ...], UsageError]]:
    schedule = policy.schedule
    if not NAME.fullmatch(policy.name) or policy.name in RESERVED:
        yield (
            ("name",),
            UsageError(
                f"A policy cannot be called {policy.name!r}",
                hint="Use small letters, digits and . _ - behind the first; 63 at most;"
                " not 'limits' or 'notices'",
            ),
        )
    zone = ZoneInfo("UTC")
    try:
        zone = policy.zone
    except UsageError as error:
        yield ("schedule", "time_zone"), error
    readers = (
        ("when", schedule.when, lambda text: Calendar(text, zone)),
        ("windows", schedule.windows, parse_window),
        ("blackouts", schedule.blackouts, parse_blackout),
    )
    for key, texts, read in readers:
        for number, text in enumerate(texts):
            try:
                read(text)
            except UsageError as error:
                yield ("schedule", key, number), error
    for key, span in (("rpo", schedule.rpo), ("tested_within", schedule.tested_within)):
        try:
            _ = parse_span(span) if span else None
        except UsageError as error:
            yield ("schedule", key), error
    if schedule.break_windows_for_rpo and not schedule.rpo:
        problem = UsageError("Windows can only be broken for a promise", hint="Add rpo: 26h, or leave it out")
        yield ("schedule", "break_windows_for_rpo"), problem
    if policy.backup.read_limit and not _AMOUNT.fullmatch(policy.backup.read_limit):
        problem = UsageError(f"{policy.backup.read_limit!r} is no rate", hint="Write it like 100MiB/s")
        yield ("backup", "read_limit"), problem
