"""Whether the server still looks at what is due: its own file says so."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hotspare.jobs.heartbeat import SILENT_SECONDS, Heartbeat, is_silent, last_beat

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert last_beat(tmp_path) is None
    Heartbeat(tmp_path).beat()
    beat = last_beat(tmp_path)
    assert beat
    assert not is_silent(beat, datetime.now(UTC))


def test_it_beats_every_ten_seconds_at_most(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path)
    heart.beat()
    (tmp_path / "server.heartbeat").unlink()
    heart.beat()
    assert last_beat(tmp_path) is None


def test_a_folder_that_cannot_be_written_stops_no_server(tmp_path: Path) -> None:
    Heartbeat(tmp_path / "nowhere").beat()


@pytest.mark.parametrize(
    ("seconds", "silent"), [(0, False), (SILENT_SECONDS, False), (SILENT_SECONDS + 1, True), (-3600, True)]
)
def test_silence(seconds: float, *, silent: bool) -> None:
    assert is_silent(NOW - timedelta(seconds=seconds), NOW) is silent
