"""Definitions as YAML: what is read, and how mistakes are told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import ConfigError
from hotspare.policy.document import (
    read_configuration,
    read_limits,
    read_policy,
    write_configuration,
    write_limits,
    write_policy,
)
from hotspare.policy.limits import Limits, Resource
from hotspare.policy.policy import Manner, Policy, Schedule
from hotspare.policy.retention import Retention
from hotspare.policy.selection import Selection

FULL = """
description: Databases
enabled: false
priority: 5
repository: file:///srv/backup
select:
  platforms: ["qemu:///system"]
  names: [db*, no]          # a machine called "no" is no false
  exclude: ["*-test"]
  tags: [prod]
schedule:
  when: [22:00, "Sat 03:00"]
  time_zone: Europe/Berlin
  windows: [22:00-06:00]
  blackouts: [2026-12-24..2026-12-26]
  low_peak: use
  rpo: 1d2h
  break_windows_for_rpo: true
backup:
  consistency: application
  require_consistency: true
  hooks: ["postgresql,timeout=60s"]
  skip_unused: false
  latency_factor: 3
  read_limit: 100MiB/s
  exclude_disks: [vdb]
retention:
  last: 3
  daily: 7
"""


def test_everything_is_read() -> None:
    policy = read_policy(FULL, "databases", "policy.yaml")
    assert policy == Policy(
        name="databases",
        description="Databases",
        enabled=False,
        priority=5,
        repository="file:///srv/backup",
        select=Selection(
            platforms=("qemu:///system",), names=("db*", "no"), exclude=("*-test",), tags=("prod",)
        ),
        schedule=Schedule(
            when=("22:00", "Sat 03:00"),
            time_zone="Europe/Berlin",
            windows=("22:00-06:00",),
            blackouts=("2026-12-24..2026-12-26",),
            low_peak="use",
            rpo="1d2h",
            break_windows_for_rpo=True,
        ),
        backup=Manner(
            consistency="application",
            require_consistency=True,
            hooks=("postgresql,timeout=60s",),
            skip_unused=False,
            latency_factor=3.0,
            read_limit="100MiB/s",
            exclude_disks=("vdb",),
        ),
        retention=Retention(last=3, daily=7),
    )
    assert policy.rpo_seconds == 26 * 3600
    assert read_policy(write_policy(policy), "databases", "again") == policy


def test_an_empty_file_is_the_whole_host_by_hand() -> None:
    assert read_policy("", "all", "x") == read_policy("{}", "all", "x") == Policy(name="all")
    assert read_policy(write_policy(Policy(name="all")), "all", "x") == Policy(name="all")


@pytest.mark.parametrize(
    ("text", "line", "said", "hint"),
    [
        ("retention:\n  daly: 7\n", 2, 'there is no "daly" here', 'Did you mean "daily"?'),
        ("schedule:\n  wen: hourly\n", 2, 'there is no "wen" here', 'Did you mean "when"?'),
        ("\nname: x\n", 2, '"name" is given', "Leave it out"),
        ("schedule:\n  when: 22:00\n", 2, "when: expected a list", "['Mon..Fri 22:00']"),
        ("schedule:\n  when:\n    - 22:00\n    - 25:00\n", 4, "'25:00' is no time", "Mon..Fri 22:00"),
        ("schedule:\n  windows: ['22:00']\n", 2, "no window", "22:00-06:00"),
        ("schedule:\n  blackouts:\n  - 2026-12-32\n", 3, "no blackout", "2026-12-24"),
        ("schedule:\n  time_zone: Mars/Base\n", 2, "no time zone 'Mars/Base'", "Europe/Berlin"),
        ("schedule:\n  rpo: 1 day\n", 2, "no span of time", "26h"),
        ("schedule:\n  break_windows_for_rpo: true\n", 2, "only be broken for a promise", "rpo: 26h"),
        ("retention:\n  daily: -1\n", 2, "daily: expected", "docs/policies.md"),
        ("retention:\n  daily: seven\n", 2, "daily: expected a number", ""),
        ("backup:\n  consistency: perfect\n", 2, "consistency: invalid", "crash, filesystem or application"),
        ("backup:\n  read_limit: fast\n", 2, "no rate", "100MiB/s"),
        ("enabled: yes\n", 1, "enabled: expected true or false", ""),
        ("select: [a\nb: c\n", 2, "expected", "YAML"),
        ("enabled: true\nenabled: false\n", 2, "twice", ""),
        ("select: &a {}\nretention: *a\n", 1, "aliases", ""),
        ("- nightly\n", 1, "keys with values", ""),
        ("select:\n  names:\n  - web\n  - {a: b}\n", 4, "", ""),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "", ""),
        ("\x00", 1, "", "YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_to_write(
    text: str, line: int, said: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read_policy(text, "nightly", "nightly.yaml")
    assert refused.value.what.startswith(f"nightly.yaml, line {line}: "), refused.value.what
    assert said in refused.value.what
    assert hint in refused.value.hint
    assert refused.value.hint


@pytest.mark.parametrize("name", ["", "Nightly", "a/b", "..", "limits", "x" * 70, "a b"])
def test_names_that_cannot_be_files_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        read_policy("", name, "x")


def test_mistakes_in_a_whole_document_have_the_lines_of_the_whole() -> None:
    text = "version: 1\npolicies:\n  nightly: {}\n  databases:\n    retention:\n      dayly: 3\n"
    with pytest.raises(ConfigError) as refused:
        read_configuration(text, "all.yaml")
    assert refused.value.what == 'all.yaml, line 6: there is no "dayly" here'
    for wrong, line in (("version: 2\n", 1), ("policy: {}\n", 1), ("policies:\n  limits: {}\n", 2)):
        with pytest.raises(ConfigError) as refused:
            read_configuration(wrong, "all.yaml")
        assert f"line {line}" in refused.value.what


def test_limits_are_read_by_kind_and_by_name() -> None:
    limits = read_limits("host: 3\nnamed:\n  'host qemu:///system': 0\n", "limits.yaml")
    assert limits.of(Resource("host", "qemu:///system")) == 0
    assert limits.of(Resource("host", "other")) == 3
    assert limits.of(Resource("repository", "x")) == Limits().repository
    assert read_limits(write_limits(limits), "x") == limits


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
TEXTS = st.lists(
    st.one_of(WORDS, st.sampled_from(["no", "null", "22:00", "1e3", "~", "", "0x10", "- a: b"])), max_size=3
)


@settings(deadline=None, max_examples=50)
@given(
    st.builds(
        Policy,
        name=st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,20}", fullmatch=True).filter(
            lambda name: name != "limits"
        ),
        description=WORDS,
        enabled=st.booleans(),
        select=st.builds(Selection, names=TEXTS.map(tuple), tags=TEXTS.map(tuple)),
        schedule=st.builds(Schedule, when=st.sampled_from([(), ("22:00",), ("0 22 * * 1-5", "hourly")])),
        retention=st.builds(Retention, daily=st.integers(0, 99), yearly=st.integers(0, 9)),
    )
)
def test_what_is_written_reads_back(policy: Policy) -> None:
    assert read_policy(write_policy(policy), policy.name, "x") == policy
    whole = write_configuration({policy.name: policy}, Limits(host=1), {})
    found = read_configuration(whole, "x")
    assert (found.policies, found.limits) == ((policy,), Limits(host=1))


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    refusal = None
    try:
        read_configuration(text, "x")
    except ConfigError as error:
        refusal = error.what
    assert refusal is None or refusal.startswith("x, line ")
