"""What a real guest uses is counted, and becomes a sample of the host's load."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.policy.load import sample_between
from lab import LabGuest
from tests.cli.lab_program import program_for_libvirt
from tests.cli.test_json_output import differences, examples, shape

pytestmark = pytest.mark.lab

MIB = 1024 * 1024


def test_a_guest_that_works_is_seen_in_the_load(platform: LibvirtPlatform, module_guest: LabGuest) -> None:
    uuid = module_guest.domain.UUIDString()
    before = platform.use(datetime.now(UTC))
    began = time.monotonic()
    module_guest.fill("/data/load", 16 * MIB)
    module_guest.exec("for i in 1 2 3 4 5 6 7 8; do echo $i > /data/io; sync /data/io; done; sync")
    after = platform.use(datetime.now(UTC))
    seconds = time.monotonic() - began
    old, new = before.machines[uuid], after.machines[uuid]
    assert before.cpus >= 1
    assert new.cpu_nanoseconds > old.cpu_nanoseconds
    assert new.disk_bytes - old.disk_bytes >= 16 * MIB
    assert new.disk_operations > old.disk_operations
    assert new.disk_nanoseconds > old.disk_nanoseconds
    sample = sample_between(before, after)
    assert sample is not None
    assert 0 < sample.cpu <= 1
    # Other guests of the host are in it as well.
    assert sample.disk >= 0.9 * 16 * MIB / seconds


def test_the_command_keeps_a_sample(module_guest: LabGuest, tmp_path: Path) -> None:
    with program_for_libvirt(tmp_path) as program:
        document = program.expect("load", "sample", "--seconds", "0.5", "-o", "json").document()
        assert differences(shape(examples()["load-sample"]), shape(document), "document") == []
        assert [one["platform"] for one in document["samples"]] == ["qemu:///system"]
        assert "too little is known yet: 1 samples" in program.expect("load", "windows").out
