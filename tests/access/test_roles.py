"""Roles and scopes, and tokens that are narrower than their owners."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.access.roles import EVERYTHING, Grant, Permission, Role, Target, parse_grant, permits
from hotspare.access.tokens import Caller, Token
from hotspare.access.users import User
from hotspare.errors import UsageError

VALUES = st.sampled_from(["a", "b", "ab"])
GRANTS = st.builds(
    Grant,
    role=st.sampled_from(Role),
    repository=st.sampled_from(["*", "a", "a*"]),
    platform=st.sampled_from(["*", "a", "a*"]),
    tag=st.sampled_from(["*", "a", "a*"]),
)
TARGETS = st.builds(
    Target,
    repository=st.none() | VALUES,
    platform=st.none() | VALUES,
    tags=st.none() | st.frozensets(VALUES),
)


def caller(mine: list[Grant], tokens: list[Grant] | None) -> Caller:
    user = User("anna", tuple(mine), has_totp=False, disabled=False, created_at="")
    return Caller(user, Token("1", "anna", "token", "t", None if tokens is None else tuple(tokens), "", None))


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (Role.VIEWER, Permission.READ, Permission.BROWSE),
        (Role.RESTORE_ONLY, Permission.RESTORE, Permission.BACK_UP),
        (Role.OPERATOR, Permission.BACK_UP, Permission.FORGET),
        (Role.OPERATOR, Permission.CHECK, Permission.CONFIGURE),
    ],
)
def test_a_role_permits_what_it_says_and_no_more(role: Role, may: Permission, may_not: Permission) -> None:
    grants = [Grant(role=role)]
    assert permits(grants, may, EVERYTHING)
    assert not permits(grants, may_not, EVERYTHING)


@given(mine=st.lists(GRANTS, max_size=3), tokens=st.lists(GRANTS, max_size=3), target=TARGETS)
def test_a_token_never_may_what_its_owner_may_not(
    mine: list[Grant], tokens: list[Grant], target: Target
) -> None:
    for permission in Permission:
        if caller(mine, tokens).may(permission, target):
            assert permits(mine, permission, target)
            assert permits(tokens, permission, target)
        assert caller(mine, None).may(permission, target) == permits(mine, permission, target)


@given(grant=GRANTS)
def test_who_is_restricted_may_nothing_that_is_for_all(grant: Grant) -> None:
    restricted = {grant.repository, grant.platform, grant.tag} != {"*"}
    assert grant.covers(EVERYTHING) != restricted


def test_the_parts_of_a_scope_hold_together() -> None:
    grant = Grant(role=Role.VIEWER, platform="qemu*", tag="prod")
    assert grant.covers(Target(platform="qemu:///system", tags=frozenset({"prod", "web"})))
    assert not grant.covers(Target(platform="qemu:///system", tags=frozenset({"test"})))
    assert not grant.covers(Target(platform="images:///x", tags=frozenset({"prod"})))


def test_a_grant_is_read_as_people_write_it() -> None:
    assert parse_grant("admin") == Grant(role=Role.ADMIN)
    assert parse_grant("viewer:platform=qemu*,tag=prod") == Grant(
        role=Role.VIEWER, platform="qemu*", tag="prod"
    )


@pytest.mark.parametrize("text", ["root", "viewer:host=x", ""])
def test_what_is_no_grant_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_grant(text)
