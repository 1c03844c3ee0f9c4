"""A real guest restored: as a new machine in a pool, over itself with its two ends, and a disk of it."""

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import DiskSpec, LabGuest, connection, domain_name
from tests.cli.program import Program
from tests.cli.test_json_output import differences, examples, shape

pytestmark = pytest.mark.lab

WHOLE = ("--no-skip-unused",)
"""Disks are compared byte by byte; what is left out stays as it is where a restore is made over it."""
MIB = 1024 * 1024


@dataclass
class Protected:
    """A guest with one restore point; what it held then."""

    program: Program
    guest: LabGuest
    point: str
    digest: str
    acked: int
    """The last record that was safe before the backup began."""

    def restore(self, *words: str) -> dict[str, Any]:
        return self.program.expect(
            "restore", self.point, "--in-place", "--yes", *words, "-o", "json"
        ).document()

    def expect_as_backed_up(self) -> None:
        """In the running guest, all records up to the backup are there and in order."""
        assert self.guest.sha256("/data/file") == self.digest
        records = self.guest.read_file("/data/journal").split()
        assert [int(one) for one in records] == list(range(1, len(records) + 1))
        assert len(records) >= self.acked

    def content(self) -> dict[str, str]:
        """The digest of each disk as the guest sees it."""
        return {name: digest(path, form_of(path)) for name, path in self.guest.disks.items()}

    def content_of_point(self) -> dict[str, str]:
        folder = self.program.folder / "of-point"
        folder.mkdir(exist_ok=True)
        words = [word for name in self.guest.disks for word in ("--disk", f"{name}={folder / name}")]
        self.program.expect("restore", self.point, *words, "--force")
        return {name: digest(folder / name, "raw") for name in self.guest.disks}

    def file_on_disk(self, path: str) -> bytes:
        """Read a file of the first disk, without starting the guest."""
        raw = self.program.folder / "first.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", self.guest.disks["vda"], raw], check=True)
        return subprocess.run(["debugfs", "-R", f"cat {path}", raw], check=True, capture_output=True).stdout

    def expect_clean(self) -> None:
        for path in self.guest.disks.values():
            check_file_system(path, form_of(path))

    def leftovers(self) -> list[str]:
        folder = next(iter(self.guest.disks.values())).parent
        return sorted(path.name for path in folder.iterdir() if "hotspare-" in path.name)


def form_of(path: Path) -> str:
    return "raw" if path.suffix == ".raw" else "qcow2"


def digest(image: Path, image_format: str) -> str:
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as raw:
        subprocess.run(["qemu-img", "convert", "-f", image_format, "-O", "raw", image, raw.name], check=True)
        return hashlib.sha256(Path(raw.name).read_bytes()).hexdigest()


def check_file_system(image: Path, image_format: str) -> None:
    """Have e2fsck look at the ext4 on an image; a journal that is to be replayed is replayed first."""
    with tempfile.NamedTemporaryFile(dir=image.parent) as raw:
        subprocess.run(["qemu-img", "convert", "-f", image_format, "-O", "raw", image, raw.name], check=True)
        subprocess.run(["e2fsck", "-p", raw.name], check=False, capture_output=True)
        subprocess.run(["e2fsck", "-f", "-n", raw.name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def protected(lab_host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    program = Program(tmp_path_factory.mktemp("in-place"))
    with (
        tempfile.TemporaryDirectory(prefix="hotspare-test-", dir="/var/tmp") as scratch,
        LabGuest.create(
            "in-place", disks=[DiskSpec(size=64 * MIB), DiskSpec(size=16 * MIB, format="raw")]
        ) as guest,
    ):
        Path(scratch).chmod(0o711)
        program.environment |= {"HOTSPARE_PLATFORM": "qemu:///system", "HOTSPARE_SCRATCH_FOLDER": scratch}
        program.expect("repo", "create")
        guest.start().wait_ready()
        digest = guest.write_random("/data/file", 8 * MIB)
        guest.start_workload("/data/journal")
        guest.exec("while [ $(tail -n 1 /data/journal || echo 0) -lt 20 ]; do usleep 20000; done")
        acked = guest.acked()
        (result,) = program.expect("backup", guest.name, *WHOLE, "-o", "json").document()["results"]
        guest.exec("pkill workload; echo after the backup > /data/later; sync /data/later")
        yield Protected(program, guest, result["point"]["id"], digest, acked)


@pytest.fixture
def off(protected: Protected) -> Iterator[Protected]:
    """The guest powered off, its disks other than in the restore point; no restore is pending afterwards."""
    if protected.guest.running:
        protected.guest.shutdown()
    change = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 60M 64k"]  # where its file system has nothing
    subprocess.run([*change, protected.guest.disks["vda"]], check=True, capture_output=True)
    yield protected
    protected.guest.destroy()
    protected.program.run("restore", "undo", protected.guest.name, "--yes", "--force")
    assert protected.leftovers() == []


def test_restored_and_undone(off: Protected) -> None:
    before = off.content()
    document = off.restore()

    assert document["in_place"]
    assert 0 < document["bytes_written"] < 16 * MIB
    assert differences(shape(examples()["restore"]), shape(document), "restore") == []
    assert off.content() == off.content_of_point()
    assert off.content() != before
    back = off.program.expect("restore", "undo", off.guest.name, "--yes", "-o", "json").document()
    assert differences(shape(examples()["restore-undone"]), shape(back), "undone") == []
    assert off.content() == before


def test_a_start_ends_the_undo_unless_forced(off: Protected) -> None:
    before = off.content()
    off.restore("--start")
    off.guest.wait_ready()
    off.expect_as_backed_up()
    refused = off.program.run("restore", off.point, "--in-place", "--yes", "--power-off")
    assert (refused.status, "neither confirmed nor undone" in refused.err) == (2, True)
    (result,) = off.program.expect("backup", off.guest.name, *WHOLE, "-o", "json").document()["results"]
    assert {disk["mode"] for disk in result["point"]["disks"]} == {"full"}
    assert any("restore confirm" in warning for warning in result["point"]["warnings"])
    running = off.program.run("restore", "undo", off.guest.name, "--yes", "--force")
    assert (running.status, "is running" in running.err) == (2, True)
    off.guest.shutdown()

    off.expect_clean()
    refused = off.program.run("restore", "undo", off.guest.name, "--yes")
    assert (refused.status, "started since" in refused.err) == (2, True)
    off.program.expect("restore", "undo", off.guest.name, "--yes", "--force")
    assert off.content() == before


def test_made_final_while_off(off: Protected) -> None:
    former = off.guest.disks
    off.restore()
    made = off.program.expect("restore", "confirm", off.guest.name, "-o", "json").document()

    assert differences(shape(examples()["restore-confirmed"]), shape(made), "confirmed") == []
    assert off.guest.disks == former
    assert off.leftovers() == []
    assert off.content() == off.content_of_point()
    for end in ("undo", "confirm"):
        nothing = off.program.run("restore", end, off.guest.name, *(["--yes"] if end == "undo" else []))
        assert (nothing.status, f"nothing to {end}" in nothing.err) == (2, True)


def test_made_final_while_it_runs(off: Protected) -> None:
    former = off.guest.disks
    off.restore("--start")
    off.guest.wait_ready()
    off.guest.exec("echo new > /data/later; sync /data/later")
    off.program.expect("restore", "confirm", off.guest.name)

    assert off.guest.disks == former
    assert off.leftovers() == []
    off.guest.exec("echo newer >> /data/later; sync /data/later")
    off.expect_as_backed_up()
    (result,) = off.program.expect("backup", off.guest.name, *WHOLE, "-o", "json").document()["results"]
    assert {disk["mode"] for disk in result["point"]["disks"]} == {"full"}
    off.guest.shutdown()
    off.expect_clean()
    assert off.file_on_disk("/later") == b"new\nnewer\n"


def test_what_is_unsafe_is_refused(off: Protected) -> None:
    restore = ("restore", off.point, "--in-place")
    asked = off.program.run(*restore)
    assert (asked.status, "no terminal" in asked.err) == (2, True)
    status, screen = off.program.on_terminal(*restore, answers=[("[y/N]", "n")])
    assert (status, "Nothing was restored" in screen) == (1, True)
    off.guest.start()
    running = off.program.run(*restore, "--yes")
    assert (running.status, "--power-off" in running.err) == (2, True)
    off.guest.wait_ready()
    powered_off = off.program.run(*restore, "--yes", "--power-off", "--dry-run")
    assert (powered_off.status, off.guest.running) == (0, True)
    off.restore("--power-off")
    assert not off.guest.running
    assert off.content() == off.content_of_point()


@pytest.mark.soak  # pools: tests/platforms/libvirt/test_placement.py
def test_as_a_new_machine_in_a_pool(protected: Protected) -> None:
    name = domain_name("in-pool")
    with tempfile.TemporaryDirectory(prefix="hotspare-test-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        xml = f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
        pool = connection().storagePoolCreateXML(xml)
        twin = Protected(
            protected.program, LabGuest(name), protected.point, protected.digest, protected.acked
        )
        try:
            protected.program.expect("restore", protected.point, "--to", name, "--pool", name, "--start")
            twin.guest.wait_ready()
            twin.expect_as_backed_up()
            assert sorted(pool.listVolumes()) == [f"{name}-vda.qcow2", f"{name}-vdb.raw"]
            twin.guest.shutdown()
            twin.expect_clean()
        finally:
            twin.guest.remove()
            pool.destroy()


def test_one_disk_over_itself(off: Protected) -> None:
    path = off.guest.disks["vda"]
    words = ("restore", off.point, "--disk", f"vda={path}", "--differential", "-o", "json")
    (done,) = off.program.expect(*words).document()["disks"]

    assert 0 < done["bytes_written"] < 16 * MIB
    assert off.content()["vda"] == off.content_of_point()["vda"]
    off.guest.start()
    for name, used in off.guest.disks.items():
        refused = off.program.run("restore", off.point, "--disk", f"{name}={used}", "--differential")
        assert (refused.status, "in use" in refused.err) == (23, True)
    off.guest.wait_ready()
    off.expect_as_backed_up()


def test_its_definition(protected: Protected) -> None:
    shown = protected.program.expect("point", "definition", protected.point).out
    assert f"<name>{protected.guest.name}</name>" in shown
    protected.guest.domain.connect().domainXMLToNative("qemu-argv", shown)  # libvirt takes it for a domain
