"""What root does on the server's host, past a second person: told, recorded, and refused where set."""

from contextlib import closing
from typing import Any

import pytest

from hotspare.access.access import Access
from tests.cli.images import make_image
from tests.cli.program import Program

WIDE = "policies: {nightly: {retention: {daily: 7}}}"
NARROW = "policies: {nightly: {retention: {daily: 3}}}"


@pytest.fixture
def served(program: Program) -> Program:
    make_image(program.folder / "images" / "web.raw")
    program.expect("repo", "create")
    program.expect("config", "apply", "-", typed=WIDE)
    program.expect("user", "add", "anna", "--role", "admin", HOTSPARE_USER_PASSPHRASE="correct horse battery")
    with closing(Access(program.folder / "state")) as access:
        access.approvals.switch(on=True)
    return program


def newest(program: Program) -> dict[str, Any]:
    entry: dict[str, Any] = program.expect("audit", "list", "-n", "1", "-o", "json").document()["entries"][0]
    return entry


def kept_daily(program: Program) -> int:
    policy = program.expect("policy", "show", "nightly", "-o", "json").document()["policy"]
    return int(policy["retention"]["daily"])


def test_keeping_less_is_told_and_recorded(served: Program) -> None:
    done = served.expect("config", "apply", "-", typed=NARROW)
    assert "a second person would have to agree" in done.err
    entry = newest(served)
    assert (entry["actor"], entry["action"], entry["outcome"]) == ("local:root", "config apply", "ok")
    assert entry["detail"]["shortened"] == ["the policy nightly would keep 3 daily in place of 7"]
    assert entry["detail"]["second_person"]


def test_keeping_more_is_recorded_only(served: Program) -> None:
    done = served.expect("config", "apply", "-", typed=WIDE.replace("7", "9"))
    assert done.err == ""
    assert (newest(served)["action"], newest(served)["detail"]["shortened"]) == ("config apply", [])


def test_it_is_refused_where_that_is_set(served: Program) -> None:
    required = {"HOTSPARE_APPROVAL_ON_HOST": "required"}
    refused = served.run("config", "apply", "-", "-o", "json", typed=NARROW, **required)
    assert (refused.status, refused.error()["code"]) == (41, "not-permitted")
    assert kept_daily(served) == 7
    assert newest(served)["outcome"] == "not-permitted"
    served.expect("config", "apply", "-", typed=WIDE.replace("7", "9"), **required)
    assert kept_daily(served) == 9
    assert served.run("policy", "add", "new", "--keep-last", "1", **required).status == 41
    editor = {"VISUAL": "sed -i s/9/2/"}
    assert served.run("policy", "edit", "nightly", **required, **editor).status == 41
    served.expect("policy", "edit", "nightly", **editor)
    assert (kept_daily(served), newest(served)["action"]) == (2, "policy edit")


def test_forgetting_points_and_giving_back_their_space(served: Program) -> None:
    served.expect("backup", "web")
    served.expect("point", "forget", "web", "--dry-run", HOTSPARE_APPROVAL_ON_HOST="required")
    assert served.run("point", "forget", "web", "--yes", HOTSPARE_APPROVAL_ON_HOST="required").status == 41
    served.expect("point", "forget", "web", "--yes")
    assert newest(served)["action"] == "point forget"
    served.expect("repo", "prune", HOTSPARE_ASKED_BY="anna!cron")
    entry = newest(served)
    assert (entry["action"], entry["detail"]["asked_by"]) == ("repo prune", "anna!cron")
    served.expect("audit", "verify")


def test_what_fails_is_recorded_as_failed(served: Program) -> None:
    served.expect("backup", "web")
    served.expect("point", "keep", "web")
    (served.repository / "gc").write_text("")  # where notes of what is forgotten would go
    assert served.run("point", "forget", "web", "--yes", "--force").status != 0
    assert (newest(served)["action"], newest(served)["outcome"] != "ok") == ("point forget", True)


def test_a_host_that_serves_nobody_has_no_record(program: Program) -> None:
    program.expect("config", "apply", "-", typed=NARROW)
    assert not (program.folder / "state" / "access.sqlite").exists()


def test_a_word_that_the_setting_does_not_know(program: Program) -> None:
    refused = program.run("policy", "list", HOTSPARE_APPROVAL_ON_HOST="maybe")
    assert (refused.status, "recorded or required" in refused.err) == (2, True)
