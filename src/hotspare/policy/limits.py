"""How many runs may go on at once, on each of the things that they share."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Literal, NamedTuple

import msgspec

from hotspare.errors import UsageError
from hotspare.policy.policy import AMOUNT, Misfit

ResourceKind = Literal["host", "pool", "link", "repository", "mover"]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000)]


class Resource(NamedTuple):
    """Something that runs share."""

    kind: ResourceKind
    name: str
    """A platform's URI; the folder or device of a pool; a link's name; a repository's URL; a mover's name."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A network link, by what lies behind it: a run takes part of it when just one of its two ends does."""

    hosts: tuple[str, ...] = ()
    """Patterns, as of a shell, of platforms' URIs."""
    repositories: tuple[str, ...] = ()
    """Patterns of repositories' URLs."""
    bandwidth: str = ""
    """That all runs together may take for what they store: ``50MiB/s``; empty for all that there is."""

    def is_crossed(self, host: str, repository: str) -> bool:
        """Tell whether what is stored of a machine crosses it."""
        return _fits(host, self.hosts) != _fits(repository, self.repositories)


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most runs at once: for each thing of a kind, and for some by name."""

    host: Count = 2
    pool: Count = 2
    link: Count = 4
    repository: Count = 8
    mover: Count = 4
    named: dict[str, Count] = msgspec.field(default_factory=dict)
    """By kind and name: ``host qemu:///system: 1``; 0 lets nothing begin there."""
    links: dict[str, Link] = msgspec.field(default_factory=dict)
    """Those that there are, by name."""

    def of(self, resource: Resource) -> int:
        """Give the limit of one thing."""
        named = self.named.get(str(resource))
        return named if named is not None else int(getattr(self, resource.kind))

    def links_of(self, host: str, repository: str) -> frozenset[str]:
        """Name the links that are crossed by what is stored of a machine.

        Args:
            host: URI of its platform.
            repository: URL.
        """
        return frozenset(name for name, link in self.links.items() if link.is_crossed(host, repository))

    def shares(self, links: Iterable[str]) -> list[tuple[str, int]]:
        """Give the bandwidths of links, each with the number of runs that it is divided among.

        That is the most that there may be, and not those that go on just now: so the link is never taken
        more of, whoever begins later.
        """
        return [
            (self.links[name].bandwidth, max(1, self.of(Resource("link", name))))
            for name in sorted(links)
            if self.links[name].bandwidth
        ]


def checked_limits(limits: Limits) -> Limits:
    """Give limits back when all their texts can be read.

    Raises:
        Misfit: one cannot.
    """
    for name, link in limits.links.items():
        rate = AMOUNT.fullmatch(link.bandwidth)
        if link.bandwidth and not (rate and float(rate[1])):
            problem = UsageError(f"{link.bandwidth!r} is no rate", hint="Write it like 50MiB/s")
            raise Misfit(("links", name, "bandwidth"), problem)
        if not (link.hosts or link.repositories):
            problem = UsageError(
                f"Nothing lies behind the link {name}", hint="Name hosts or repositories that do"
            )
            raise Misfit(("links", name), problem)
    for named in limits.named:
        kind, _, link_name = named.partition(" ")
        if kind == "link" and link_name not in limits.links:
            problem = UsageError(
                f"There is no link '{link_name}'", hint="Say what lies behind it, below links"
            )
            raise Misfit(("named", named), problem)
    return limits


def resources(
    *,
    host: str,
    repository: str = "",
    pools: Iterable[str] = (),
    links: Iterable[str] = (),
    mover: str = "",
) -> frozenset[Resource]:
    """Give what a run takes part of, leaving out what is empty."""
    given: list[tuple[ResourceKind, str]] = [
        ("host", host),
        ("repository", repository),
        ("mover", mover),
        *(("link", link) for link in links),
        *(("pool", pool) for pool in pools),
    ]
    return frozenset(Resource(kind, name) for kind, name in given if name)
