"""A replica that begins with what a repository has of the machine, by commands alone."""

from pathlib import Path

import pytest

from lab import DiskSpec, LabGuest
from lab.two_hosts import Hosts
from tests.replication.agents import HostAgent

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(300)]

MIB = 1024 * 1024
BALLAST = 12 * MIB
SEED = "/var/lib/hotspare/seed"


def test_a_backup_that_was_restored_on_the_standby_saves_the_first_copy(
    lab_host: None, tmp_path: Path
) -> None:
    with Hosts("seed", names=("source", "standby")) as hosts:
        source, standby = HostAgent(hosts.source).start(), HostAgent(hosts.standby).start()
        source.pair_with(standby)
        guest = LabGuest.create("seed", disks=[DiskSpec(size=32 * MIB)], host=hosts.source)
        guest.start().wait_ready()
        guest.exec(f"yes ballast | head -c {BALLAST} > /data/ballast; sync")

        variables = [
            "env", f"HOTSPARE_REPOSITORY={tmp_path / 'repository'}", "HOTSPARE_PASSPHRASE=not a secret",
            "HOTSPARE_STATE_FOLDER=/var/lib/hotspare/cli",
        ]  # fmt: skip
        hosts.source.run(*variables, *source.program, "repo", "create")
        hosts.source.run(*variables, *source.program, "backup", guest.name)
        hosts.standby.outside(SEED).mkdir(mode=0o711)
        restore = ["restore", guest.name, "--disk", f"vda={SEED}/vda.qcow2"]
        hosts.standby.run(*variables, *standby.program, *restore)

        digest = guest.write_random("/data/since", MIB)
        source.ask("replica", "create", guest.name, "--to", "standby", "--seed", SEED)
        status = source.wait_phase(guest.name, "protected", 120)
        print(f"{status['bytes_compared']} compared, {status['bytes_sent']} sent")
        assert status["bytes_compared"] >= 32 * MIB
        assert MIB <= status["bytes_sent"] < BALLAST

        standby.wait(lambda: standby.status(guest.name)["points"] > 0, "a point", 60)
        hosts.kill(hosts.source)
        standby.ask("replica", "failover", guest.name, "--force", "--yes")
        copy = LabGuest(guest.name, host=hosts.standby)
        copy.wait_ready()
        assert copy.sha256("/data/since") == digest
