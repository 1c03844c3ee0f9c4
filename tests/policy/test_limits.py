"""Links: who crosses them, and how their bandwidth is divided."""

import pytest

from hotspare.errors import ConfigError
from hotspare.policy.document import read_limits, write_limits
from hotspare.policy.limits import Limits, Resource

BRANCH, HERE = "qemu+ssh://root@branch1/system", "qemu:///system"
OFFSITE, NEAR, AT_BRANCH = "s3:https://offsite/vms", "file:///srv/backup", "ssh://nas.branch1/backup"
WAN = """
link: 3
named:
  "link offsite": 1
links:
  branch:
    hosts: ["qemu+ssh://root@branch*/system"]
    repositories: ["ssh://nas.branch*"]
    bandwidth: 30MiB/s
  offsite:
    repositories: ["s3:https://offsite/*"]
    bandwidth: 20MiB/s
"""


@pytest.fixture
def limits() -> Limits:
    return read_limits(WAN, "limits.yaml")


@pytest.mark.parametrize(
    ("host", "repository", "links"),
    [
        (HERE, NEAR, set()),
        (HERE, OFFSITE, {"offsite"}),
        (BRANCH, NEAR, {"branch"}),
        (BRANCH, OFFSITE, {"branch", "offsite"}),
        (BRANCH, AT_BRANCH, set()),
        (HERE, AT_BRANCH, {"branch"}),
    ],
)
def test_a_link_is_crossed_when_one_end_lies_behind_it(
    limits: Limits, host: str, repository: str, links: set[str]
) -> None:
    assert limits.links_of(host, repository) == links


def test_bandwidth_is_divided_by_the_most_runs_that_there_may_be(limits: Limits) -> None:
    assert limits.of(Resource("link", "branch")) == 3
    assert limits.shares(["offsite", "branch"]) == [("30MiB/s", 3), ("20MiB/s", 1)]
    assert Limits().shares([]) == []


def test_links_are_written_as_they_are_read(limits: Limits) -> None:
    assert read_limits(write_limits(limits), "x") == limits


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("links:\n  wan:\n    hosts: ['*']\n    bandwith: 1MiB/s\n", 4, 'no "bandwith"'),
        ("links:\n  wan:\n    hosts: '*'\n", 3, "a list"),
        ("links:\n  wan:\n    hosts: ['*']\n    bandwidth: fast\n", 4, "no rate"),
        ("links:\n  wan:\n    hosts: ['*']\n    bandwidth: 0B/s\n", 4, "no rate"),
        ("links:\n  wan:\n    bandwidth: 1MiB/s\n", 2, "Nothing lies behind"),
        ("host: 1\nnamed:\n  link wan: 1\n", 3, "no link 'wan'"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_limits(text, "limits.yaml")
    assert f"limits.yaml, line {line}: " in refused.value.what
    assert problem in refused.value.what
