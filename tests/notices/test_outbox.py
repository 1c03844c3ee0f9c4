"""The outbox: a problem is told once, and its end once; what is not taken is tried again, to an end."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from hotspare.errors import HotspareError
from hotspare.notices import outbox as module
from hotspare.notices.outbox import FILE_NAME, RETRIES, Outbox
from hotspare.policy.receiver import Match, Receiver
from tests.notices.receivers import seen

ONCALL = Receiver(name="oncall", url_variable="X")
DIGEST = Receiver(name="team", url_variable="X", delivery="digest")
RECEIVERS = {"oncall": ONCALL}


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox.open(tmp_path, pytest.fail) as opened:
        yield opened


class Clock:
    """Moves the time of the outbox."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset = 0.0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self.offset)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def told(outbox: Outbox) -> list[tuple[str, str, str]]:
    return [
        (one.receiver, one.occurrence.subject, one.occurrence.state) for one in reversed(outbox.log(1000))
    ]


def test_a_problem_is_told_once_and_once_when_it_is_mended(outbox: Outbox) -> None:
    assert outbox.note([seen(), seen()], RECEIVERS) == 1
    assert outbox.note([seen(), seen("db")], RECEIVERS) == 1
    assert outbox.note([seen(state="mended")], RECEIVERS) == 1
    assert outbox.note([seen(state="mended")], RECEIVERS) == 0
    assert outbox.note([seen()], RECEIVERS) == 1
    assert told(outbox) == [
        ("oncall", "web", "broken"),
        ("oncall", "db", "broken"),
        ("oncall", "web", "mended"),
        ("oncall", "web", "broken"),
    ]


def test_what_only_happens_is_told_each_time(outbox: Outbox) -> None:
    receivers = {"a": Receiver(name="a", url_variable="X", match=Match(events=("run-ok",)))}
    assert outbox.note([seen(state="once", kind="run-ok")] * 2, receivers) == 2


def test_who_comes_later_is_told_of_what_lasts_and_who_was_not_told_not_of_its_end(outbox: Outbox) -> None:
    assert outbox.note([seen()], {}) == 0
    assert outbox.note([seen()], RECEIVERS) == 1
    others = RECEIVERS | {"other": Receiver(name="other", url_variable="X")}
    outbox.note([seen(state="mended")], others)
    assert told(outbox)[-1] == ("oncall", "web", "mended")
    assert len(told(outbox)) == 2


def test_ends_are_not_told_to_who_does_not_want_them(outbox: Outbox) -> None:
    receivers = {"a": Receiver(name="a", url_variable="X", mended=False)}
    assert outbox.note([seen(), seen(state="mended")], receivers) == 1


def test_a_receiver_that_is_switched_off_is_told_nothing(outbox: Outbox) -> None:
    assert outbox.note([seen()], {"a": Receiver(name="a", url_variable="X", enabled=False)}) == 0


def test_many_who_see_the_same_at_once_tell_it_once(tmp_path: Path) -> None:
    def see() -> None:
        with Outbox.open(tmp_path, pytest.fail) as opened:
            opened.note([seen()], RECEIVERS)

    threads = [threading.Thread(target=see) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Outbox.open(tmp_path, pytest.fail) as opened:
        assert len(opened.log(100)) == 1


def test_what_is_claimed_is_not_claimed_twice_until_its_sender_is_known_dead(
    outbox: Outbox, tmp_path: Path, clock: Clock
) -> None:
    outbox.note([seen()], RECEIVERS)
    with Outbox.open(tmp_path, pytest.fail) as other:
        assert len(outbox.claim()) == 1
        assert (other.claim(), other.waiting()) == ([], 0)
        clock.offset = 301
        assert (other.waiting(), len(other.claim())) == (1, 1)


def test_what_is_not_taken_is_tried_again_later_and_given_up_in_the_end(outbox: Outbox, clock: Clock) -> None:
    outbox.note([seen()], RECEIVERS)
    for pause in RETRIES:
        outbox.failed(outbox.claim(), "no route")
        assert outbox.claim() == []
        clock.offset += pause + 1
    assert sum(RETRIES) > 20 * 3600
    outbox.failed(outbox.claim(), "still no route")
    assert outbox.claim() == []
    (over,) = outbox.log(10)
    assert (over.state, over.attempts, over.error) == ("given-up", len(RETRIES) + 1, "still no route")
    assert outbox.counts() == {"waiting": 0, "sent": 0, "given-up": 1}


def test_a_clock_that_was_set_back_holds_nothing_up_for_years(outbox: Outbox, clock: Clock) -> None:
    outbox.note([seen()], RECEIVERS)
    outbox.failed(outbox.claim(), "no route")
    clock.offset = -400 * 86400
    assert len(outbox.claim()) == 1


def test_a_digest_waits_for_its_time_unless_somebody_asks(outbox: Outbox) -> None:
    outbox.note([seen(), seen("db")], {"team": DIGEST})
    assert (outbox.waiting(), outbox.claim()) == (0, [])
    assert outbox.log(1)[0].due_at - outbox.log(1)[0].noted_at <= timedelta(days=1)
    taken = outbox.claim("team")
    assert [one.occurrence.subject for one in taken] == ["web", "db"]
    outbox.sent(taken)
    assert outbox.claim("team") == []
    assert outbox.counts()["sent"] == 2


def test_more_than_can_wait_are_given_up_the_oldest_first(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    outbox.note([seen(f"vm{number}") for number in range(5)], RECEIVERS)
    assert [one.occurrence.subject for one in outbox.claim()] == ["vm2", "vm3", "vm4"]
    assert {one.error for one in outbox.log(10) if one.state == "given-up"} == {
        "too many wait for this receiver"
    }


def test_the_log_forgets_what_is_old_and_nothing_that_waits(outbox: Outbox, clock: Clock) -> None:
    outbox.note([seen()], RECEIVERS)
    outbox.sent(outbox.claim())
    outbox.note([seen("db")], {"team": DIGEST})
    clock.offset = 91 * 86400
    outbox.claim("nobody")
    assert [one.occurrence.subject for one in outbox.log(10)] == ["db"]


def test_machines_are_known_since_they_were_first_seen(outbox: Outbox, clock: Clock) -> None:
    first = outbox.first_seen(["a"])["a"]
    clock.offset = 3600
    again = outbox.first_seen(["a", "b"])
    assert again["a"] == first
    assert again["b"] - first >= timedelta(seconds=3599)


def test_a_damaged_file_is_set_aside_and_problems_are_told_again(tmp_path: Path) -> None:
    with Outbox.open(tmp_path, pytest.fail) as opened:
        opened.note([seen()], RECEIVERS)
    (tmp_path / FILE_NAME).write_bytes(b"no database at all, but long enough to be one" * 100)
    warned: list[str] = []
    with Outbox.open(tmp_path, warned.append) as opened:
        assert opened.note([seen()], RECEIVERS) == 1
    assert "told again" in warned[0]


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(HotspareError, match="version 99"):
        Outbox.open(tmp_path, pytest.fail)
