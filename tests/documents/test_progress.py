"""How far a run is, from its events."""

import json
from dataclasses import asdict

import pytest

from hotspare.documents.progress import EVENT_TYPES, ProgressWatch, event_of, progress_fields
from hotspare.events import (
    DiskFinished,
    DiskStarted,
    Event,
    HeldBack,
    PhaseStarted,
    Progress,
    StagesTimed,
    Warned,
)

EVENTS: list[Event] = [
    PhaseStarted("web", "transfer"),
    DiskStarted("web", "vda", 1000, 400, "increment"),
    DiskStarted("web", "vdb", 500, 500, "full", "it is new"),
    Progress("web", "vda", 100, 80, 60, 30),
    Progress("web", "vdb", 50, 50, 50, 40),
    HeldBack("web", 3.5, 2.0, 4.0),
    StagesTimed("web", 12.0, 2.0, 1.0),
    Warned("web", "careful"),
    DiskFinished("web", "vda"),
]


def test_events_add_up() -> None:
    times = iter([10.0, 25.0])
    watch = ProgressWatch(clock=lambda: next(times))
    for event in EVENTS:
        watch(event)
    fields = progress_fields(watch.progress)
    assert fields["phase"] == "transfer"
    assert (fields["bytes_total"], fields["bytes_processed"]) == (900, 150)
    assert (fields["bytes_read"], fields["bytes_stored"]) == (130, 70)
    assert (fields["rate"], fields["seconds_left"]) == (10.0, 75.0)
    assert (fields["held_back_seconds"], fields["warnings"]) == (3.5, ["careful"])
    assert fields["stages"] == {
        "reading": 12.0,
        "processing": 2.0,
        "storing": 1.0,
        "bottleneck": "reading",
        "share": 0.8,
    }
    vda, vdb = fields["disks"]
    assert (vda["bytes_skipped"], vda["bytes_new"], vda["full_because"]) == (600, 60, None)
    assert (vdb["bytes_skipped"], vdb["mode"], vdb["full_because"]) == (0, "full", "it is new")


def test_nothing_is_said_of_what_has_not_begun() -> None:
    fields = progress_fields(None)
    assert (fields["phase"], fields["rate"], fields["seconds_left"], fields["disks"]) == (
        None,
        None,
        None,
        [],
    )


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    line = json.dumps({"type": EVENT_TYPES[type(event)], "v": 1, **asdict(event)})
    assert event_of(line) == event


@pytest.mark.parametrize("line", ["", "Warning: careful", "[]", "{}", '{"type": "progress", "v": 1}'])
def test_what_is_no_event_is_none(line: str) -> None:
    assert event_of(line) is None
