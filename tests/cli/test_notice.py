"""Notices on the command line: what fails and is mended reaches a real HTTP server; nothing waits for it."""

import time
from pathlib import Path

import pytest
import yaml

from tests.cli.images import make_image
from tests.cli.program import Program
from tests.cli.test_json_output import differences, examples, shape
from tests.notices.receivers import HttpReceiver, silent_receiver

MIB = 1024 * 1024


@pytest.fixture
def program(program: Program) -> Program:
    make_image(program.folder / "images/web.raw", MIB, data=MIB)
    program.expect("repo", "create")
    return program


def receivers(program: Program, text: str) -> Path:
    path = program.folder / "policies/notices.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def log(program: Program, **variables: str) -> list[tuple[str, str, str]]:
    """Give event, problem and state of all notices, the oldest first."""
    document = program.expect("notice", "log", "-o", "json", **variables).document()
    return [(one["event"], one["problem"], one["state"]) for one in reversed(document["notices"])]


def break_image(program: Program) -> None:
    image = program.folder / "images/web.raw"
    image.rename(program.folder / "kept.raw")
    image.symlink_to(program.folder / "nowhere")


def mend_image(program: Program) -> None:
    image = program.folder / "images/web.raw"
    image.unlink(missing_ok=True)
    (program.folder / "kept.raw").rename(image)


def test_a_failure_is_told_once_and_its_end_once(program: Program, http: HttpReceiver) -> None:
    receivers(program, "oncall:\n  url_variable: ONCALL\n")
    variables = {"ONCALL": http.url}
    program.expect("backup", "web")
    assert log(program) == []  # that a backup went well is told to nobody who did not ask for it
    break_image(program)
    for _ in range(3):
        assert program.run("backup", "web").status != 0
    assert log(program) == [("run-failed", "broken", "waiting")]
    sent = program.expect("notice", "send", **variables)
    assert sent.out == "oncall: 1 sent\n"
    mend_image(program)
    program.expect("backup", "web")
    program.expect("backup", "web")
    program.expect("notice", "send", **variables)
    assert program.expect("notice", "send", **variables).out == "Nothing is due.\n"
    assert log(program) == [("run-failed", "broken", "sent"), ("run-failed", "mended", "sent")]
    assert [title.partition("] ")[2] for title in http.titles] == [
        "ERROR: The backup of web failed",
        "Mended: web was backed up",
    ]
    shown = program.expect("notice", "log").out
    assert "run-failed mended" in shown


def test_a_policy_tells_of_its_own_runs(program: Program) -> None:
    text = "a:\n  url_variable: A\n  match:\n    events: [run-ok]\n    policies: ['night*']\n"
    receivers(program, text)
    program.expect("policy", "add", "nightly")
    program.expect("backup", "web")
    assert log(program) == []
    program.expect("policy", "run", "nightly")
    assert log(program) == [("run-ok", "once", "waiting")]
    assert program.run("policy", "show", "notices").status == 34
    assert program.run("policy", "add", "notices").status == 2


def test_damage_is_told_and_mended_only_by_the_same_kind_of_check(program: Program) -> None:
    receivers(program, "a:\n  url_variable: A\n")
    program.expect("backup", "web")
    pack = next(path for path in (program.repository / "data").rglob("*") if path.is_file())
    content = pack.read_bytes()
    pack.unlink()
    assert program.run("repo", "check").status == 14
    pack.write_bytes(content)
    program.expect("repo", "check", "--packs")
    assert log(program) == [("repository-damaged", "broken", "waiting")]
    program.expect("repo", "check")
    assert log(program)[1:] == [("repository-damaged", "mended", "waiting")]
    runs = program.expect("run", "list", "-o", "json").document()["runs"]
    assert [(run["kind"], run["outcome"]) for run in runs[:3]] == [
        ("check", "ok"),
        ("check", "ok"),
        ("check", "failed"),
    ]


def test_a_receiver_that_does_not_answer_holds_no_backup_up(program: Program) -> None:
    with silent_receiver() as url:
        receivers(program, "a:\n  url_variable: A\n  match:\n    events: [run-ok]\n")
        began = time.monotonic()
        program.expect("backup", "web", A=url)
        assert time.monotonic() - began < 45


def test_mistakes_in_the_receivers_fail_no_backup(program: Program) -> None:
    receivers(program, "a:\n  url: json://user:secret@host\n")
    done = program.expect("backup", "web")
    assert "Nobody is told" in done.err
    assert "secret" not in done.err


def test_a_test_says_whether_it_arrived(program: Program, http: HttpReceiver) -> None:
    path = receivers(program, "oncall:\n  url_variable: ONCALL\n")
    program.expect("notice", "test", "oncall", ONCALL=http.url)
    assert http.titles[0].endswith("INFO: This is a test")
    http.status = 500
    refused = program.run("notice", "test", "oncall", ONCALL=http.url)
    assert refused.status == 37
    assert "hush" not in refused.err
    assert program.run("notice", "test", "oncall").status == 37  # the variable is not set
    missing = program.run("notice", "test", "nobody")
    assert missing.status == 36
    assert str(path) in missing.err
    assert [state for _, _, state in log(program)] == ["sent", "given-up", "given-up"]


def test_a_digest_is_sent_when_somebody_asks(program: Program, http: HttpReceiver) -> None:
    text = "team:\n  url_variable: TEAM\n  delivery: digest\n  match:\n    events: [run-ok]\n"
    receivers(program, text)
    program.expect("backup", "web")
    program.expect("backup", "web")
    assert program.expect("notice", "send", TEAM=http.url).out == "Nothing is due.\n"
    program.expect("notice", "send-digest", "team", TEAM=http.url)
    assert [title.partition("] ")[2] for title in http.titles] == ["Digest: 2 run-ok"]
    http.status = 500
    program.expect("backup", "web")
    assert program.run("notice", "send-digest", "team", TEAM=http.url).status == 37


def test_no_list_shows_a_url(program: Program, http: HttpReceiver) -> None:
    secret = program.folder / "oncall-url"
    secret.write_text(http.url)
    receivers(program, f"oncall:\n  url_file: {secret}\n")
    secret.chmod(0o644)
    assert "Others than its owner may read" in program.expect("notice", "test", "oncall").err
    secret.chmod(0o600)
    assert program.expect("notice", "test", "oncall").err == ""
    shown = [
        program.expect(*words, *form).out
        for words in (["notice", "list"], ["notice", "show", "oncall"], ["config", "export"])
        for form in ([], ["-o", "json"])
    ]
    assert all(str(secret) in text for text in shown)
    assert not any("hush" in text or "s3cr3t" in text for text in shown)


def test_receivers_are_exported_compared_and_applied(program: Program) -> None:
    path = receivers(program, "a:\n  url_variable: A\nb:\n  url_variable: B\n")
    document = program.folder / "all.yaml"
    document.write_text(program.expect("config", "export").out)
    assert program.expect("config", "diff", document).out == "Nothing is different.\n"
    wanted = yaml.safe_load(document.read_text())
    del wanted["notices"]["b"]
    wanted["notices"]["a"]["match"] = {"severity": "error"}
    wanted["notices"]["c"] = {"url_file": "/etc/hotspare/c"}
    document.write_text(yaml.safe_dump(wanted))
    said = program.expect("config", "diff", document, "--prune").out
    assert said.splitlines() == [
        "notice a: would be changed",
        "  match.severity: none -> error",
        "notice c: would be added",
        "notice b: would be removed",
    ]
    program.expect("config", "apply", document)
    assert sorted(yaml.safe_load(path.read_text())) == ["a", "b", "c"]
    program.expect("config", "apply", document, "--prune", "--yes")
    assert sorted(yaml.safe_load(path.read_text())) == ["a", "c"]
    document.write_text("policies: {}\n")
    program.expect("config", "apply", document, "--prune", "--yes")  # says nothing of notices
    assert sorted(yaml.safe_load(path.read_text())) == ["a", "c"]


def test_json_documents_are_as_documented(program: Program, http: HttpReceiver) -> None:
    receivers(program, "a:\n  url_variable: A\n  match:\n    events: [run-ok]\n")
    program.expect("backup", "web")
    for words in (
        ["notice", "list"],
        ["notice", "show", "a"],
        ["notice", "test", "a"],
        ["notice", "send"],
        ["notice", "log"],
    ):
        printed = program.expect(*words, "-o", "json", A=http.url).document()
        assert differences(shape(examples()[printed["type"]]), shape(printed), printed["type"]) == []
