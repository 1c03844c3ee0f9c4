"""A bare device is replicated between two hosts by commands alone: kept, extracted, given up."""

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hotspare.units import KIB, MIB
from lab.programs import run
from lab.two_hosts import Hosts
from tests.replication.agents import HostAgent

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

SIZE = 8 * MIB


@pytest.fixture
def device(lab_host: None, tmp_path: Path) -> Iterator[Path]:
    """A block device with a file system."""
    image = tmp_path / "lun0.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    made = Path(run("losetup", "--find", "--show", image).strip())
    run("mke2fs", "-q", "-F", "-t", "ext4", made)
    yield made
    run("losetup", "--detach", made)


def _refused(agent: HostAgent, *words: str) -> dict[str, Any]:
    """Run a command that is to fail, and give the error that it tells programs."""
    command = [*agent.program, *words, "--state", str(agent.state), "-o", "json"]
    ended = subprocess.run(agent.host.command(*command), capture_output=True, text=True, check=False)
    assert ended.returncode
    error: dict[str, Any] = json.loads(ended.stderr.splitlines()[-1])
    return error


def test_a_device_is_kept_on_another_host_and_extracted_there(device: Path, tmp_path: Path) -> None:
    with Hosts("plain", names=("source", "standby"), without_libvirt=("source", "standby")) as hosts:
        source, standby = HostAgent(hosts.source).start(), HostAgent(hosts.standby).start()
        token = standby.ask("replica", "pair", "--address", hosts.standby.address)["token"]
        source.ask("replica", "pair", token, "--address", hosts.source.address)

        before = device.read_bytes()
        source.ask("replica", "file", str(device), "--to", "standby", "--name", "lun0", "--every", "5s")
        source.wait_phase("lun0", "protected", 60)
        assert _refused(source, "replica", "file", str(device), "--to", "standby", "--name", "lun0")

        sent = source.status("lun0")["bytes_sent"]
        with device.open("r+b") as file:
            file.seek(5 * MIB)
            file.write(random.Random(1).randbytes(256 * KIB))
        after = device.read_bytes()
        source.wait(lambda: source.status("lun0")["bytes_sent"] > sent, "the change is sent", 60)
        # What differs, in pieces of 64 KiB.
        assert source.status("lun0")["bytes_sent"] - sent <= 5 * 64 * KIB

        points = standby.ask("replica", "points", "lun0")["points"]
        assert len(points) >= 2
        oldest, newest = tmp_path / "oldest.img", tmp_path / "newest.img"
        words = ("replica", "extract", "lun0", "--to")
        standby.ask(*words, str(oldest), "--point", points[0]["id"])
        standby.ask(*words, str(newest))
        assert oldest.read_bytes() == before
        assert newest.read_bytes() == after
        run("e2fsck", "-fn", oldest)
        # Over what is there: only what differs is written.
        standby.ask(*words, str(oldest), "--overwrite")
        assert oldest.read_bytes() == after

        # There is nothing that could be started.
        for command in ("failover", "rehearse"):
            error = _refused(standby, "replica", command, "lun0")
            assert "is a file or device" in error["what"]
            assert "replica extract" in error["hint"]
        source.ask("replica", "remove", "lun0", "--yes")
        assert standby.ask("replica", "list")["replicas"] == []
