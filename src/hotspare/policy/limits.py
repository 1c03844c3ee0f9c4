"""How many runs may go on at once, on each of the things that they share."""

from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

import msgspec

ResourceKind = Literal["host", "pool", "link", "repository", "mover"]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000)]


class Resource(NamedTuple):
    """Something that runs share."""

    kind: ResourceKind
    name: str
    """A platform's URI; the folder or device of a pool; a link's name; a repository's URL; a mover's name."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most runs at once: for each thing of a kind, and for some by name."""

    host: Count = 2
    pool: Count = 2
    link: Count = 4
    repository: Count = 8
    mover: Count = 4
    named: dict[str, Count] = msgspec.field(default_factory=dict)
    """By kind and name: ``host qemu:///system: 1``; 0 lets nothing begin there."""

    def of(self, resource: Resource) -> int:
        """Give the limit of one thing."""
        named = self.named.get(str(resource))
        return named if named is not None else int(getattr(self, resource.kind))


def resources(
    *, host: str, repository: str = "", pools: Iterable[str] = (), link: str = "", mover: str = ""
) -> frozenset[Resource]:
    """Give what a run takes part of, leaving out what is empty."""
    given: list[tuple[ResourceKind, str]] = [
        ("host", host),
        ("repository", repository),
        ("link", link),
        ("mover", mover),
        *(("pool", pool) for pool in pools),
    ]
    return frozenset(Resource(kind, name) for kind, name in given if name)
