"""Passkeys, with a security key in software that does right or wrong; a real browser is in tests/console."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hotspare.access.access import Access
from hotspare.access.challenges import LASTS, Challenges
from hotspare.access.passkeys import Passkeys, RelyingParty
from hotspare.access.passwords import hash_password
from hotspare.access.roles import Grant, Role
from hotspare.errors import LoginRefused, PasskeyNotFound, TooManyAttempts, UsageError
from tests.access.authenticator import PRESENT, Authenticator

ORIGIN = "https://hotspare.example:8460"
PARTY = RelyingParty("hotspare.example", ORIGIN)
PASSWORD = "correct horse battery"


KEPT = hash_password(PASSWORD)


@pytest.fixture
def access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Access]:
    # A hash takes a tenth of a second and 64 MiB, and none of these tests is about it.
    monkeypatch.setattr("hotspare.access.users.hash_password", lambda _: KEPT)
    opened = Access(tmp_path)
    for name in ("anna", "ben"):
        opened.users.add(name, PASSWORD, [Grant(role=Role.ADMIN)])
    yield opened
    opened.close()


@pytest.fixture
def key(access: Access) -> Authenticator:
    """Give a passkey of anna's."""
    made = Authenticator(ORIGIN, counter=7)
    register(access, made)
    return made


def register(access: Access, key: Authenticator, user: str = "anna", name: str = "phone") -> None:
    options = access.passkeys.begin_registration(user, "login", PARTY)
    access.passkeys.register(user, "login", name, key.create(options), PARTY)


def log_in(access: Access, key: Authenticator) -> str:
    signed = key.get(access.passkeys.begin_login(PARTY))
    token, _ = access.log_in_with_passkey(signed, PARTY, "here")
    return token.user


def test_a_passkey_lets_its_owner_in_and_that_is_recorded(access: Access, key: Authenticator) -> None:
    assert access.passkeys.of("anna")[0].used_at is None
    assert log_in(access, key) == log_in(access, key) == "anna"
    assert access.passkeys.of("anna")[0].used_at is not None
    entry = access.audit.newest(1)[0]
    assert (entry.actor, entry.action, entry.detail) == (
        "anna",
        "log in",
        {"by": "passkey", "passkey": "phone"},
    )


def test_options_ask_for_what_stands_for_password_and_code(access: Access, key: Authenticator) -> None:
    options = access.passkeys.begin_registration("anna", "login", PARTY)
    wanted = options["authenticatorSelection"]
    assert (wanted["residentKey"], wanted["userVerification"]) == ("required", "required")
    assert [one["id"] for one in options["excludeCredentials"]] == [access.passkeys.of("anna")[0].id]
    assert "anna" not in options["user"]["id"]
    asked = access.passkeys.begin_login(PARTY)
    assert asked["userVerification"] == "required"
    assert not asked.get("allowCredentials")  # it is not told who has which


def test_all_passkeys_of_a_user_stand_for_the_same_user(access: Access, key: Authenticator) -> None:
    other = Authenticator(ORIGIN)
    register(access, other, name="key at work")
    assert other.handle == key.handle
    assert log_in(access, other) == "anna"
    with pytest.raises(UsageError, match="already"):
        register(access, Authenticator(ORIGIN), name="phone")


def test_what_was_removed_lets_nobody_in(access: Access, key: Authenticator) -> None:
    number = access.passkeys.of("anna")[0].id
    with pytest.raises(PasskeyNotFound):
        access.passkeys.remove("ben", number)
    access.passkeys.remove("anna", number)
    with pytest.raises(LoginRefused):
        log_in(access, key)
    assert access.audit.newest(1)[0].outcome == "login"


def test_users_who_are_disabled_or_gone_stay_out(access: Access, key: Authenticator) -> None:
    access.users.change("anna", disabled=True)
    with pytest.raises(LoginRefused):
        log_in(access, key)
    access.users.change("anna", disabled=False)
    assert log_in(access, key) == "anna"
    access.users.remove("anna")
    access.users.add("anna", PASSWORD, [])
    with pytest.raises(LoginRefused):
        log_in(access, key)


def test_what_was_signed_once_lets_in_once(access: Access, key: Authenticator) -> None:
    signed = key.get(access.passkeys.begin_login(PARTY))
    access.log_in_with_passkey(signed, PARTY, "here")
    with pytest.raises(LoginRefused, match="used already"):
        access.log_in_with_passkey(signed, PARTY, "here")


def test_an_attempt_that_fails_uses_the_challenge_up(access: Access, key: Authenticator) -> None:
    options = access.passkeys.begin_login(PARTY)
    forged = key.get(options) | {"id": "AAAA", "rawId": "AAAA"}
    for credential, what in ((forged, "not known"), (key.get(options), "used already")):
        with pytest.raises(LoginRefused, match=what):
            access.log_in_with_passkey(credential, PARTY, "here")


def other_site(key: Authenticator) -> None:
    key.origin = "https://hotspare.example.evil:8460"


def other_port(key: Authenticator) -> None:
    key.origin = "https://hotspare.example"


def other_party(key: Authenticator) -> None:
    key.rp_id = "evil.example"


def nobody_verified(key: Authenticator) -> None:
    key.flags = PRESENT


def nobody_present(key: Authenticator) -> None:
    key.flags = 0


def copied(key: Authenticator) -> None:
    key.counter = 3


def stopped_counting(key: Authenticator) -> None:
    key.counter = 0


def other_key(key: Authenticator) -> None:
    key.key = Authenticator(ORIGIN).key


def other_user(key: Authenticator) -> None:
    key.handle = "AAAA" + key.handle[4:]


def no_user(key: Authenticator) -> None:
    key.handle = ""


@pytest.mark.parametrize(
    "spoil",
    [
        other_site,
        other_port,
        other_party,
        nobody_verified,
        nobody_present,
        copied,
        stopped_counting,
        other_key,
        other_user,
        no_user,
    ],
)
def test_what_is_not_signed_as_it_has_to_be_lets_nobody_in(
    access: Access, key: Authenticator, spoil: Callable[[Authenticator], None]
) -> None:
    spoil(key)
    with pytest.raises(LoginRefused, match="not known, or not believed"):
        log_in(access, key)


@pytest.mark.parametrize("spoil", [other_site, other_party, nobody_verified])
def test_what_is_not_made_as_it_has_to_be_is_not_taken(
    access: Access, spoil: Callable[[Authenticator], None]
) -> None:
    key = Authenticator(ORIGIN)
    spoil(key)
    with pytest.raises(LoginRefused):
        register(access, key)
    assert access.passkeys.of("anna") == []


@pytest.mark.parametrize(("user", "login"), [("ben", "login"), ("anna", "another login")])
def test_a_challenge_of_another_makes_no_passkey(access: Access, user: str, login: str) -> None:
    """Who shows ben's challenge as anna has not shown anna's password."""
    options = access.passkeys.begin_registration(user, login, PARTY)
    with pytest.raises(LoginRefused):
        access.passkeys.register("anna", "login", "phone", Authenticator(ORIGIN).create(options), PARTY)
    options = access.passkeys.begin_registration("anna", "login", PARTY) | access.passkeys.begin_login(PARTY)
    with pytest.raises(LoginRefused):
        access.passkeys.register("anna", "login", "phone", Authenticator(ORIGIN).create(options), PARTY)


def test_a_passkey_that_is_known_is_not_taken_for_another_user(access: Access, key: Authenticator) -> None:
    with pytest.raises(LoginRefused, match="known already"):
        register(access, replace(key), user="ben")
    assert log_in(access, key) == "anna"


@pytest.mark.parametrize(
    "credential",
    [
        {},
        {"response": None},
        {"response": {"clientDataJSON": 7}},
        {"response": {"clientDataJSON": "e30"}},
        {"response": {"clientDataJSON": "W10"}},
        {"response": {"clientDataJSON": "IiI"}},
        {"response": {"clientDataJSON": "ä"}},
        {"response": {"clientDataJSON": "A" * 20_000}},
        {"response": {"clientDataJSON": "eyJjaGFsbGVuZ2UiOjd9"}},
    ],
)
def test_nonsense_is_refused(access: Access, credential: dict[str, Any]) -> None:
    with pytest.raises(LoginRefused):
        access.passkeys.check(credential, PARTY)
    with pytest.raises(LoginRefused):
        access.passkeys.register("anna", "login", "phone", credential, PARTY)


def test_guessing_has_to_wait(access: Access, key: Authenticator) -> None:
    other_key(key)
    for _ in range(20):
        with pytest.raises(LoginRefused):
            log_in(access, key)
    with pytest.raises(TooManyAttempts):
        log_in(access, key)
    for _ in range(5):
        with pytest.raises(LoginRefused):
            access.confirm("anna", "wrong", None, "there")
    with pytest.raises(TooManyAttempts):
        access.confirm("anna", PASSWORD, None, "there")


def test_challenges_are_over_after_some_minutes_and_forgotten() -> None:
    now = [1000.0]
    challenges = Challenges(clock=lambda: now[0])
    early, late, other = (challenges.new("a") for _ in range(3))
    assert len({early, late, other}) == 3
    challenges.spend(early, "a")
    with pytest.raises(LoginRefused):
        challenges.spend(other, "b")
    with pytest.raises(LoginRefused):
        Challenges(clock=lambda: now[0]).spend(other, "a")
    later = (2000).to_bytes(8, "big") + other[8:]
    with pytest.raises(LoginRefused):
        challenges.spend(later, "a")
    now[0] += LASTS + 1
    with pytest.raises(LoginRefused):
        challenges.spend(late, "a")
    challenges.spend(challenges.new("a"), "a")
    assert len(challenges._spent) == 1


def test_what_was_there_before_passkeys_is_kept(access: Access, tmp_path: Path) -> None:
    access.database.change("DROP TABLE passkeys")
    access.database.change("DROP TABLE identities")
    access.database.change("ALTER TABLE users DROP COLUMN handle")
    access.database.change("PRAGMA user_version = 1")
    with_passkeys = Access(tmp_path)
    assert [user.name for user in with_passkeys.users.all()] == ["anna", "ben"]
    assert isinstance(with_passkeys.passkeys, Passkeys)
    assert with_passkeys.passkeys.of("anna") == []
    with_passkeys.close()
