"""A server that is lost, and made again from the repository alone."""

import shutil
import signal
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hotspare.access.access import Access
from hotspare.errors import LoginRefused
from hotspare.jobs.database import checked_url, open_database
from hotspare.jobs.orders import Order
from hotspare.jobs.waiting import Waiting
from hotspare.units import MIB
from tests.cli.control_plane import (
    PASSWORD,
    change_record,
    empty_host,
    furnish,
    listed,
    log_in,
    write_record_anew,
    written_by_people,
)
from tests.cli.images import change_image
from tests.cli.program import Program


@pytest.fixture
def served(program: Program) -> Program:
    furnish(program)
    return program


def back_up(program: Program) -> dict[str, Any]:
    made: dict[str, Any] = program.expect("self", "backup", "-o", "json").document()["self_backup"]
    return made


def rebuilt(program: Program, *words: str) -> dict[str, Any]:
    return program.expect("self", "rebuild", *words, "-o", "json").document()


def runs(program: Program) -> list[tuple[str, str, str | None]]:
    found = program.expect("run", "list", "-n", "100", "-o", "json").document()["runs"]
    return sorted((one["kind"], one["outcome"], one["point"]) for one in found)


def test_a_lost_server_comes_back_whole(served: Program) -> None:
    served.expect("policy", "run", "web-0")
    made = back_up(served)
    history = runs(served)
    change_image(served.folder / "images" / "web.raw")
    served.expect("backup", "web")  # nobody has kept the history of this one
    people = written_by_people(served)
    new = empty_host(served)

    assert {one["action"] for one in rebuilt(new, "--dry-run")["files"]} == {"write"}
    assert [path.name for path in new.folder.rglob("*") if path.suffix in {".yaml", ".sqlite"}] == []

    document = rebuilt(new)
    assert document["self_backup"] == made["id"]
    assert {one["action"] for one in document["files"]} == {"write"}
    assert "from HOTSPARE_PASSPHRASE" in document["not_kept"][0]["what"]
    assert written_by_people(new) == people
    assert len(people) == 8, "settings, others, two policies, limits, notices, certificate and key"
    assert any("file /etc/hotspare/oncall" in one["what"] for one in document["not_kept"])
    assert (new.folder / "state" / "server" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert (new.folder / "state").stat().st_mode & 0o777 == 0o700
    assert log_in(new)

    newest = new.expect("audit", "list", "-o", "json").document()["entries"][1]
    assert (newest["number"], newest["hash"]) == (document["audit_number"], document["audit_hash"])
    assert (newest["action"], newest["detail"]["self_backup"]) == ("self rebuild", made["id"])
    assert newest["number"] == made["audit_number"] + 1, "it goes on where it was"
    new.expect("audit", "verify", "--known", f"{made['audit_number']}:{made['audit_hash']}")

    assert [one for one in runs(new) if one[0] == "backup"] == [
        one for one in runs(served) if one[0] == "backup"
    ], "and what was backed up since is in it too"
    assert set(history) - set(runs(new)) == {("self-backup", "ok", made["id"])}
    assert "web" in new.expect("machine", "list").out
    assert back_up(new)["installation"] == made["installation"], "its self-backups go on in the same row"


def test_tokens_come_back_and_logins_do_not(served: Program) -> None:
    with closing(Access(served.folder / "state")) as access:
        login = access.log_in("anna", PASSWORD, None, "127.0.0.1")[1]
        token = access.issue_token("anna", "grafana", None, None)[1]
    back_up(served)
    new = empty_host(served)
    rebuilt(new)
    with closing(Access(new.folder / "state")) as access:
        assert access.tokens.caller(token).name == "anna!grafana"
        with pytest.raises(LoginRefused):
            access.tokens.caller(login)


def test_what_is_there_is_not_written_over_unless_forced(served: Program) -> None:
    back_up(served)
    (served.folder / "policies" / "web-0.yaml").write_text("select: {names: [db]}\n")
    refused = served.run("self", "rebuild", "-o", "json")
    assert (refused.status, refused.error()["code"]) == (26, "target-exists")
    planned = {Path(one["path"]).name: one["action"] for one in rebuilt(served, "--dry-run")["files"]}
    assert (planned["web-0.yaml"], planned["web-1.yaml"]) == ("conflict", "there")

    document = rebuilt(served, "--force")
    (aside,) = (path for path in document["put_aside"] if "web-0" in path)
    assert Path(aside).read_text() == "select: {names: [db]}\n"
    assert "web*" in (served.folder / "policies" / "web-0.yaml").read_text()
    assert served.expect("policy", "list", "-o", "json").document()["policies"][0]["name"] == "web-0"
    assert log_in(served)


def test_nothing_is_replaced_below_a_server(served: Program) -> None:
    back_up(served)
    assert log_in(served)  # so the record is another one than was kept
    with closing(Access(served.folder / "state")):
        refused = served.run("self", "rebuild", "--force")
    assert (refused.status, "is in use by process" in refused.err) == (1, True)
    rebuilt(served, "--force")


def test_the_recovery_kit_is_enough(served: Program) -> None:
    served.expect("key", "recovery-kit", served.folder / "kit.txt")
    back_up(served)
    kit = (served.folder / "kit.txt").read_text()
    assert "hotspare self rebuild -r REPOSITORY" in kit
    key = "".join(line for line in kit.split("Recovery key:")[1].splitlines()[1:5])
    new = empty_host(served)
    new.expect("self", "rebuild", HOTSPARE_PASSPHRASE=key)
    assert written_by_people(new) == written_by_people(served)


def test_a_rebuild_that_is_killed_is_gone_on_with(served: Program) -> None:
    for number in range(60):
        (served.folder / "policies" / f"more-{number}.yaml").write_text(f"# {number}\nselect: {{}}\n")
    back_up(served)
    new = empty_host(served)
    policies = new.folder / "policies"
    process = new.start("self", "rebuild")
    deadline = time.monotonic() + 60
    while not list(policies.glob("*.yaml")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (new.folder / "state" / "access.sqlite").exists(), "it was killed in its midst"

    document = rebuilt(new)
    assert {one["action"] for one in document["files"]} == {"there", "write"}
    assert written_by_people(new) == written_by_people(served)
    assert log_in(new)
    assert list(new.folder.rglob(".self-rebuild*")) == []


def test_a_kill_after_the_databases_were_put_in_place(
    served: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then they are not what the self-backup has any more, and nevertheless its own."""
    back_up(served)
    new = empty_host(served)
    with monkeypatch.context() as patched:

        def killed(*_arguments: object, **_options: object) -> None:
            raise SystemExit("killed")

        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(SystemExit):
            new.run("self", "rebuild")
    assert {one["action"] for one in rebuilt(new)["files"]} == {"there"}
    assert log_in(new)


def test_a_self_backup_that_is_killed_leaves_the_others_and_the_next_one_alone(served: Program) -> None:
    with closing(sqlite3.connect(served.folder / "state" / "catalog.sqlite")) as catalog:
        catalog.execute("CREATE TABLE filling (a BLOB)")
        catalog.execute("INSERT INTO filling VALUES (randomblob(?))", (24 * MIB,))
        catalog.commit()
    first = back_up(served)
    staging = served.folder / "state" / ".self-backup"
    with closing(sqlite3.connect(served.folder / "state" / "catalog.sqlite")) as catalog:
        catalog.execute("UPDATE filling SET a = randomblob(?)", (24 * MIB,))
        catalog.commit()
    process = served.start("self", "backup")
    while not (staging / "access.sqlite").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert staging.exists()
    assert [one["id"] for one in listed(served)] == [first["id"]]

    second = back_up(served)
    assert not staging.exists()
    assert [one["id"] for one in listed(served)] == [first["id"], second["id"]]
    served.expect("repo", "prune")
    assert served.expect("repo", "check", "-o", "json").document()["problems"] == []
    rebuilt(empty_host(served))


def add_runs(program: Program, machines: Iterable[int]) -> None:
    program.expect("run", "list")  # makes the catalog
    rows = [(f"m{number % 90}", "r" * 60, "2026-11-26T02:15:00+00:00") for number in machines]
    with closing(sqlite3.connect(program.folder / "state" / "catalog.sqlite")) as catalog:
        catalog.executemany(
            "INSERT INTO runs (kind, machine, platform, repository, process, started_at, finished_at,"
            " outcome) VALUES ('backup', ?1, 'p', ?2, '', ?3, ?3, 'ok')",
            rows,
        )
        catalog.commit()


def test_a_daily_copy_is_small(served: Program) -> None:
    add_runs(served, range(9000))
    first = back_up(served)
    add_runs(served, range(90))
    second = back_up(served)
    assert second["size"] > 1.5 * MIB
    assert second["bytes_stored"] < first["bytes_stored"] / 3


def test_it_is_kept_checked_and_copied_as_machines_are(served: Program) -> None:
    made = back_up(served)
    served.expect("repo", "prune")
    assert served.expect("repo", "check", "-o", "json").document()["problems"] == []
    second = served.folder / "second"
    served.expect("repo", "create", second)
    served.expect(
        "repo", "copy", "--to", second, HOTSPARE_TO_PASSPHRASE=served.environment["HOTSPARE_PASSPHRASE"]
    )
    new = empty_host(served)
    new.environment["HOTSPARE_REPOSITORY"] = str(second)
    rebuilt(new)
    assert written_by_people(new) == written_by_people(served)

    for pack in (served.repository / "data").rglob("*"):
        if pack.is_file():
            pack.write_bytes(b"")
    problems = served.run("repo", "check", "-o", "json").document()["problems"]
    assert made["id"] in {point for problem in problems for point in problem["points"]}
    third = empty_host(served, "third")
    assert third.run("self", "rebuild").status == 14
    assert not (third.folder / "policies").exists(), "nothing is put in place before all could be read"


def test_it_is_no_machine(served: Program) -> None:
    served.expect("backup", "web")
    made = back_up(served)
    points = served.expect("point", "list", "-o", "json").document()["points"]
    assert [point["machine"] for point in points] == ["web"]
    info = served.expect("repo", "info", "-o", "json").document()
    assert (info["points"], info["machines"]) == (1, 1)
    host = f"hotspare@{made['host']}"
    assert served.run("restore", host, "--to", "x").status == 22
    refused = served.run("restore", made["id"], "--to", "x")
    assert (refused.status, "hotspare self rebuild" in refused.err) == (2, True)
    out = served.folder / "access.sqlite"
    served.expect("restore", made["id"], "--disk", f"state/access.sqlite={out}")
    assert out.read_bytes().startswith(b"SQLite format 3")


def test_older_ones_go(served: Program) -> None:
    ids = [back_up(served)["id"] for _ in range(5)]
    assert [one["id"] for one in listed(served)] == ids[2:]


def test_a_record_that_was_tampered_with_is_told(served: Program) -> None:
    first = back_up(served)
    change_record(
        served, lambda database: database.change("UPDATE audit SET entry = replace(entry, 'ok', 'no')")
    )
    told = served.expect("self", "backup")
    assert "Entry 1 was changed" in told.err
    new = empty_host(served)
    done = new.run("self", "rebuild", "-o", "json")
    assert (done.status, done.error()["code"]) == (43, "audit-broken")
    assert "Entry 1 was changed" in done.document()["audit_problem"]
    assert written_by_people(new) == written_by_people(served), "the rest is there nevertheless"
    assert log_in(new)

    third = empty_host(served, "third")
    assert rebuilt(third, first["id"])["audit_problem"] is None, "the one before it was whole"


def test_a_record_that_was_written_anew_is_told(served: Program) -> None:
    back_up(served)
    change_record(served, write_record_anew)
    served.expect("audit", "verify")  # which cannot know
    told = served.expect("self", "backup")
    assert "whose hash was noted" in told.err
    assert empty_host(served).run("self", "rebuild").status == 43


def test_without_a_self_backup_the_history_is_made_of_the_points(served: Program) -> None:
    served.expect("backup", "web")
    change_image(served.folder / "images" / "web.raw")
    served.expect("backup", "web")
    backups = [one for one in runs(served) if one[0] == "backup"]
    new = empty_host(served)
    told = new.expect("self", "rebuild")
    assert "The repository has no self-backup" in told.out
    assert "policies, users, the audit record" in told.out
    assert runs(new) == backups
    assert rebuilt(new)["self_backup"] is None
    assert runs(new) == backups, "nothing is told twice"
    assert new.run("self", "show").status == 22


def test_two_servers_share_a_repository(served: Program) -> None:
    mine = back_up(served)
    other = empty_host(served, "other")
    theirs = back_up(other)
    assert mine["installation"] != theirs["installation"]
    new = empty_host(served)
    refused = new.run("self", "rebuild")
    assert (refused.status, mine["id"] in refused.err, theirs["id"] in refused.err) == (2, True, True)
    assert rebuilt(new, mine["id"])["of"] == mine["host"]


def test_folders_that_only_the_configuration_file_knows(served: Program) -> None:
    elsewhere = served.folder / "elsewhere"
    (served.folder / "hotspare.toml").write_text(f'policy_folder = "{elsewhere}"\n')
    elsewhere.mkdir()
    (elsewhere / "far.yaml").write_text("select: {names: [far]}\n")
    back_up(served)
    shutil.rmtree(elsewhere)
    rebuilt(empty_host(served))
    assert (elsewhere / "far.yaml").read_text() == "select: {names: [far]}\n"


def test_backups_that_somebody_had_asked_for_wait_again(served: Program) -> None:
    engine = open_database(checked_url(f"sqlite:///{served.folder}/state/jobs.sqlite"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE workflow_status (a)"))  # by which a used one is known
    by_hand = Order(policy="web-0", platform="images:///x", machine_id="web", machine="web")
    by_calendar = Order(policy="web-1", platform="images:///x", machine_id="web", machine="web")
    Waiting(engine).ask(by_hand, priority=50)
    Waiting(engine).ask(by_calendar, asked=False)
    engine.dispose()
    assert back_up(served)["orders"] == 1
    new = empty_host(served)
    assert rebuilt(new)["orders"] == 1
    engine = open_database(f"sqlite:///{new.folder}/state/jobs.sqlite")
    (row,) = Waiting(engine).all()
    engine.dispose()
    assert (row.order, row.priority, row.asked) == (by_hand, 50, True)
