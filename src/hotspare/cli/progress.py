"""Showing how far an engine is: bars on a terminal, JSON lines for programs, silence elsewhere.

Everything goes to stderr, so that the result on stdout stays clean. Warnings are shown in every form.
Events may come from several threads at once.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from hotspare.cancellation import Cancellation
from hotspare.cli.options import ProgressForm
from hotspare.cli.output import document, note, printable, warn
from hotspare.documents.progress import EVENT_TYPES
from hotspare.events import (
    DiskFinished,
    DiskStarted,
    Event,
    Listener,
    PhaseStarted,
    Progress,
    Warned,
)
from hotspare.units import format_bytes, format_duration, format_rate

_LINE_INTERVAL = 0.5
"""Seconds between two JSON lines on the progress of one disk."""


@contextmanager
def shown_progress(form: ProgressForm, cancellation: Cancellation) -> Iterator[Listener]:
    """Give a listener that shows events in that form until the block is left."""
    if form == "jsonl":
        yield JsonLines()
        return
    console = Console(stderr=True)
    if form == "none" or not console.is_terminal or console.is_dumb_terminal:
        yield _only_warnings
        return
    with _bars(console) as bars:
        yield _noticing(cancellation, console, _BarListener(bars))


def _only_warnings(event: Event) -> None:
    if isinstance(event, Warned):
        warn(f"{event.machine}: {event.message}")


def _noticing(cancellation: Cancellation, console: Console, listener: Listener) -> Listener:
    # Stopping takes until the next safe moment; without a word people press Ctrl-C again and again.
    told = threading.Event()

    def notice(event: Event) -> None:
        if cancellation.requested and not told.is_set():
            told.set()
            console.print("Stopping at the next safe moment...")
        listener(event)

    return notice


class JsonLines:
    """Writes each event as one line of JSON; of a disk's progress not more than two lines a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write one event, unless the disk's last line is too fresh."""
        with self._lock:
            if isinstance(event, Progress) and not self._is_due(event):
                return
            note(json.dumps(document(EVENT_TYPES[type(event)], **asdict(event))))

    def _is_due(self, event: Progress) -> bool:
        disk, now = (event.machine, event.disk), self._clock()
        if now - self._last.get(disk, -_LINE_INTERVAL) < _LINE_INTERVAL:
            return False
        self._last[disk] = now
        return True


def _bars(console: Console) -> Bars:
    return Bars(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        _Numbers(),
        console=console,
        transient=True,
    )


class _Numbers(ProgressColumn):
    """What is said behind a disk's bar: bytes, rate, time left, deduplicated, stored."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text("")
        parts = [f"{format_bytes(task.completed)} of {format_bytes(task.total)}"]
        if task.speed:
            parts.append(format_rate(task.speed))
        if task.finished:
            parts.append("done")
        elif task.time_remaining is not None:
            parts.append(f"{_whole_seconds(task.time_remaining)} left")
        seen: Progress | None = task.fields["seen"]
        if seen is not None and seen.bytes_read and task.fields["stores"]:
            known = seen.bytes_read - seen.bytes_new
            parts += [f"deduplicated {format_bytes(known)}", f"stored {format_bytes(seen.bytes_stored)}"]
        return Text("  ".join(parts))


def _whole_seconds(seconds: float) -> str:
    # It is an estimate: fractions of a second would claim to know more.
    return f"{seconds:.0f} s" if seconds < 60 else format_duration(seconds)


class _BarListener:
    """Draws one bar per disk, and one line per machine that tells its phase."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._phases: dict[str, TaskID] = {}
        self._disks: dict[tuple[str, str], TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case PhaseStarted():
                    self._enter_phase(event)
                case DiskStarted():
                    self._add_disk(event)
                case Progress():
                    self._advance(event)
                case DiskFinished():
                    self._finish_disk(event)
                case Warned():
                    text = Text(f"Warning: {printable(event.machine)}: {printable(event.message)}")
                    self._bars.console.print(text)

    def _enter_phase(self, event: PhaseStarted) -> None:
        description = f"{printable(event.machine)}: {event.phase}"
        if event.machine in self._phases:
            self._bars.update(self._phases[event.machine], description=description)
        else:
            self._drop_others(event.machine)
            self._phases[event.machine] = self._bars.add_task(description, total=None)

    def _drop_others(self, machine: str) -> None:
        # Machines come one after the other; a hundred of them must not fill the screen with full bars.
        for name in [name for name in self._phases if name != machine]:
            self._bars.remove_task(self._phases.pop(name))
        self._drop_disks_of_others(machine)

    def _drop_disks_of_others(self, machine: str) -> None:
        for key in [key for key in self._disks if key[0] != machine]:
            self._bars.remove_task(self._disks.pop(key))

    def _add_disk(self, event: DiskStarted) -> None:
        self._drop_disks_of_others(event.machine)
        self._disks[event.machine, event.disk] = self._bars.add_task(
            f"  {printable(event.disk)} {event.mode}",
            total=event.bytes_to_process,
            seen=None,
            stores=event.mode in {"full", "increment"},
        )

    def _advance(self, event: Progress) -> None:
        task = self._disks.get((event.machine, event.disk))
        if task is not None:
            self._bars.update(task, completed=event.bytes_processed, seen=event)

    def _finish_disk(self, event: DiskFinished) -> None:
        task = self._disks.get((event.machine, event.disk))
        if task is not None:
            total = next(each.total for each in self._bars.tasks if each.id == task)
            self._bars.update(task, completed=total)
