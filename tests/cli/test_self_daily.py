"""When a server makes a self-backup by itself."""

import time

import pytest

from hotspare.cli import self_daily
from hotspare.cli.options import Options
from hotspare.cli.self_daily import SelfBackups, Timing
from tests.cli.control_plane import furnish, listed
from tests.cli.program import Program

HOUR = 3600.0
NOON = 1_795_694_400.0


@pytest.fixture
def served(program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Give a server's host, in whose surroundings the test runs."""
    furnish(program)
    for name, value in program.environment.items():
        monkeypatch.setenv(name, value)
    return program


@pytest.mark.parametrize(
    ("timing", "fingerprint", "due"),
    [
        (Timing(), "a", True),
        (Timing(made_at=NOON - HOUR, fingerprint="a"), "a", False),
        (Timing(made_at=NOON - HOUR, fingerprint="a"), "b", True),
        (Timing(made_at=NOON - 60, fingerprint="a"), "b", False),  # changes come in flocks
        (Timing(made_at=NOON - 25 * HOUR, fingerprint="a"), "a", True),
        (Timing(made_at=NOON + HOUR, fingerprint="a"), "a", True),  # a clock was wrong then or is now
        (Timing(tried_at=NOON - 60, failed=True), "a", False),
        (Timing(tried_at=NOON - HOUR, failed=True), "a", True),
        (Timing(tried_at=NOON + HOUR, failed=True), "a", True),
    ],
)
def test_when_one_is_due(timing: Timing, fingerprint: str, due: bool) -> None:
    assert timing.due(NOON, fingerprint) == due


def test_the_thread_of_a_server_makes_one(served: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_daily, "LOOK_SECONDS", 0.05)
    deadline = time.monotonic() + 60
    with self_daily.self_backups_by_themselves(Options()):
        while not list((served.repository / "points").rglob("*-*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert len(listed(served)) == 1


def test_a_server_makes_them_by_itself(served: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    backups = SelfBackups(Options(), clock=lambda: now)
    assert backups.look()
    assert not backups.look()
    (served.folder / "policies" / "new.yaml").write_text("select: {names: [new]}\n")
    assert not backups.look(), "changes come in flocks"
    now += 600
    assert backups.look()
    assert not SelfBackups(Options(), clock=lambda: now).look(), "a restart is no change"
    served.expect("user", "add", "ben", "--role", "viewer", HOTSPARE_USER_PASSPHRASE="another long one")
    now += 600
    assert backups.look()
    now += 86_400
    assert backups.look()
    monkeypatch.setenv("HOTSPARE_SELF_BACKUP", "off")
    now += 86_400
    assert not backups.look()
    monkeypatch.setenv("HOTSPARE_SELF_BACKUP", "on")
    monkeypatch.setenv("HOTSPARE_PASSPHRASE", "wrong")
    assert not backups.look()
    monkeypatch.setenv("HOTSPARE_PASSPHRASE", served.environment["HOTSPARE_PASSPHRASE"])
    assert not backups.look(), "what failed is tried again after a while"
    now += 1000
    assert backups.look()
