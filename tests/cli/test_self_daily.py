"""When a server makes a self-backup by itself."""

import pytest

from hotspare.cli.self_daily import Timing

HOUR = 3600.0
NOON = 1_795_694_400.0


@pytest.mark.parametrize(
    ("timing", "fingerprint", "due"),
    [
        (Timing(), "a", True),
        (Timing(made_at=NOON - HOUR, fingerprint="a"), "a", False),
        (Timing(made_at=NOON - HOUR, fingerprint="a"), "b", True),
        (Timing(made_at=NOON - 60, fingerprint="a"), "b", False),  # changes come in flocks
        (Timing(made_at=NOON - 25 * HOUR, fingerprint="a"), "a", True),
        (Timing(made_at=NOON + HOUR, fingerprint="a"), "a", True),  # a clock was wrong then or is now
        (Timing(tried_at=NOON - 60, failed=True), "a", False),
        (Timing(tried_at=NOON - HOUR, failed=True), "a", True),
        (Timing(tried_at=NOON + HOUR, failed=True), "a", True),
    ],
)
def test_when_one_is_due(timing: Timing, fingerprint: str, due: bool) -> None:
    assert timing.due(NOON, fingerprint) == due
