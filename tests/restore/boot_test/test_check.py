"""Checks as people write them."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.errors import UsageError
from hotspare.restore.boot_test.check import Check, parse_check


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("agent", Check("agent")),
        ("tcp:443", Check("tcp:443")),
        ("tcp:10.0.0.5:22, timeout=2m", Check("tcp:10.0.0.5:22", 120)),
        ("guest:orders,timeout=5", Check("guest:orders", 5)),
        ("postgresql,timeout=90s,sql=SELECT 1, 2", Check("postgresql", 90, "SELECT 1, 2")),
    ],
)
def test_what_is_written(text: str, check: Check) -> None:
    assert parse_check(text) == check


def test_parts_of_a_port() -> None:
    assert parse_check("tcp:22").tcp == (None, 22)
    assert parse_check("tcp:10.0.0.5:22").tcp == (IPv4Address("10.0.0.5"), 22)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http",
        "tcp:",
        "tcp:0",
        "tcp:65536",
        "tcp:host:22",
        "guest:",
        "guest:../x",
        "host:a/b",
        "agent,timeout=0",
        "agent,often",
        "agent,sql=SELECT 1",
        "mariadb,sql= ",
    ],
)
def test_what_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        parse_check(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        check = parse_check(text)
    except UsageError:
        return
    assert check.seconds > 0
    if check.kind == "tcp":
        assert 0 < check.tcp[1] < 65536
