"""The list of machines, filtered and in pages."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request
from starlette.responses import Response

from hotspare.api.guard import CallerHere
from hotspare.console.figures import FiguresHere
from hotspare.console.rendering import page
from hotspare.fleet.standing import MachineStanding

PAGE = 50
_GRAVITY = ("failed", "missed", "stale", "never-run", "warning", "running", "disabled", "gone", "ok")
STATES = ("unprotected", "protected", "rpo-broken", *_GRAVITY)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A page of the machines that fit."""

    page: Sequence[MachineStanding]
    count: int
    """Of all that fit."""
    number: int
    """Of the page; the first is 1."""

    @property
    def pages(self) -> int:
        """How many there are."""
        return pages_of(self.count)


def show_machines(
    request: Request,
    caller: CallerHere,
    figures: FiguresHere,
    q: str = "",
    state: str = "",
    platform: str = "",
    number: int = 1,
) -> Response:
    """Show the machines that fit, a page at a time."""
    standings = figures.standings(caller)
    return page(
        request,
        "machines.html",
        title="Machines",
        chosen=chosen_from(standings, q, state, platform, number),
        states=STATES,
        platforms=sorted({one.platform for one in standings}),
        problems=figures.problems(caller),
        asked={"q": q, "state": state, "platform": platform},
    )


def pages_of(count: int) -> int:
    """Give how many pages so many machines take; the first is there without any."""
    return max(1, -(-count // PAGE))


def chosen_from(
    standings: Sequence[MachineStanding], q: str, state: str, platform: str, number: int
) -> Chosen:
    """Give a page of the machines whose name or tag has a text in it, and that stand so, there."""
    text = q.strip().casefold()
    fitting = [
        one
        for one in standings
        if (not platform or one.platform == platform)
        and (not text or _has(one, text))
        and (not state or _stands(one, state))
    ]
    last = pages_of(len(fitting))
    at = min(max(1, number), last)
    return Chosen(fitting[(at - 1) * PAGE : at * PAGE], len(fitting), at)


def troubled_first(standings: Sequence[MachineStanding]) -> list[MachineStanding]:
    """Give the machines in the order in which somebody should look at them."""
    return sorted(standings, key=lambda one: (_GRAVITY.index(one.name), one.line.name, one.line.id))


def _has(one: MachineStanding, text: str) -> bool:
    tags = one.line.machine.marks.tags if one.line.machine else ()
    return text in one.line.name.casefold() or any(text in tag.casefold() for tag in tags)


def _stands(one: MachineStanding, state: str) -> bool:
    if state == "unprotected":
        return not one.protected and one.name != "gone"
    if state == "protected":
        return one.protected
    if state == "rpo-broken":
        return one.rpo_broken
    return one.name == state
