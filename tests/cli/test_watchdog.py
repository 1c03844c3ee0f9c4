"""The watchdog on real repositories and folders of images: what is broken, mended, and not known."""

import json
import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hotspare.access.approvals import Approvals
from hotspare.access.database import AccessDatabase
from hotspare.cli.watch_asking import Asker
from hotspare.cli.watch_look import Look, Unknown
from hotspare.cli.watch_telling import occurrences_of, settled
from hotspare.errors import PlatformUnavailable, StorageError
from hotspare.jobs.heartbeat import Heartbeat
from hotspare.notices.outbox import Outbox
from hotspare.replication.model import Mode, Phase, Protection, Status, Tenure
from hotspare.repository.repository import Repository
from hotspare.repository.tested import BootRecord, put_boot
from hotspare.storage.backend import Space
from hotspare.storage.local import LocalBackend
from hotspare.storage.registry import open_backend
from tests.cli.images import make_image
from tests.cli.program import PASSPHRASE, Program, interrupt
from tests.cli.test_json_output import differences, examples, shape
from tests.notices.receivers import HttpReceiver

MIB = 1024 * 1024
POLICY = "select:\n  names: ['web']\nschedule:\n  rpo: {rpo}\n"


@pytest.fixture
def program(program: Program) -> Program:
    make_image(program.folder / "images/web.raw", MIB, data=MIB)
    program.expect("repo", "create")
    (program.folder / "policies").mkdir()
    (program.folder / "policies/notices.yaml").write_text(
        "team:\n  url_variable: TEAM\n  delivery: digest\n"  # nothing is sent where that is not the point
    )
    return program


def policy(program: Program, text: str, name: str = "nightly", *, age: timedelta = timedelta()) -> None:
    path = program.folder / f"policies/{name}.yaml"
    path.write_text(text)
    then = time.time() - age.total_seconds()
    os.utime(path, (then, then))


def look(program: Program, status: int, **variables: str) -> dict[str, Any]:
    done = program.run("watchdog", "--once", "--space", "0", "-o", "json", **variables)
    assert done.status == status, done.err
    return json.loads(done.out)  # type: ignore[no-any-return]


def told(program: Program) -> list[tuple[str, str]]:
    document = program.expect("notice", "log", "-o", "json").document()
    return [(one["event"], one["problem"]) for one in reversed(document["notices"])]


def known_since(program: Program, hours: float) -> None:
    """Have the watchdog know all machines for so long."""
    with Outbox.open(program.folder / "state", pytest.fail) as outbox:
        outbox._connection.execute("UPDATE first_seen SET at = ?", (time.time() - hours * 3600,))


def test_an_rpo_is_broken_told_and_mended(program: Program, http: HttpReceiver) -> None:
    (program.folder / "policies/notices.yaml").write_text("oncall:\n  url_variable: ONCALL\n")
    policy(program, POLICY.format(rpo="1h"), age=timedelta(days=2))
    document = look(program, 0)
    assert document["machines"][0]["state"] == "pending"
    known_since(program, 2)
    document = look(program, 38, ONCALL=http.url)
    (machine,) = document["machines"]
    assert (machine["machine"], machine["state"], machine["newest_at"]) == ("web", "broken", None)
    assert [title.partition("] ")[2] for title in http.titles] == [
        "ERROR: web: the RPO of nightly (1h) is broken"
    ]
    look(program, 38, ONCALL=http.url)
    program.expect("backup", "web")
    document = look(program, 0, ONCALL=http.url)
    assert document["machines"][0]["state"] == "met"
    assert told(program) == [("rpo-broken", "broken"), ("rpo-broken", "mended")]
    assert len(http.got) == 2
    assert differences(shape(examples()["watchdog"]), shape(document), "watchdog") == []


def test_it_goes_by_the_repository_and_not_by_the_catalog(program: Program) -> None:
    policy(program, POLICY.format(rpo="1h"))
    program.expect("backup", "web")
    look(program, 0)
    known_since(program, 2)
    policy(program, POLICY.format(rpo="1h"), age=timedelta(days=2))
    points = next((program.repository / "points").iterdir())
    kept = program.folder / "points"
    shutil.move(points, kept)
    assert look(program, 38)["machines"][0]["state"] == "broken"  # the catalog knows that point
    shutil.move(kept, points)
    (program.folder / "state/catalog.sqlite").unlink()
    assert look(program, 0)["machines"][0]["state"] == "met"
    assert not (program.folder / "state/jobs.sqlite").exists()


def test_a_point_that_cannot_be_read_does_not_count(program: Program) -> None:
    policy(program, POLICY.format(rpo="1h"), age=timedelta(days=2))
    program.expect("backup", "web")
    look(program, 0)
    known_since(program, 2)
    point = next(path for path in (program.repository / "points").rglob("*") if path.is_file())
    point.write_bytes(b"nothing of ours")
    document = look(program, 38)
    assert (document["machines"][0]["state"], document["machines"][0]["unreadable"]) == ("broken", 1)


def test_what_does_not_answer_is_unknown_and_mends_nothing(program: Program) -> None:
    policy(program, POLICY.format(rpo="1h"), age=timedelta(days=2))
    look(program, 0)
    known_since(program, 2)
    look(program, 38)
    away = program.folder / "away"
    program.repository.rename(away)
    document = look(program, 39)
    assert document["machines"][0]["state"] == "unknown"
    assert [(one["what"], one["error"]["code"]) for one in document["unknown"]] == [
        ("repository", "no-repository")
    ]
    away.rename(program.repository)
    look(program, 38)
    (program.folder / "images").rename(program.folder / "no-images")
    document = look(program, 39)
    assert [one["what"] for one in document["unknown"]] == ["platform"]
    (program.folder / "no-images").rename(program.folder / "images")
    look(program, 38)
    assert told(program) == [
        ("rpo-broken", "broken"),
        ("unknown", "broken"),
        ("unknown", "mended"),
        ("unknown", "broken"),
        ("unknown", "mended"),
    ]


def test_a_policy_that_cannot_be_read_is_unknown(program: Program) -> None:
    policy(program, "wen: 22:00\n")
    document = look(program, 39)
    assert [(one["what"], one["name"]) for one in document["unknown"]] == [("policy", "nightly")]
    assert document["unprotected"] == []


def test_machines_that_no_policy_selects_are_told_and_their_end_as_well(program: Program) -> None:
    make_image(program.folder / "images/db.raw", MIB, data=MIB)
    policy(program, POLICY.format(rpo="26h"))
    assert [one["machine"] for one in look(program, 38)["unprotected"]] == ["db"]
    policy(program, "select:\n  names: ['db']\nenabled: false\n", "off")
    policy(program, "select:\n  names: ['db']\n", "by-hand")
    look(program, 38)
    (program.folder / "images/db.raw").unlink()
    look(program, 0)
    assert told(program) == [("unprotected", "broken"), ("unprotected", "mended")]


def test_without_any_policy_nothing_is_promised(program: Program) -> None:
    assert look(program, 0)["policies"] == 0
    assert "nothing is promised" in program.expect("watchdog", "--once").out


def test_trials_that_are_wanted_and_never_made_are_told(program: Program) -> None:
    text = "select:\n  names: [web]\nschedule:\n  when: [daily]\n  tested_within: 30d\n"
    policy(program, text, age=timedelta(days=60))
    program.expect("backup", "web")
    assert look(program, 0)["machines"][0]["trial"] == "fresh"
    known_since(program, 31 * 24)
    assert look(program, 38)["machines"][0]["trial"] == "never"
    assert told(program) == [("restore-test-old", "broken")]


def test_a_trial_that_was_not_passed_is_told_until_one_is(program: Program) -> None:
    policy(program, "select:\n  names: [web]\nschedule:\n  when: [daily]\n  tested_within: 30d\n")
    program.expect("backup", "web")
    note_trial(program, passed=False)
    assert look(program, 38)["machines"][0]["trial"] == "failed"
    note_trial(program, passed=True)
    assert look(program, 0)["machines"][0]["trial"] == "fresh"
    assert told(program) == [("restore-test-failed", "broken"), ("restore-test-failed", "mended")]


def note_trial(program: Program, *, passed: bool) -> None:
    """Keep with the only restore point how its trial went, as ``verify --boot`` does."""
    record = BootRecord(
        at=datetime.now(UTC), passed=passed, life="agent" if passed else "none", life_seconds=1.0, checks=()
    )
    repository = Repository.open(open_backend(str(program.repository)), PASSPHRASE)
    (point,) = repository.points()
    put_boot(repository.backend, repository.keyring, point.id, record, None)
    repository.close()


def test_a_server_that_stopped_looking_is_told(program: Program) -> None:
    policy(program, POLICY.format(rpo="26h"))
    assert look(program, 0)["server"]["state"] == "none"
    folder = program.folder / "state"
    Heartbeat(folder).beat()
    assert look(program, 0)["server"]["state"] == "alive"
    old = (datetime.now(UTC) - timedelta(minutes=3)).isoformat()
    (folder / "server.heartbeat").write_text(old)
    assert look(program, 38)["server"]["state"] == "silent"
    (folder / "server.heartbeat").write_text("garbage")
    assert look(program, 38)["server"]["state"] == "silent"
    Heartbeat(folder).beat()
    look(program, 0)
    assert told(program) == [("server-silent", "broken"), ("server-silent", "mended")]


def test_a_repository_without_space_is_told(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    policy(program, POLICY.format(rpo="26h"))
    monkeypatch.setattr(LocalBackend, "space", lambda _store: Space(free=51, total=1000))
    assert program.run("watchdog", "--once", "--space", "5").status == 0
    full = program.run("watchdog", "--once", "--space", "6")
    assert full.status == 38
    assert "is nearly full" in full.out


@pytest.mark.parametrize("answer", [None, StorageError("it does not say")])
def test_a_store_that_does_not_tell_its_space_is_no_finding(
    program: Program, monkeypatch: pytest.MonkeyPatch, answer: StorageError | None
) -> None:
    policy(program, POLICY.format(rpo="26h"))

    def tell(_store: LocalBackend) -> None:
        if answer is not None:
            raise answer

    monkeypatch.setattr(LocalBackend, "space", tell)
    done = program.run("watchdog", "--once", "--space", "99", "-o", "json")
    assert done.status == 0
    assert [one["free"] for one in done.document()["repositories"]] == [None]


def test_approvals_that_wait_are_told_and_do_not_fail_the_watchdog(program: Program) -> None:
    policy(program, POLICY.format(rpo="26h"))
    database = AccessDatabase(program.folder / "state")
    approvals = Approvals(database)
    asked = approvals.ask("anna", "forget", {}, "Forget 3 restore points of web")
    assert look(program, 0)["approvals_waiting"] == 1
    approvals.decide(asked.id, "ben", approve=True)
    database.close()
    look(program, 0)
    assert told(program) == [("approval-waiting", "broken"), ("approval-waiting", "mended")]


def test_an_agent_that_protects_machines_and_does_not_answer_is_unknown(program: Program) -> None:
    policy(program, POLICY.format(rpo="26h"))
    kept = program.folder / "state/replication/protections/0123456789abcdef/protection.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    assert [one["what"] for one in look(program, 39)["unknown"]] == ["replication"]


@pytest.mark.parametrize(
    ("phase", "holder", "kinds"),
    [
        (Phase.PROTECTED, "here", set()),
        (Phase.DEGRADED, "here", {"replication-degraded"}),
        (Phase.STANDBY, "there", {"replication-failed-over"}),
    ],
)
def test_replicas_that_are_not_as_they_should_be(phase: Phase, holder: str, kinds: set[str]) -> None:
    protection = Protection(
        id="1", machine_id="m", machine="db", mode=Mode.SYNC, source="here", standby="there"
    )
    tenure = Tenure(epoch=1, holder=holder)
    replicas = [Status(protection=protection, phase=phase, since=0.0, tenure=tenure)]
    seen = Look(datetime.now(UTC), replicas=replicas)
    found = list(occurrences_of(seen, 10))
    assert {one.kind for one in found} == kinds
    well = Look(datetime.now(UTC), replicas=[])
    assert {one.kind for one in settled(well, [], found)} == kinds
    well.unknown.append(Unknown("replication", "agent", PlatformUnavailable("down")))
    assert list(settled(well, [], found)) == []


def test_it_goes_on_until_it_is_stopped(program: Program) -> None:
    policy(program, POLICY.format(rpo="26h"))
    process = program.start("watchdog", "--every", "1s", "-o", "json", HOTSPARE_LOG_FORM="json")
    assert process.stdout
    first, second = (json.loads(process.stdout.readline()) for _ in range(2))
    assert first["at"] < second["at"]
    done = interrupt(process)
    assert done.status in {0, 130}


def test_it_asks_nobody_for_a_passphrase(program: Program) -> None:
    done = program.run("watchdog", "--once", HOTSPARE_PASSPHRASE=None)
    assert done.status == 2


def test_a_question_without_an_answer_holds_nobody_up() -> None:
    asker = Asker(2.0)
    asked = []
    answers_at_last = threading.Event()

    def never() -> str:
        asked.append(1)
        answers_at_last.wait(60)
        return "late"

    def refuse() -> str:
        raise PlatformUnavailable("down")

    def fail() -> str:
        raise ValueError("a mistake")

    answers, errors = asker.ask_all({"a": never, "b": lambda: "here", "c": refuse, "d": fail})
    assert answers == {"b": "here"}
    assert {key: error.code for key, error in errors.items()} == {
        "a": "not-known",
        "c": "platform-unavailable",
        "d": "not-known",
    }
    _, errors = asker.ask_all({"a": never})
    assert "No answer" in errors["a"].what
    assert len(asked) == 1  # it is not asked again while it is still being asked
    answers_at_last.set()
    asker._open["a"].join(60)
    assert asker.ask_all({"a": lambda: "now"}) == ({"a": "now"}, {})
