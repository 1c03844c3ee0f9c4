"""What is shown while an engine works, with events made by hand."""

import io
import json
from collections.abc import Iterator

import pytest
from rich.console import Console

from hotspare.cancellation import Cancellation
from hotspare.cli import progress
from hotspare.cli.options import ProgressForm
from hotspare.cli.progress import JsonLines, shown_progress
from hotspare.events import DiskFinished, DiskStarted, Event, PhaseStarted, Progress, Warned
from hotspare.units import GIB, MIB

HALF_WAY: list[Event] = [
    PhaseStarted("web", "transfer"),
    DiskStarted("web", "vda", 2 * GIB, GIB, "full", "it is the first backup"),
    Progress("web", "vda", 512 * MIB, bytes_read=400 * MIB, bytes_new=100 * MIB, bytes_stored=30 * MIB),
    Warned("web", "no guest agent"),
]


def show(form: ProgressForm, events: list[Event]) -> None:
    with shown_progress(form, Cancellation()) as listener:
        for event in events:
            listener(event)


@pytest.mark.parametrize("form", ["auto", "none"])
def test_only_warnings_are_said_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], form: ProgressForm
) -> None:
    show(form, HALF_WAY)
    shown = capsys.readouterr()
    assert shown.err == "Warning: web: no guest agent\n"
    assert shown.out == ""


def test_json_lines_are_one_document_each(capsys: pytest.CaptureFixture[str]) -> None:
    show("jsonl", [*HALF_WAY, DiskFinished("web", "vda")])
    shown = capsys.readouterr()
    lines = [json.loads(line) for line in shown.err.splitlines()]
    assert [line["type"] for line in lines] == [
        "phase-started",
        "disk-started",
        "progress",
        "warned",
        "disk-finished",
    ]
    assert {line["v"] for line in lines} == {1}
    assert lines[2]["bytes_stored"] == 30 * MIB
    assert shown.out == ""


def test_json_lines_on_one_disk_are_not_many(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 0.1, 0.2, 0.3, 0.6])
    write = JsonLines(clock=lambda: next(now))
    for disk, count in [("vda", 0), ("vda", 1), ("vdb", 2), ("vda", 3), ("vda", 4)]:
        write(Progress("web", disk, count))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["disk"], line["bytes_processed"]) for line in lines] == [("vda", 0), ("vdb", 2), ("vda", 4)]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Let the bars be drawn on a terminal of 160 columns that only remembers."""
    memory = io.StringIO()
    console = Console(file=memory, force_terminal=True, width=160, _environ={"TERM": "xterm"}, no_color=True)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    yield memory
    memory.close()


def test_bars_show_bytes_deduplicated_and_stored(screen: io.StringIO) -> None:
    show("auto", HALF_WAY)
    drawn = screen.getvalue()
    assert "web: transfer" in drawn
    assert "vda full" in drawn
    assert "512.0 MiB of 1.0 GiB" in drawn
    assert "deduplicated 300.0 MiB" in drawn
    assert "stored 30.0 MiB" in drawn
    assert "Warning: web: no guest agent" in drawn


def test_a_restore_says_nothing_of_storing(screen: io.StringIO) -> None:
    started = DiskStarted("web", "vda", GIB, GIB, "restore")
    show("auto", [started, Progress("web", "vda", 512 * MIB, bytes_read=256 * MIB)])
    assert "512.0 MiB of 1.0 GiB" in screen.getvalue()
    assert "stored" not in screen.getvalue()


def test_a_finished_disk_is_full_even_when_little_had_to_be_read(screen: io.StringIO) -> None:
    show("auto", [DiskStarted("web", "vda", GIB, GIB, "full"), DiskFinished("web", "vda")])
    assert "1.0 GiB of 1.0 GiB" in screen.getvalue()
    assert "done" in screen.getvalue()


def test_bars_of_earlier_machines_go(screen: io.StringIO) -> None:
    with shown_progress("auto", Cancellation()) as listener:
        for number in range(30):
            listener(PhaseStarted(f"machine-{number}", "transfer"))
            listener(DiskStarted(f"machine-{number}", "vda", GIB, GIB, "full"))
        before = len(screen.getvalue())
        listener(Warned("machine-29", "look"))
        last_frame = screen.getvalue()[before:]
    assert "machine-29: transfer" in last_frame
    assert "machine-28" not in last_frame


def test_the_names_of_machines_cannot_steer_the_terminal(screen: io.StringIO) -> None:
    show("auto", [PhaseStarted("we\x1b]0;b\x07", "transfer"), Warned("[bold]web[/]", "\x1b[2J")])
    assert "\x1b]0;b" not in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()
    assert "[bold]web[/]" in screen.getvalue()


def test_whoever_interrupts_is_told_to_wait_once(screen: io.StringIO) -> None:
    cancellation = Cancellation()
    with shown_progress("auto", cancellation) as listener:
        listener(HALF_WAY[0])
        assert "Stopping" not in screen.getvalue()
        cancellation.cancel()
        listener(HALF_WAY[1])
        listener(HALF_WAY[2])
    assert screen.getvalue().count("Stopping at the next safe moment") == 1
