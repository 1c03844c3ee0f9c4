"""In which order the machines of a group start. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from hotspare.errors import UsageError
from hotspare.replication.model import Membership, Mode, Protection


def membership(protection: Protection) -> Membership:
    """Give the place of a machine in its group. Raises ``UsageError`` for one without."""
    if protection.group is None:
        raise UsageError(f"The machine {protection.machine} is in no group", meaning="Nothing was done")
    return protection.group


def members_of(group: str, protections: Sequence[Protection]) -> list[Protection]:
    """Give the members of a group in the order of their start: by rank, then by name."""
    found = [one for one in protections if one.group is not None and one.group.name == group]
    return sorted(found, key=lambda one: (membership(one).rank, one.machine, one.id))


def in_order(members: Sequence[Protection], names: Sequence[str]) -> list[Protection]:
    """Put members into another order: first those that are named, in that order, then the others as before.

    Args:
        members: in the order of before.
        names: machines, by name or id of their protection.

    Raises:
        UsageError: one is named twice, or is no member.
    """
    left, ordered = list(members), []
    for name in names:
        found = [one for one in left if name in {one.machine, one.machine_id, one.id}]
        if len(found) != 1:
            known = ", ".join(one.machine for one in members)
            raise UsageError(
                f"{name} is named twice, or is no member of the group",
                meaning="Nothing was done",
                hint=f"Its members are {known}",
            )
        left.remove(found[0])
        ordered.append(found[0])
    return [*ordered, *left]


def ranked(members: Sequence[Protection]) -> list[Protection]:
    """Let the order that members are in be that of their start."""
    return [changed(one, {"rank": number}) for number, one in enumerate(members)]


def changed(protection: Protection, changes: Mapping[str, object]) -> Protection:
    """Change the place of a machine in its group."""
    place = msgspec.structs.replace(membership(protection), **changes)
    made: Protection = msgspec.structs.replace(protection, group=place)
    return made


def joined(protection: Protection, name: str, members: Sequence[Protection], like: Membership) -> Protection:
    """Give a machine a place in a group, the last.

    Args:
        protection: of the machine.
        name: of the group.
        members: that it has.
        like: how the group is, if it has none yet.

    Raises:
        UsageError: it cannot be in this group.
    """
    machine = protection.machine
    if protection.mode is not Mode.SYNC:
        raise UsageError(
            f"{machine} is kept in {protection.mode} mode, and only machines in sync mode can be in a group",
            meaning="Nothing was changed",
            hint="Shipments of several machines are of different instants; protect it again with --mode sync",
        )
    if protection.group is not None and protection.group.name != name:
        raise UsageError(
            f"{machine} is in the group {protection.group.name} already",
            meaning="Nothing was changed",
            hint=f'"hotspare replica group leave {machine}" comes first',
        )
    for other in members:
        if (other.source, other.standby) != (protection.source, protection.standby):
            raise UsageError(
                f"{machine} and {other.machine} have not the same source and standby",
                meaning="Nothing was changed",
                hint="All machines of a group run on one host, and have their replicas on one other",
            )
    if any(one.id == protection.id for one in members):
        return protection
    place = membership(members[0]) if members else like
    last = max((membership(one).rank for one in members), default=-1)
    place = Membership(
        name=name,
        interval=place.interval,
        retention=place.retention,
        pause_limit=place.pause_limit,
        rank=last + 1,
    )
    made: Protection = msgspec.structs.replace(protection, group=place)
    return made


def problem_of(members: Sequence[Protection]) -> str:
    """Say why these machines cannot be one group at the moment; empty when they can."""
    if len({one.source for one in members}) > 1:
        return "its machines run on several hosts"
    if len({one.standby for one in members}) > 1:
        return "its machines have several standbys"
    return ""
