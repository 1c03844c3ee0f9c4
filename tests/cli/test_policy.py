"""Policies on the command line: a policy's whole life on a folder of images, with a real repository."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from hotspare.catalog.catalog import Catalog
from hotspare.policy.load import LoadSample
from tests.cli.images import change_image, make_image
from tests.cli.program import Program

MIB = 1024 * 1024


@pytest.fixture
def program(program: Program) -> Program:
    for number, name in enumerate(("web1", "web2", "db"), 1):
        make_image(program.folder / "images" / f"{name}.raw", MIB, data=MIB, seed=number)
    program.expect("repo", "create")
    return program


def policy_file(program: Program, name: str) -> Path:
    return program.folder / "policies" / f"{name}.yaml"


def outcomes(program: Program, *words: str) -> list[tuple[str, str]]:
    document = program.expect("policy", "run", *words, "-o", "json").document()
    return [(result["machine"], result["outcome"]) for result in document["results"]]


def long_ago(program: Program, name: str) -> None:
    """Make a policy look as if it had been there for two days."""
    then = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    os.utime(policy_file(program, name), (then, then))


def test_a_policy_is_added_shown_listed_and_removed(program: Program) -> None:
    added = [
        "policy",
        "add",
        "nightly",
        "--include",
        "web*",
        "--when",
        "22:00",
        "--keep-daily",
        "7",
        "--rpo",
        "26h",
    ]
    assert "Would add" in program.expect(*added, "--dry-run").out
    assert not policy_file(program, "nightly").exists()
    program.expect(*added)
    assert yaml.safe_load(policy_file(program, "nightly").read_text()) == {
        "select": {"names": ["web*"]},
        "schedule": {"when": ["22:00"], "rpo": "26h"},
        "retention": {"daily": 7},
    }
    assert program.run(*added).status == 26
    listed = program.expect("policy", "list").out.splitlines()
    assert listed[1].split() == [
        "nightly",
        "yes",
        "web*",
        "22:00",
        "26h",
        "7",
        "daily",
        "the",
        "one",
        "that",
        "is",
        "set",
    ]
    shown = program.expect("policy", "show", "nightly", "-o", "json").document()["policy"]
    assert (shown["retention"]["daily"], shown["retention"]["weekly"]) == (7, 0)
    assert program.run("policy", "remove", "nightly").status == 2  # nobody to ask
    program.expect("policy", "remove", "nightly", "--dry-run")
    program.expect("policy", "remove", "nightly", "--yes")
    gone = program.run("policy", "show", "nightly")
    assert gone.status == 34
    assert "There is no policy 'nightly'" in gone.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--when", "25:00"], "25:00"),
        (["--hook", "oracle"], "Policy bad: There is no hook 'oracle'"),
        (["--window", "at night"], "is no window"),
        (["--time-zone", "Nowhere"], "no time zone"),
        (["-r", "sftp://user:secret@host/x"], "password in the URL"),
    ],
)
def test_what_makes_no_sense_is_not_added(program: Program, words: list[str], said: str) -> None:
    done = program.run("policy", "add", "bad", *words)
    assert done.status == 2
    assert said in done.err
    assert not policy_file(program, "bad").exists()


def test_an_editor_changes_a_policy_and_mistakes_are_not_saved(program: Program) -> None:
    program.expect("policy", "add", "nightly", "--when", "22:00")
    before = policy_file(program, "nightly").read_text()
    broken = program.run("policy", "edit", "nightly", EDITOR="sed -i s/22:00/32:00/")
    assert broken.status == 2
    assert "line 3: '32:00' is no time" in broken.err
    assert program.run("policy", "edit", "nightly", EDITOR="false").status == 1
    assert program.run("policy", "edit", "nightly", EDITOR="no-such-editor").status == 2
    assert policy_file(program, "nightly").read_text() == before
    program.expect("policy", "edit", "nightly", EDITOR="sed -i '1i # ours' ", VISUAL=None)
    assert policy_file(program, "nightly").read_text() == "# ours\n" + before


def test_a_run_backs_up_what_is_selected_and_new_machines_too(program: Program) -> None:
    program.expect("policy", "add", "webs", "--include", "web*", "--exclude", "*2")
    assert outcomes(program, "webs") == [("web1", "ok")]
    make_image(program.folder / "images" / "web3.raw", MIB, data=MIB, seed=9)
    plan = program.expect("policy", "run", "webs", "--dry-run", "-o", "json").document()
    assert {one["machine"] for one in plan["machines"]} == {"web1", "web3"}
    assert sorted(outcomes(program, "webs")) == [("web1", "ok"), ("web3", "ok")]
    runs = program.expect("run", "list", "-o", "json").document()["runs"]
    assert [(run["policy"], run["outcome"]) for run in runs] == [("webs", "ok")] * 3
    program.expect("backup", "db")
    assert program.expect("run", "list", "--policy", "webs").out.count("webs") == 3
    assert len(program.expect("run", "list", "-o", "json").document()["runs"]) == 4


def test_who_has_no_point_goes_first_then_who_is_through_fastest(program: Program) -> None:
    program.expect("policy", "add", "all", "--rpo", "26h")
    program.expect("backup", "web2")
    plan = program.expect("policy", "run", "all", "--dry-run", "-o", "json").document()["machines"]
    assert plan[2]["machine"] == "web2"
    assert [one["because"] for one in plan] == ["it has no restore point yet"] * 2 + ["it is through fastest"]
    assert plan[2]["rate"] > 0
    assert plan[2]["deadline"] is not None


def test_a_machine_that_fails_does_not_stop_the_others(program: Program) -> None:
    (program.folder / "images" / "broken.qcow2").write_bytes(b"no image")
    program.expect("policy", "add", "all")
    done = program.run("policy", "run", "all")
    assert done.status == 3
    assert "broken: failed" in done.err
    assert "4 machines: 3 ok, 1 failed" in done.out or "4 machines: 1 failed, 3 ok" in done.out


def test_due_runs_once_and_only_inside_windows(program: Program) -> None:
    program.expect("policy", "add", "hourly", "--when", "hourly", "--include", "web1")
    assert outcomes(program, "--due") == []  # new: it waits for its next time
    long_ago(program, "hourly")
    assert outcomes(program, "--due") == [("web1", "ok")]
    assert program.expect("policy", "run", "--due").out == "Nothing was backed up: nothing is due.\n"
    program.expect("policy", "add", "closed", "--when", "hourly", "--include", "db", "--rpo", "1h")
    text = policy_file(program, "closed").read_text()
    dark = "  blackouts: ['2020-01-01..2099-01-01']\n"
    policy_file(program, "closed").write_text(text.replace("  rpo:", f"{dark}  rpo:"))
    long_ago(program, "closed")
    done = program.expect("policy", "run", "--due")
    assert "db: waits: its window is closed" in done.err
    assert "Nothing was backed up: all have to wait." in done.out
    assert outcomes(program, "closed") == [("db", "ok")]  # by name, windows do not count


def test_a_window_is_left_for_a_promise_where_the_policy_allows_it(program: Program) -> None:
    # A window that is closed now, whenever this runs: one hour, half a day away.
    away = datetime.now(UTC) + timedelta(hours=12)
    window = f"{away:%H}:00-{away:%H}:30"
    words = ["policy", "add", "kept", "--when", "*:*", "--include", "db", "--rpo", "1m", "--window", window]
    program.expect(*words)
    long_ago(program, "kept")
    assert outcomes(program, "--due") == []
    with policy_file(program, "kept").open("a") as file:
        file.write("")
    text = policy_file(program, "kept").read_text()
    policy_file(program, "kept").write_text(text.replace("rpo: 1m", "rpo: 1m\n  break_windows_for_rpo: true"))
    long_ago(program, "kept")
    assert outcomes(program, "--due") == [("db", "ok")]


def test_a_policy_with_an_rpo_alone_begins_at_once_and_then_in_time(program: Program) -> None:
    program.expect("policy", "add", "tight", "--include", "db", "--rpo", "2h")
    assert program.expect("policy", "list").out.splitlines()[1].split()[3:6] == ["by", "its", "RPO"]
    assert "60% of its RPO of 2h" in program.expect("policy", "preview", "tight", "--no-retention").out
    assert outcomes(program, "--due") == [("db", "ok")]
    assert outcomes(program, "--due") == []


def test_a_limit_of_nothing_is_maintenance(program: Program) -> None:
    program.expect("policy", "add", "all")
    (program.folder / "policies" / "limits.yaml").write_text("host: 0\n")
    done = program.expect("policy", "run", "all")
    assert done.err.count("has 0 of 0 runs") == 3
    assert program.expect("point", "list", "-o", "json").document()["points"] == []


def test_nothing_to_do_is_said(program: Program) -> None:
    assert program.run("policy", "run").status == 2
    assert program.run("policy", "run", "nobody").status == 34
    program.expect("policy", "add", "none", "--include", "x*")
    done = program.run("policy", "run", "none")
    assert done.status == 21
    assert "selects no machine" in done.err
    program.expect("policy", "add", "far", "--platform", "qemu+ssh://other/system")
    far = program.run("policy", "run", "far", HOTSPARE_SSH_COMMAND="/bin/false")
    assert far.status == 20
    assert "qemu+ssh://other/system" in far.err


def test_links_are_crossed_by_what_lies_on_one_side_of_them(program: Program) -> None:
    program.expect("policy", "add", "all", "--include", "web*")
    limits = program.folder / "policies" / "limits.yaml"
    limits.write_text("links: {lan: {repositories: ['file://*'], bandwidth: 64MiB/s}}\n")
    plan = program.expect("policy", "run", "all", "--dry-run", "-o", "json").document()["machines"]
    assert ["link lan" in one["takes"] for one in plan] == [True, True]
    assert [one["upload_limit"] for one in plan] == [16 * MIB] * 2
    assert "over lan, at 16" in program.expect("policy", "run", "all", "--dry-run").out
    assert sorted(outcomes(program, "all")) == [("web1", "ok"), ("web2", "ok")]
    exported = program.expect("config", "export", "-o", "json").document()["limits"]["links"]
    assert exported == {"lan": {"hosts": [], "repositories": ["file://*"], "bandwidth": "64MiB/s"}}
    limits.write_text(limits.read_text() + "named: {link lan: 0}\n")
    assert program.expect("policy", "run", "all").err.count("link lan has 0 of 0 runs") == 2


def test_a_mistake_in_one_policy_keeps_no_other_from_its_backups(program: Program) -> None:
    program.expect("policy", "add", "good", "--when", "hourly", "--include", "db")
    program.expect("policy", "add", "far", "--when", "hourly", "--platform", f"{program.folder}/gone")
    policy_file(program, "bad").write_text("schedule:\n  wen: hourly\n")
    for name in ("good", "far"):
        long_ago(program, name)
    done = program.run("policy", "run", "--due")
    assert done.status == 2
    assert 'bad.yaml, line 2: there is no "wen" here' in done.err
    assert "gone cannot be listed" in done.err
    assert "db: restore point" in done.out


def points(program: Program) -> list[str]:
    return [point["id"] for point in program.expect("point", "list", "-o", "json").document()["points"]]


def test_retention_is_previewed_applied_and_kept_points_stay(program: Program) -> None:
    program.expect("policy", "add", "short", "--include", "web1", "--keep-last", "2")
    for offset in range(4):
        change_image(program.folder / "images" / "web1.raw", offset * 1000)
        program.expect("policy", "run", "short")
    oldest, second, third, newest = points(program)
    program.expect("backup", "web2")
    program.expect("point", "keep", oldest)
    preview = program.expect("policy", "preview", "short", "-o", "json").document()
    judged = {one["point"]: one["reasons"] for one in preview["retention"]}
    assert judged == {
        oldest: ["kept by hand"],
        second: [],
        third: ["last 2 of 2"],
        newest: ["last 1 of 2"],
    }
    assert [one["machine"] for one in preview["machines"]] == ["web1"]
    assert {one["machine"]: one["because"] for one in preview["left_out"]} == {
        "db": "no pattern fits its name",
        "web2": "no pattern fits its name",
    }
    dry = program.expect("policy", "forget", "short", "--dry-run").out
    assert "Would forget 1 of 4 restore points." in dry
    assert program.run("policy", "forget", "short").status == 2  # nobody to ask
    assert len(points(program)) == 5
    done = program.expect("policy", "forget", "short", "--yes", "-o", "json").document()
    assert [one["point"] for one in done["points"] if not one["kept"]] == [second]
    assert {oldest, third, newest} < set(points(program))
    assert len(points(program)) == 4
    assert "Forgot 0 of 3" in program.expect("policy", "forget", "short").out  # nothing to ask about


def test_what_another_policy_wants_is_kept(program: Program) -> None:
    program.expect("policy", "add", "short", "--include", "web1", "--keep-last", "1")
    for _ in range(3):
        program.expect("policy", "run", "short")
    same_folder = f"{program.folder}/images"  # the same platform, written another way
    program.expect(
        "policy", "add", "long", "--platform", same_folder, "--include", "web*", "--keep-last", "2"
    )
    program.expect("policy", "add", "elsewhere", "--platform", f"{program.folder}", "--keep-last", "9")
    judged = program.expect("policy", "forget", "short", "--dry-run", "-o", "json").document()["points"]
    assert [one["reasons"] for one in judged] == [
        [],
        ["policy long: last 2 of 2"],
        ["last 1 of 1", "policy long: last 1 of 2"],
    ]
    # One that cannot be read might want them all.
    policy_file(program, "broken").write_text("retention: much\n")
    assert program.run("policy", "forget", "short", "--yes").status == 2
    assert len(points(program)) == 3


def test_a_preview_tells_dates_low_peak_hours_and_broken_promises(program: Program) -> None:
    program.expect(
        *("policy", "add", "nightly", "--when", "22:00", "--time-zone", "Europe/Berlin", "--rpo", "26h"),
        *("--window", "23:00-05:00", "--include", "web*", "--keep-daily", "7"),
    )
    program.expect("backup", "web1")
    nothing = program.expect("policy", "preview", "nightly", "--next", "2").out
    assert "never sampled" in nothing
    assert nothing.count("begins") == 2
    assert "22:00 CE" in nothing
    platform = program.environment["HOTSPARE_PLATFORM"]
    catalog = Catalog.open(program.folder / "state", pytest.fail)
    start = datetime.now(UTC) - timedelta(days=8)
    for count in range(8 * 24):
        at = start + timedelta(hours=count)
        busy = 0.1 if at.hour < 6 else 0.8
        catalog.add_load(platform, LoadSample(at=at, cpu=busy, disk=0, network=0, latency=None))
    catalog.close()
    learnt = program.expect("load", "windows", "-o", "json").document()["platforms"][0]
    assert learnt["windows"] == ["00:00-06:00"]
    document = program.expect("policy", "preview", "nightly", "-o", "json").document()
    assert len(document["due"]) == 5
    assert {one["machine"]: one["rpo_broken"] for one in document["machines"]} == {
        "web1": False,
        "web2": True,
    }
    assert document["low_peak_is"] == "propose"
    low_peak = document["low_peak"][0]
    assert low_peak["windows"]
    assert len(low_peak["hours"]) == 168
    assert {low_peak["hours"][hour] for hour in low_peak["low_hours"]} == {0.1}
    assert program.run("load", "sample", "--seconds", "0.1").status == 2  # images do not run
    text = program.expect("load", "windows", "--time-zone", "Asia/Tokyo").out
    assert "09:00-15:00" in text


def test_configuration_is_exported_compared_and_applied(program: Program, tmp_path: Path) -> None:
    program.expect("policy", "add", "nightly", "--when", "22:00", "--keep-daily", "7")
    program.expect("policy", "add", "old")
    exported = program.expect("config", "export").out
    file = tmp_path / "all.yaml"
    file.write_text(exported)
    assert program.expect("config", "diff", file).out == "Nothing is different.\n"
    content = yaml.safe_load(exported)
    content["policies"]["nightly"]["retention"]["daily"] = 14
    content["policies"]["fresh"] = {"schedule": {"when": ["hourly"]}}
    del content["policies"]["old"]
    content["limits"]["host"] = 5
    file.write_text(yaml.safe_dump(content))
    assert program.expect("config", "diff", file).out.splitlines() == [
        "fresh: would be added",
        "nightly: would be changed",
        "  retention.daily: 7 -> 14",
        "limits: would be changed",
        "  host: 2 -> 5",
    ]
    program.expect("config", "apply", file, "--dry-run")
    assert sorted(path.name for path in (program.folder / "policies").iterdir()) == [
        "nightly.yaml",
        "old.yaml",
    ]
    assert program.run("config", "apply", file, "--prune").status == 2  # nobody to ask
    assert not policy_file(program, "fresh").exists()
    untouched = policy_file(program, "nightly").stat().st_ino
    changes = program.expect("config", "apply", "-", "--prune", "--yes", "-o", "json", typed=file.read_text())
    assert {one["name"]: one["action"] for one in changes.document()["changes"]} == {
        "fresh": "added",
        "nightly": "changed",
        "old": "removed",
        "limits": "changed",
    }
    assert policy_file(program, "nightly").stat().st_ino != untouched
    assert yaml.safe_load(program.expect("config", "export").out) == content
    again = policy_file(program, "nightly").stat().st_ino
    program.expect("config", "apply", file)
    assert policy_file(program, "nightly").stat().st_ino == again  # what says the same is not written


def test_a_document_with_a_mistake_changes_nothing(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("policies:\n  good: {}\n  bad:\n    backup:\n      hooks: [oracle]\n")
    done = program.run("config", "apply", file, "-o", "json")
    assert (done.status, done.error()["code"]) == (2, "usage")
    file.write_text("policies:\n  good: {}\n  bad:\n    retenion: 7\n")
    done = program.run("config", "apply", file)
    assert done.status == 2
    assert f"{file}, line 4" in done.err
    assert 'Did you mean "retention"' in done.err
    assert not (program.folder / "policies").exists()
    assert program.run("config", "apply", tmp_path / "none.yaml").status == 2
    assert json.loads(program.expect("config", "export", "-o", "json").out)["policies"] == []
