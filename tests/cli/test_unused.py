"""What no file system needs is left out of real disks, cold ones and those of guests that write."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from hotspare.units import KIB, MIB
from lab import DiskSpec, LabGuest, domain_name
from tests.cli.lab_program import program_for_libvirt
from tests.cli.program import Program
from tests.guest.unused.garbage import facts_below, mounted, run

OFFSET = MIB
"""Where the first partition begins."""
SIZE = 256 * MIB
SWAP = 32 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Give an image with ext4 and swap, of which most is deleted data."""
    path = tmp_path / "server.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
    sectors = (SIZE - OFFSET - SWAP) // 512 - 2048
    table = f"label: gpt\nstart=2048, size={sectors}\nstart={2048 + sectors}, type=swap\n"
    subprocess.run(["sfdisk", "--quiet", path], input=table, text=True, check=True)
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-E", f"offset={OFFSET}", str(path), f"{sectors // 2}k"])
    swap = tmp_path / "swap"
    swap.write_bytes(bytes(SWAP))
    run(["mkswap", str(swap)])
    with path.open("r+b") as file:
        file.seek(OFFSET + sectors * 512)
        file.write(swap.read_bytes()[: 64 * KIB])
        file.write(os.urandom(8 * MIB))  # swapped out once
    with partition(path) as root:
        for number in range(10):
            (root / f"kept{number}").write_bytes(os.urandom(MIB))
            (root / f"deleted{number}").write_bytes(os.urandom(10 * MIB))
    with partition(path) as root:
        for number in range(10):
            (root / f"deleted{number}").unlink()
    return path


def partition(disk: Path, *options: str) -> AbstractContextManager[Path]:
    place = f"offset={OFFSET}", f"sizelimit={SIZE - OFFSET - SWAP - MIB}"
    return mounted(disk, "ext4", *place, *options)


def back_up(program: Program, disk: Path, *words: str) -> dict[str, Any]:
    done = program.expect("backup", "--image", disk, "--name", "server", "-o", "json", *words)
    point: dict[str, Any] = done.document()["results"][0]["point"]
    return point


def assert_files_are_there(program: Program, disk: Path, folder: Path) -> Path:
    """Restore the newest point: its file system is sound, and its files are the disk's."""
    target = folder / "restored.raw"
    program.expect("restore", "server", "--disk", f"disk0={target}", "--force")
    run(["e2fsck", "-fn", f"{target}?offset={OFFSET}"])
    with partition(disk, "ro") as there:
        expected = facts_below(there)
    with partition(target, "ro") as here:
        assert facts_below(here) == expected
    return target


def test_a_cold_disk_full_of_deleted_data(program: Program, disk: Path, tmp_path: Path) -> None:
    program.expect("repo", "create")

    point = back_up(program, disk)

    ext, swap = point["file_systems"]
    assert (ext["volume"], ext["kind"], ext["kept_because"]) == ("disk0p1", "ext4", None)
    assert (swap["kind"], swap["kept_because"]) == ("swap", None)
    assert ext["free"] > 150 * MIB
    assert swap["scratch"] > 0.9 * SWAP
    assert 10 * MIB <= point["bytes_stored"] < 12 * MIB, "110 MiB hold something"
    assert point["bytes_read"] < 30 * MIB
    assert point["bytes_unused"] == ext["free"] + swap["scratch"]
    assert_files_are_there(program, disk, tmp_path)


def test_files_that_come_and_go(program: Program, disk: Path, tmp_path: Path) -> None:
    program.expect("repo", "create")
    back_up(program, disk)
    for number in range(3):
        with partition(disk) as root:
            (root / f"kept{number}").unlink()
            (root / f"new{number}").write_bytes(os.urandom(5 * MIB))
        back_up(program, disk)
    assert_files_are_there(program, disk, tmp_path)

    back_up(program, disk, "--no-skip-unused")

    assert assert_files_are_there(program, disk, tmp_path).read_bytes() == disk.read_bytes()


def test_the_table_says_what_was_left_out_and_why(program: Program, disk: Path) -> None:
    program.expect("repo", "create")
    with partition(disk) as root:
        (root / "unsynced").write_bytes(b"x")
        copy = disk.with_name("live.raw")
        os.sync()
        run(["cp", "--sparse=always", str(disk), str(copy)])

    clean = program.expect("backup", "--image", disk, "--name", "clean").out
    live = program.expect("backup", "--image", copy, "--name", "live").out

    assert "LEFT OUT" in clean
    assert "disk0p1" in clean
    assert "journal" in live, "it was mounted when it was copied"


@pytest.fixture
def lab_program(tmp_path: Path, lab_host: None) -> Iterator[Program]:
    with program_for_libvirt(tmp_path) as program:
        yield program


@pytest.mark.lab
@pytest.mark.timeout(300)
def test_a_guest_that_writes_all_the_time(lab_program: Program, tmp_path: Path) -> None:
    with LabGuest.create("unused", disks=[DiskSpec(size=128 * MIB)]) as guest:
        guest.start().wait_ready()
        for number in range(4):
            guest.fill(f"/data/deleted{number}", 8 * MIB)
        kept = guest.write_random("/data/kept", 4 * MIB)
        guest.exec("rm /data/deleted* && sync")
        guest.start_workload()
        points = []
        for number in range(3):
            guest.fill(f"/data/new{number}", 2 * MIB)
            guest.exec(f"rm -f /data/new{number - 1}")
            acked = guest.acked()
            done = lab_program.expect("backup", guest.name, "-o", "json").document()
            points.append(done["results"][0]["point"])
        last = guest.sha256("/data/new2")
        new_name = domain_name("unused-again")
        lab_program.expect("restore", guest.name, "--to", new_name)
    full = points[0]
    assert [one["kept_because"] for one in full["file_systems"]] == [None]
    assert full["bytes_read"] < 28 * MIB, "32 MiB were deleted"
    with LabGuest.attach(new_name) as restored:
        image = restored.disks["vda"]
        raw = tmp_path / "restored.raw"
        run(["qemu-img", "convert", "-O", "raw", str(image), str(raw)])
        run(["e2fsck", "-fn", str(raw)])
        restored.start().wait_ready()
        assert restored.sha256("/data/kept") == kept
        assert restored.sha256("/data/new2") == last
        numbers = [int(line) for line in restored.read_file("/data/journal").split()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= acked


@pytest.mark.lab
def test_without_a_freeze_nothing_unsafe_is_left_out(lab_program: Program, tmp_path: Path) -> None:
    with LabGuest.create("unfrozen", disks=[DiskSpec(size=64 * MIB)]) as guest:
        guest.start().wait_ready()
        guest.fill("/data/deleted", 16 * MIB)
        guest.exec("rm /data/deleted && sync")
        guest.start_workload()

        done = lab_program.expect("backup", guest.name, "--consistency", "crash", "-o", "json").document()

    point = done["results"][0]["point"]
    assert [one["kept_because"] for one in point["file_systems"]] == [
        "the machine runs, and its file systems are not frozen"
    ]
    assert point["bytes_unused"] == 0
    assert point["bytes_read"] >= 16 * MIB
