"""Hooks as people write them."""

import pytest

from hotspare.errors import UsageError
from hotspare.platforms.hooks.hook import READY, Hook, OnFailure, parse_hook, script_for_guest
from hotspare.platforms.platform import Consistency


@pytest.mark.parametrize(
    ("text", "hook"),
    [
        ("postgresql", Hook("postgresql", OnFailure.WARN, 30)),
        ("mariadb, timeout=2m, on-failure=fail", Hook("mariadb", OnFailure.FAIL, 120)),
        ("guest:my-erp_2.sh,on-failure=ignore", Hook("guest:my-erp_2.sh", OnFailure.IGNORE, 30)),
        ("host:erp,timeout=90", Hook("host:erp", OnFailure.WARN, 90)),
    ],
)
def test_what_is_understood(text: str, hook: Hook) -> None:
    assert parse_hook(text) == hook


@pytest.mark.parametrize(
    "text",
    [
        *("", "oracle", "guest:", "guest:../../bin/sh", "host:.hidden", "host:a/b", "other:erp", "guest:a b"),
        *("mariadb,timeout=0", "mariadb,timeout=-1", "mariadb,timeout=1h", "mariadb,on-failure=maybe"),
        *("mariadb,retries=3", "mariadb,"),
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_hook(text)


@pytest.mark.parametrize("name", ["runner", *READY])
def test_scripts_for_guests_come_with_the_product(name: str) -> None:
    assert script_for_guest(name).startswith(b"#!/bin/sh\n")


def test_levels_are_in_order() -> None:
    none, crash, files, application, offline = Consistency
    assert crash.meets(none)
    assert not none.meets(crash)
    assert files.meets(crash)
    assert files.meets(files)
    assert not files.meets(application)
    assert offline.meets(application)
