"""docs/policies.md: its definitions are good, and its commands do what it says."""

import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hotspare.policy.document import read_limits, read_policy
from hotspare.policy.planning import timetable
from hotspare.policy.policy import Policy
from tests.cli.images import make_image
from tests.cli.program import Program

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
MIB = 1024 * 1024


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", DOCUMENT, re.DOTALL)


def parts_of(policy: Policy) -> set[str]:
    parts = (policy, policy.select, policy.schedule, policy.backup, policy.retention)
    return {name for part in parts for name in part.__struct_fields__} - {"name"}


def test_the_definitions_shown_are_good_and_show_every_field() -> None:
    whole, limits = blocks("yaml")
    policy = read_policy(whole, "shown", "docs/policies.md")
    planned = timetable(policy, None, datetime(2026, 12, 23, tzinfo=UTC), 3)
    assert [f"{one.due.astimezone(policy.zone):%a %d %H:%M}" for one in planned] == [
        "Wed 23 22:00",
        "Thu 24 22:00",
        "Fri 25 22:00",
    ]
    # The second is in a blackout of three days, which ends in a window of the weekend.
    assert planned[1].opens is not None
    assert f"{planned[1].opens.astimezone(policy.zone):%a %d %H:%M}" == "Sun 27 00:00"
    shown = set(re.findall(r"^\s*(\w+):", whole, re.MULTILINE))
    assert parts_of(policy) <= shown
    found = read_limits(limits, "docs/policies.md")
    assert found.named == {"host qemu:///system": 1, "pool /srv/slow": 1, "link branch": 1}
    assert found.links_of("qemu+ssh://root@branch2/system", "file:///srv/backup") == {"branch"}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    images = tmp_path / "images"
    images.mkdir()
    for number, name in enumerate(("web1", "db1"), 1):
        make_image(images / f"{name}.raw", MIB, data=MIB, seed=number)
    program = Program(tmp_path)
    program.expect("repo", "create")
    return program


def test_the_commands_shown_work_one_after_the_other(program: Program) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) >= 10
    for line in lines:
        command, _, target = line.partition(" > ")
        words = [
            word.replace("policies.yaml", str(program.folder / "policies.yaml"))
            for word in shlex.split(command)
        ]
        done = program.expect(*words[1:])
        if target:
            (program.folder / target).write_text(done.out)
    points = program.expect("point", "list", "-o", "json").document()["points"]
    assert {point["machine"] for point in points} == {"web1", "db1"}
