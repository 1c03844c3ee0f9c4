"""Who is told of what: matchers, digests over daylight saving, and definitions with mistakes."""

from datetime import UTC, datetime
from typing import Any

import pytest

from hotspare.errors import ConfigError
from hotspare.policy.document import read_configuration, read_receivers, write_configuration, write_receivers
from hotspare.policy.limits import Limits
from hotspare.policy.occurrence import SEVERITY_OF, Kind, Occurrence
from hotspare.policy.receiver import Match, Receiver

AT = datetime(2026, 11, 23, 2, 15, tzinfo=UTC)


def seen(kind: Kind = "run-failed", **fields: Any) -> Occurrence:
    given = {"machine": "web01", "policy": "nightly", "tags": ("prod",)} | fields
    return Occurrence(kind=kind, state="broken", subject="x", title="x", at=AT, **given)


@pytest.mark.parametrize(
    ("match", "occurrence", "fits"),
    [
        (Match(), seen(), True),
        (Match(), seen("run-ok"), False),  # nobody is told of each backup without asking for it
        (Match(events=("run-ok",)), seen("run-ok"), True),
        (Match(events=("run-ok",)), seen(), False),
        (Match(severity="error"), seen("run-missed"), False),
        (Match(severity="info"), seen("run-ok"), True),
        (Match(events=("run-ok",), severity="error"), seen("run-ok"), False),
        (Match(machines=("web*", "db")), seen(), True),
        (Match(machines=("db*",)), seen(), False),
        (Match(machines=("*",)), seen("repository-damaged", machine=""), False),
        (Match(exclude=("web0*",)), seen(), False),
        (Match(exclude=("web0*",)), seen("repository-damaged", machine=""), True),
        (Match(policies=("night*",)), seen(), True),
        (Match(policies=("night*",)), seen("unprotected", policy=""), False),
        (Match(tags=("prod", "db")), seen(), True),
        (Match(tags=("db",)), seen(), False),
        (Match(tags=("db",)), seen(tags=()), False),
        (Match(tags=("db",)), seen(tags=None), True),  # rather told in vain than not at all
        (Match(tags=("db",)), seen("repository-damaged", machine="", tags=None), False),
    ],
)
def test_a_matcher_lets_through_what_is_meant(match: Match, occurrence: Occurrence, *, fits: bool) -> None:
    assert match.fits(occurrence) is fits


def test_every_kind_has_a_severity() -> None:
    assert set(SEVERITY_OF) == set(Kind.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("own", "of_policy", "now", "due"),
    [
        ("", "", "2026-11-23T06:59:00", "2026-11-23T07:00:00"),
        ("", "", "2026-11-23T07:00:00", "2026-11-24T07:00:00"),
        ("", "Europe/Berlin", "2026-11-23T06:59:00", "2026-11-24T06:00:00"),
        ("Asia/Tokyo", "Europe/Berlin", "2026-11-23T06:59:00", "2026-11-23T22:00:00"),
        ("", "Nowhere/Town", "2026-11-23T06:59:00", "2026-11-23T07:00:00"),
        # Clocks go forward at 2 o'clock on 29 March 2026: 7 o'clock is an hour sooner.
        ("Europe/Berlin", "", "2026-03-28T07:00:00", "2026-03-29T05:00:00"),
    ],
)
def test_a_digest_is_due_at_its_time_of_day(own: str, of_policy: str, now: str, due: str) -> None:
    receiver = Receiver(name="team", url_variable="X", delivery="digest", time_zone=own)
    moment = datetime.fromisoformat(f"{now}+00:00")
    assert receiver.due(seen(time_zone=of_policy), moment) == datetime.fromisoformat(f"{due}+00:00")


def test_what_is_immediate_is_due_at_once() -> None:
    assert Receiver(name="oncall", url_variable="X").due(seen(), AT) == AT


WHOLE = """\
oncall:
  url_file: /etc/hotspare/notices/oncall
  match:
    events: [run-failed, rpo-broken]
    machines: ['web*']
team:
  url_variable: HOTSPARE_NOTICE_TEAM
  delivery: digest
  digest_at: '07:00'
  time_zone: Europe/Berlin
"""


def test_what_is_written_reads_back_the_same() -> None:
    receivers = {one.name: one for one in read_receivers(WHOLE, "notices.yaml")}
    assert receivers["oncall"].match.events == ("run-failed", "rpo-broken")
    assert receivers["team"].delivery == "digest"
    again = read_receivers(write_receivers(receivers), "again")
    assert {one.name: one for one in again} == receivers
    document = write_configuration({}, Limits(), receivers)
    assert read_configuration(document, "all").receivers == tuple(receivers.values())
    assert read_configuration("policies: {}", "none").receivers is None
    assert read_receivers("", "empty") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {}", "line 1: Either url_file or url_variable"),
        ("a:\n  url_file: x\n  url_variable: Y", "line 1: Either url_file or url_variable"),
        ("a:\n  url_file: notices/a", "line 2: 'notices/a' is no absolute path"),
        ("a:\n  url_variable: 'json://u:p@h'", "line 2: This is no name of a variable"),
        ("a:\n  url: json://u:secret@h/", 'line 2: there is no "url" here'),
        ("a:\n  url_variable: X\n  digest_at: '7'", "line 3: '7' is no time of day"),
        ("a:\n  url_variable: X\n  time_zone: Nowhere", "line 3: There is no time zone"),
        ("a:\n  url_variable: X\n  match:\n    events: [run-fail]", "line 4: run-fail"),
        ("a:\n  url_variable: X\n  match:\n    severity: bad", "line 4: severity"),
        ("a:\n  url_variable: X\n  match:\n    event: [run-ok]", 'line 4: there is no "event" here'),
        ("A b:\n  url_variable: X", "line 1: A receiver cannot be called 'A b'"),
        ("[a]", "line 1: keys with values are wanted here"),
    ],
)
def test_mistakes_are_told_with_their_line_and_without_secrets(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_receivers(text, "notices.yaml")
    assert said.partition(": ")[0] in refused.value.what
    if "run-fail" not in said:
        assert said in refused.value.what
    assert "secret" not in str(refused.value)
    assert "u:p" not in str(refused.value)
