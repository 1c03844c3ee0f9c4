"""Roles and the scopes in which they hold: who is permitted what, decided without looking anything up."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from hotspare.errors import UsageError


class Permission(StrEnum):
    """What somebody can be permitted."""

    READ = "read"
    """See machines, points, runs, policies, repositories and jobs."""
    BROWSE = "browse"
    """See the files inside restore points."""
    RESTORE = "restore"
    BACK_UP = "back-up"
    CHECK = "check"
    """Have a repository checked."""
    CONFIGURE = "configure"
    """Change policies."""
    FORGET = "forget"
    """Remove restore points, and give space back."""
    ADMINISTER = "administer"
    """Users, approvals, and the record of what was done."""


class Role(StrEnum):
    """A set of permissions with a name."""

    VIEWER = "viewer"
    RESTORE_ONLY = "restore-only"
    OPERATOR = "operator"
    ADMIN = "admin"


PERMISSIONS = {
    Role.VIEWER: frozenset({Permission.READ}),
    Role.RESTORE_ONLY: frozenset({Permission.READ, Permission.BROWSE, Permission.RESTORE}),
    Role.OPERATOR: frozenset(
        {
            Permission.READ,
            Permission.BROWSE,
            Permission.RESTORE,
            Permission.BACK_UP,
            Permission.CHECK,
        }
    ),
    Role.ADMIN: frozenset(Permission),
}

ANY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What somebody wants to see or change.

    A field that is None does not apply or is not known: only who is not restricted in it may.
    """

    repository: str | None = None
    """URL."""
    platform: str | None = None
    """URI."""
    tags: frozenset[str] | None = None
    """Of the machine."""


EVERYTHING = Target()
"""What belongs to no repository, platform or machine: users, say."""


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A role within a scope. Patterns are those of file names: ``qemu+ssh://*``."""

    role: Role
    repository: str = ANY
    platform: str = ANY
    tag: str = ANY

    def covers(self, target: Target) -> bool:
        """Tell whether the scope takes the target in."""
        return (
            _fits(self.repository, target.repository)
            and _fits(self.platform, target.platform)
            and (self.tag == ANY or any(fnmatchcase(tag, self.tag) for tag in target.tags or ()))
        )


def permits(grants: Iterable[Grant], permission: Permission, target: Target) -> bool:
    """Tell whether one of the grants permits something upon a target."""
    return any(permission in PERMISSIONS[grant.role] and grant.covers(target) for grant in grants)


def permits_somewhere(grants: Iterable[Grant], permission: Permission) -> bool:
    """Tell whether one of the grants permits something, in whatever scope."""
    return any(permission in PERMISSIONS[grant.role] for grant in grants)


def parse_grant(text: str) -> Grant:
    """Read ``operator`` or ``viewer:platform=qemu*,tag=prod``. Raises ``UsageError``."""
    role, _, scope = text.partition(":")
    fields = dict(part.partition("=")[::2] for part in scope.split(",") if part)
    try:
        return msgspec.convert({**fields, "role": role}, Grant)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"'{text}' is no role: {error}",
            meaning="Nothing was changed",
            hint="Say it like operator or viewer:repository=*,platform=qemu*,tag=prod;"
            f" roles are {', '.join(Role)}",
        ) from error


def _fits(pattern: str, value: str | None) -> bool:
    return pattern == ANY or (value is not None and fnmatchcase(value, pattern))
