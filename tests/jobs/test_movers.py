"""Who is taken for dead, and who may still commit."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hotspare.documents.progress import Progress
from hotspare.errors import RunExpelled
from hotspare.jobs.claims import Claims
from hotspare.jobs.database import open_database
from hotspare.jobs.movers import SILENT_SECONDS, Movers, Watch, known_dead, who_schedules
from hotspare.jobs.orders import Result


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/jobs.sqlite")
    yield engine
    engine.dispose()


def test_who_beats_is_never_silent() -> None:
    watch = Watch()
    assert all(watch.silent({1: beat}, 5.0 * beat) == [] for beat in range(100))


def test_who_stands_still_for_long_enough_is_silent() -> None:
    watch = Watch()
    assert watch.silent({1: 7, 2: 1}, 0) == []
    assert watch.silent({1: 7, 2: 2}, SILENT_SECONDS - 0.1) == []
    assert watch.silent({1: 7, 2: 2}, SILENT_SECONDS) == [1]


def test_a_database_that_was_away_kills_nobody() -> None:
    watch = Watch()
    watch.silent({1: 7}, 0)
    watch.forget()
    assert watch.silent({1: 7}, 10 * SILENT_SECONDS) == []


def test_a_counter_that_was_set_back_is_a_sign_of_life() -> None:
    watch = Watch()
    watch.silent({1: 7}, 0)
    assert watch.silent({1: 0}, SILENT_SECONDS) == []


def test_a_mover_that_was_given_up_is_told_by_its_next_beat(engine: sa.Engine) -> None:
    movers = Movers(engine)
    mover = movers.join("a", ["host"], schedules=True)
    assert movers.beat(mover)
    movers.give_up(mover)
    assert not movers.beat(mover)


def test_the_oldest_living_one_that_can_schedules(engine: sa.Engine) -> None:
    movers = Movers(engine)
    movers.join("mover", ["host"], schedules=False)
    first, second = (movers.join(name, ["host"], schedules=True) for name in ("one", "two"))
    assert who_schedules(movers.all()) == first
    movers.give_up(first)
    assert who_schedules(movers.all()) == second


def test_this_process_is_not_known_to_be_dead(engine: sa.Engine) -> None:
    movers = Movers(engine)
    movers.join("a", ["host"], schedules=True)
    assert known_dead(movers.all()) == []


def test_one_that_was_given_up_neither_begins_nor_commits_nor_ends_a_run(engine: sa.Engine) -> None:
    movers, claims = Movers(engine), Claims(engine)
    mover = movers.join("a", ["host"], schedules=False)
    claim, before = claims.take("job", mover)
    assert before is None
    claim.begun("w-1")
    movers.give_up(mover)
    with pytest.raises(RunExpelled):
        claim.before_commit()
    with pytest.raises(RunExpelled):
        claim.end(Result(outcome="ok"))
    with pytest.raises(RunExpelled):
        claims.take("other", mover)


def test_of_two_attempts_only_the_later_commits(engine: sa.Engine) -> None:
    movers, claims = Movers(engine), Claims(engine)
    first, second = (movers.join(name, ["host"], schedules=False) for name in "ab")
    early, _ = claims.take("job", first)
    early.begun("w-1")
    late, before = claims.take("job", second)
    assert before is not None
    assert (before.session, before.state, late.attempt) == ("w-1", "working", 2)
    with pytest.raises(RunExpelled):
        early.before_commit()
    early.report(Progress(phase="transfer"))
    assert claims.of(["job"])["job"].progress is None
    late.begun("w-2")
    late.before_commit()


def test_what_was_about_to_commit_is_known_until_somebody_settles_it(engine: sa.Engine) -> None:
    movers, claims = Movers(engine), Claims(engine)
    movers_of = [movers.join(name, ["host"], schedules=False) for name in "abc"]
    claim, _ = claims.take("job", movers_of[0])
    claim.begun("w-1")
    claim.before_commit()
    claims.take("job", movers_of[1])  # which dies before it has looked
    third, before = claims.take("job", movers_of[2])
    assert before is not None
    assert (before.state, before.session, before.attempt) == ("committing", "w-1", 2)
    third.settled()
    assert claims.of(["job"])["job"].state == "working"


def test_the_end_of_a_run_is_noted_once(engine: sa.Engine) -> None:
    movers, claims = Movers(engine), Claims(engine)
    claim, _ = claims.take("job", movers.join("a", ["host"], schedules=False))
    assert claims.ended_unnoted() == []
    claim.end(Result(outcome="ok", point="p"))
    (row,) = claims.ended_unnoted()
    assert row.result == Result(outcome="ok", point="p")
    claims.note("job")
    assert claims.ended_unnoted() == []


def test_a_commit_waits_for_a_database_that_is_busy(engine: sa.Engine) -> None:
    movers, claims = Movers(engine), Claims(engine)
    claim, _ = claims.take("job", movers.join("a", ["host"], schedules=False))
    held = engine.connect()
    transaction = held.begin()
    held.execute(sa.text("UPDATE hotspare_movers SET beats = beats"))
    thread = threading.Thread(target=claim.before_commit)
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive()
    transaction.commit()
    held.close()
    thread.join(60)
    assert claims.of(["job"])["job"].state == "committing"
