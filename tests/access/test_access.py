"""Users, tokens, approvals and the record, in a real database."""

import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyotp
import pytest

from hotspare.access.access import Access
from hotspare.access.passwords import totp_step
from hotspare.access.roles import EVERYTHING, Grant, Permission, Role
from hotspare.errors import (
    ApprovalNotFound,
    AuditBroken,
    HotspareError,
    LoginRefused,
    NotPermitted,
    TooManyAttempts,
    UsageError,
    UserExists,
)

PASSWORD = "correct horse battery"
ADMIN = [Grant(role=Role.ADMIN)]


@pytest.fixture
def access(tmp_path: Path) -> Iterator[Access]:
    opened = Access(tmp_path)
    yield opened
    opened.close()


def edit(access: Access, statement: str, *values: object) -> None:
    """Change the database as somebody with the file in hand would."""
    with sqlite3.connect(access.database.path) as connection:
        connection.execute(statement, values)
    connection.close()


def test_the_first_user_needs_the_code_once(access: Access, tmp_path: Path) -> None:
    code = access.setup_code
    assert code
    with pytest.raises(LoginRefused):
        access.setup("wrong", "anna", PASSWORD, "here")
    assert access.setup(code, "anna", PASSWORD, "here").is_admin
    with pytest.raises(LoginRefused):
        access.setup(code, "eve", PASSWORD, "here")
    again = Access(tmp_path)
    assert again.setup_code is None
    again.close()


def test_the_code_cannot_be_guessed_for_long(access: Access) -> None:
    for number in range(20):
        with pytest.raises(LoginRefused, match="code is wrong"):
            access.setup(str(number), "eve", PASSWORD, "there")
    with pytest.raises(TooManyAttempts):
        access.setup(str(access.setup_code), "eve", PASSWORD, "there")


def test_only_the_right_password_lets_in(access: Access) -> None:
    access.users.add("anna", PASSWORD, ADMIN)
    _, shown = access.log_in("anna", PASSWORD, None, "here")
    assert access.tokens.caller(shown).user.name == "anna"
    for name, password in (("anna", "wrong horse battery"), ("nobody", PASSWORD), ("", "")):
        with pytest.raises(LoginRefused):
            access.log_in(name, password, None, "here")


def test_nothing_that_lets_in_lies_in_the_database(access: Access) -> None:
    access.users.add("anna", PASSWORD, ADMIN)
    _, login = access.log_in("anna", PASSWORD, None, "here")
    _, token = access.issue_token("anna", "script", None, None)
    access.database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    stored = access.database.path.read_bytes()
    assert access.database.path.stat().st_mode & 0o077 == 0
    for secret in (PASSWORD, login, login.split("_", 2)[2], token, token.split("_", 2)[2]):
        assert secret.encode() not in stored


def test_a_token_that_was_changed_is_none(access: Access) -> None:
    access.users.add("anna", PASSWORD, ADMIN)
    _, shown = access.issue_token("anna", "script", None, None)
    number, secret = shown.split("_", 2)[1:]
    others = (
        shown[:-1],
        f"{shown}x",
        shown.upper(),
        f"hotspare_{number}_",
        f"other_{number}_{secret}",
        "",
        "_",
    )
    for other in others:
        with pytest.raises(LoginRefused):
            access.tokens.caller(other)


def test_tokens_end(access: Access) -> None:
    access.users.add("anna", PASSWORD, ADMIN)
    _, old = access.tokens.issue("anna", "token", "old", lasts=timedelta(seconds=-1))
    with pytest.raises(LoginRefused):
        access.tokens.caller(old)
    token, shown = access.issue_token("anna", "script", None, 1)
    access.tokens.revoke(token.id)
    with pytest.raises(LoginRefused):
        access.tokens.caller(shown)


def test_a_token_is_worth_what_its_owner_is(access: Access) -> None:
    access.users.add("anna", PASSWORD, ADMIN)
    access.users.add("ben", PASSWORD, [Grant(role=Role.OPERATOR)])
    _, shown = access.issue_token("ben", "script", tuple(ADMIN), None)
    assert access.tokens.caller(shown).may(Permission.BACK_UP, EVERYTHING)
    assert not access.tokens.caller(shown).may(Permission.FORGET, EVERYTHING)
    access.users.change("ben", grants=[Grant(role=Role.VIEWER)])
    assert not access.tokens.caller(shown).may(Permission.BACK_UP, EVERYTHING)
    access.users.change("ben", disabled=True)
    with pytest.raises(LoginRefused):
        access.tokens.caller(shown)
    with pytest.raises(LoginRefused):
        access.log_in("ben", PASSWORD, None, "here")


def test_a_new_password_ends_what_the_old_one_gave(access: Access) -> None:
    access.users.add("anna", PASSWORD, ADMIN)
    _, shown = access.log_in("anna", PASSWORD, None, "here")
    access.users.change("anna", password="another horse battery")
    with pytest.raises(LoginRefused):
        access.tokens.caller(shown)


def test_somebody_who_may_administer_is_always_left(access: Access) -> None:
    access.users.add("anna", PASSWORD, ADMIN)
    for change in (
        lambda: access.users.change("anna", grants=[Grant(role=Role.VIEWER)]),
        lambda: access.users.change("anna", grants=[Grant(role=Role.ADMIN, tag="prod")]),
        lambda: access.users.change("anna", disabled=True),
        lambda: access.users.remove("anna"),
    ):
        with pytest.raises(UsageError, match="Nobody would be left"):
            change()
    assert access.users.get("anna").is_admin


def test_names_and_passwords_are_looked_at(access: Access) -> None:
    for name, password in (("Anna", PASSWORD), ("a b", PASSWORD), ("anna", "short"), ("anna", "x" * 2000)):
        with pytest.raises(UsageError):
            access.users.add(name, password, ADMIN)
    access.users.add("anna", PASSWORD, ADMIN)
    with pytest.raises(UserExists):
        access.users.add("anna", PASSWORD, ADMIN)


def test_codes_of_an_app_are_asked_for_once_confirmed(access: Access) -> None:
    access.users.add("anna", PASSWORD, ADMIN)
    secret, uri = access.users.new_totp("anna")
    assert secret in uri
    access.users.check("anna", PASSWORD, None)
    code = pyotp.TOTP(secret).now()
    access.users.confirm_totp("anna", code)
    for wrong in (None, "000000", code):  # it was used
        with pytest.raises(LoginRefused):
            access.users.check("anna", PASSWORD, wrong)


def test_a_code_is_good_for_a_moment_and_once() -> None:
    secret, now = pyotp.random_base32(), 1_800_000_000.0
    step = int(now // 30)
    codes = {step + offset: pyotp.TOTP(secret).generate_otp(step + offset) for offset in range(-2, 3)}
    accepted = {at for at, code in codes.items() if totp_step(secret, code, 0, now) == at}
    assert accepted == {step - 1, step, step + 1}
    assert totp_step(secret, codes[step], step, now) is None
    assert totp_step(secret, codes[step - 1], step, now) is None
    assert totp_step(secret, "not a code", 0, now) is None


def test_what_was_refused_is_recorded_without_the_password(access: Access) -> None:
    access.users.add("anna", PASSWORD, ADMIN)
    with pytest.raises(LoginRefused):
        access.log_in("anna", "my secret guess", None, "192.0.2.7")
    access.log_in("anna", PASSWORD, None, "192.0.2.7")
    entries = access.audit.newest(10)
    assert [(one.actor, one.outcome, one.address) for one in entries] == [
        ("anna", "ok", "192.0.2.7"),
        ("", "login", "192.0.2.7"),
    ]
    assert "guess" not in str(entries)


class TestAuditLog:
    @pytest.fixture(autouse=True)
    def entries(self, access: Access) -> None:
        for number in range(5):
            access.audit.add("anna", "do", str(number))

    def test_an_untouched_record_is_whole(self, access: Access) -> None:
        number, last = access.audit.verify()
        assert number == 5
        access.audit.add("anna", "do", "more")
        assert access.audit.verify((number, last))[0] == 6

    @pytest.mark.parametrize(
        "tampering",
        [
            "UPDATE audit SET entry = replace(entry, 'anna', 'bert') WHERE number = 3",
            "UPDATE audit SET entry = replace(entry, '\"ok\"', '\"failed\"') WHERE number = 5",
            "DELETE FROM audit WHERE number = 3",
            "DELETE FROM audit WHERE number = 1",
            "INSERT INTO audit SELECT 6, entry FROM audit WHERE number = 5",
            "UPDATE audit SET number = CASE number WHEN 2 THEN 30 ELSE number END",
        ],
    )
    def test_tampering_shows(self, access: Access, tampering: str) -> None:
        edit(access, tampering)
        with pytest.raises(AuditBroken):
            access.audit.verify()

    def test_a_shorter_or_rewritten_record_shows_by_what_was_noted_elsewhere(self, access: Access) -> None:
        known = access.audit.verify()
        edit(access, "DELETE FROM audit WHERE number > 3")
        assert access.audit.verify()[0] == 3
        with pytest.raises(AuditBroken, match="missing"):
            access.audit.verify(known)
        for number in range(3, 6):
            access.audit.add("anna", "do", f"other {number}")
        with pytest.raises(AuditBroken, match="noted"):
            access.audit.verify(known)

    def test_many_at_once_make_one_chain(self, access: Access, tmp_path: Path) -> None:
        other = Access(tmp_path)

        def add(to: Access) -> None:
            for _ in range(20):
                to.audit.add("anna", "do")

        threads = [threading.Thread(target=add, args=(one,)) for one in (access, access, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.close()
        assert access.audit.verify()[0] == 65


def test_nobody_approves_alone_and_nothing_twice(access: Access) -> None:
    asked = access.approvals.ask("anna", "forget-point", {"point": "p"}, "Forget p")
    with pytest.raises(NotPermitted):
        access.approvals.decide(asked.id, "anna", approve=True)
    assert access.approvals.decide(asked.id, "ben", approve=True).state == "approved"
    for approve in (True, False):
        with pytest.raises(ApprovalNotFound):
            access.approvals.decide(asked.id, "carl", approve=approve)


def test_what_waited_for_too_long_is_not_done(access: Access) -> None:
    asked = access.approvals.ask("anna", "forget-point", {}, "Forget p")
    edit(access, "UPDATE approvals SET asked_at = '2020-01-01T00:00:00+00:00'")
    with pytest.raises(ApprovalNotFound, match="expired"):
        access.approvals.decide(asked.id, "ben", approve=True)


def test_a_newer_or_damaged_database_is_left_alone(tmp_path: Path) -> None:
    Access(tmp_path).close()
    with sqlite3.connect(tmp_path / "access.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(HotspareError, match="version 99"):
        Access(tmp_path)
    (tmp_path / "access.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(HotspareError, match="cannot be used"):
        Access(tmp_path)
    assert (tmp_path / "access.sqlite").read_bytes().startswith(b"garbage")
