"""Back up a running machine, change it, back it up again, lose it, get it back, and prove it.

Everything is real: a guest made of the distribution's kernel, booted from its own disk under libvirt;
the ``hotspare`` program as users run it; proof by checksums taken inside the guests.
"""

import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from demo.program import Hotspare
from hotspare.units import MIB, format_bytes, format_duration
from lab import DiskSpec, LabError, LabGuest, domain_name, ensure_host, sweep
from lab.image import guest_image

FIRST, SECOND = "/data/first", "/data/second"
_DISK_SIZE = 1024 * MIB
_FIRST_SIZE = 16 * MIB
_SECOND_SIZE = 4 * MIB


def main() -> None:
    """Run the demonstration; exits with 1 when anything is not as it should be."""
    console = Console(highlight=False)
    started = time.monotonic()
    _say(console, "Looking at the host, and building a guest from the distribution's kernel")
    try:
        ensure_host()
        sweep()
        guest_image()
        with tempfile.TemporaryDirectory(prefix="hotspare-demo-") as folder:
            _main_job(console, Hotspare(Path(folder), console), started)
    except LabError as error:
        sys.exit(f"The demonstration cannot go on: {error}")


def _main_job(console: Console, hotspare: Hotspare, started: float) -> None:
    guest = LabGuest.create("demo", kind="disk", disks=[DiskSpec(size=_DISK_SIZE)])
    restored_name = domain_name("demo-restored")
    try:
        _say(console, f"Booting {guest.name} from its own disk")
        booted = guest.start().wait_ready()
        hashes = {FIRST: guest.write_random(FIRST, _FIRST_SIZE)}
        console.print(f"It answers after {format_duration(booted)}. Wrote {FIRST} inside.")
        hotspare("repo", "create")

        _say(console, "Backing it up while it runs: everything, for the first time")
        full = _backup(hotspare, guest.name)

        _say(console, "Changing data inside, and backing up again: only what changed is read")
        hashes[SECOND] = guest.write_random(SECOND, _SECOND_SIZE)
        increment = _backup(hotspare, guest.name)

        _say(console, "Losing the machine and its disk")
        folder = next(iter(guest.disks.values())).parent
        guest.remove()
        console.print(f"{guest.name} is gone, and so is {folder}: {not folder.exists()}")

        _say(console, "Restoring it as a new machine, and booting that")
        began = time.monotonic()
        hotspare("restore", guest.name, "--to", restored_name)
        restore_seconds = time.monotonic() - began
        restored = LabGuest.attach(restored_name)
        restored.start()
        boot_seconds = restored.wait_ready()
        _prove(console, restored, hashes)
        hotspare("verify")
        info = hotspare("repo", "info")
        console.print(_summary(full, increment, info, restore_seconds, boot_seconds))
        console.print(f"All of it took {format_duration(time.monotonic() - started)}.")
    finally:
        guest.remove()
        LabGuest(restored_name).remove()


def _backup(hotspare: Hotspare, name: str) -> dict[str, Any]:
    (result,) = hotspare("backup", name)["results"]
    point: dict[str, Any] = result["point"]
    return point


def _prove(console: Console, restored: LabGuest, hashes: dict[str, str]) -> None:
    for path, expected in hashes.items():
        found = restored.sha256(path)
        if found != expected:
            sys.exit(f"{path} is NOT what was written: {found} where {expected} was written")
        console.print(f"{path} inside {restored.name}: SHA-256 {found[:16]}… is what was written.")


def _summary(
    full: dict[str, Any],
    increment: dict[str, Any],
    info: dict[str, Any],
    restore_seconds: float,
    boot_seconds: float,
) -> Table:
    table = Table(title="What was done")
    for column in ("", "read", "new", "stored", "time", "frozen"):
        table.add_column(column, justify="right" if column else "left")
    for name, point in (("full backup", full), ("increment", increment)):
        (disk,) = point["disks"]
        if disk["mode"] not in name:
            sys.exit(f"The {name} was made as {disk['mode']}: {disk['full_because']}")
        table.add_row(
            f"{name} of {format_bytes(disk['size'])}, {point['consistency']}-consistent",
            format_bytes(disk["bytes_read"]),
            format_bytes(disk["bytes_new"]),
            format_bytes(disk["bytes_stored"]),
            format_duration(_seconds(point)),
            format_duration(point["frozen_seconds"]),
        )
    table.add_row("restore to a new machine", "", "", "", format_duration(restore_seconds), "")
    table.add_row("its boot, until the agent answers", "", "", "", format_duration(boot_seconds), "")
    share = 100 * increment["bytes_read"] / full["size"]
    held, stored = info["disk_bytes"], info["stored_bytes"]
    table.caption = (
        f"The second backup read {share:.1f} % of the disk. The repository holds {info['points']} whole"
        f" disks, {format_bytes(held)}, in {format_bytes(stored)} (1:{held / stored:.0f})."
    )
    return table


def _seconds(point: dict[str, Any]) -> float:
    return (
        datetime.fromisoformat(point["finished_at"]) - datetime.fromisoformat(point["started_at"])
    ).total_seconds()


def _say(console: Console, step: str) -> None:
    console.print(f"\n[bold cyan]{step}[/]")


if __name__ == "__main__":
    main()
