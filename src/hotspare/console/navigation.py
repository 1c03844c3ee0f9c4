"""The places that every page leads to, for those who may go there."""

from dataclasses import dataclass

from hotspare.access.roles import EVERYTHING, Permission
from hotspare.access.tokens import Caller


@dataclass(frozen=True, slots=True)
class Place:
    """One place."""

    title: str
    path: str
    permission: Permission | None = None
    """None for everybody who is logged in."""
    everywhere: bool = False


PLACES = (
    Place("Overview", "/", Permission.READ),
    Place("Machines", "/machines", Permission.READ),
    Place("Activity", "/activity", Permission.READ),
    Place("Policies", "/policies", Permission.READ, everywhere=True),
    Place("Restore", "/restore", Permission.BROWSE),
    Place("Repositories", "/repositories", Permission.READ),
    Place("Reports", "/reports", Permission.READ),
    Place("Audit", "/audit", Permission.ADMINISTER, everywhere=True),
    Place("Settings", "/settings"),
)


def places_for(caller: Caller) -> list[Place]:
    """Give the places where somebody may go."""
    return [place for place in PLACES if _may(caller, place)]


def _may(caller: Caller, place: Place) -> bool:
    if place.permission is None:
        return True
    if place.everywhere:
        return caller.may(place.permission, EVERYTHING)
    return caller.may_somewhere(place.permission)
