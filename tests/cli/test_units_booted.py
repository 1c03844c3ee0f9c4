"""The units of systemd that we ship, on a host that systemd has booted: hardening, journal and all."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from lab.booted import Booted, booted_host

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="a host that boots takes root"),
]
PASSPHRASE = "correct horse battery staple"
CONFIGURATION = """\
repository = "/srv/backup"
platform = "qemu:///system"
"""
POLICY = """\
schedule:
  when: ["*-01-01 03:00"]
  rpo: 26h
"""
DISK = "/var/lib/libvirt/images/web.raw"
DOMAIN = f"""\
<domain type="qemu">
  <name>web</name>
  <memory unit="MiB">32</memory>
  <os><type arch="x86_64">hvm</type></os>
  <devices>
    <disk type="file">
      <driver name="qemu" type="qcow2"/><source file="{DISK}.qcow2"/><target dev="vda" bus="virtio"/>
    </disk>
  </devices>
</domain>
"""
MAKE_DISK = f"""
mkdir -p /srv/backup /var/lib/libvirt/images /opt/content
echo 'what matters' >/opt/content/file
mkfs.ext4 -q -d /opt/content {DISK} 32M
qemu-img convert -O qcow2 {DISK} {DISK}.qcow2
"""
KEPT = DOMAIN.replace("web", "kept")
"""Replicated, so that it is not backed up here any more."""
STANDBY = "--state /srv/standby/replication"
"""Of the agent beside that of the unit, on the same host."""
FENCE = """
export LD_LIBRARY_PATH=/opt/hotspare/python/lib PYTHONPATH=/opt/hotspare/source
exec /opt/hotspare/python/bin/python3 -m hotspare.replication.lease.fence /run/lab.fence of-nobody inf
"""
HEALTH = """
import ssl, urllib.request
trust = ssl.create_default_context(cafile="/var/lib/hotspare/server/certificate.pem")
print(urllib.request.urlopen("https://127.0.0.1:8460/api/v1/health", context=trust).status)
"""
BY_HAND = "HOTSPARE_PASSPHRASE_FILE=/etc/hotspare/passphrase hotspare"

CGROUPS = "/sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified"
"""Where the tree may be that systemd keeps its services in."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Give a host with a machine that runs, a repository, and the server started by its unit."""
    with booted_host(tmp_path_factory.mktemp("host")) as booted:
        booted.write("/etc/hotspare/hotspare.toml", CONFIGURATION)
        booted.write("/etc/hotspare/policies/nightly.yaml", POLICY)
        booted.write("/etc/hotspare/passphrase", PASSPHRASE, 0o600)
        booted.run(MAKE_DISK)
        booted.run("systemctl start libvirtd")
        start_machine(booted, "web", DOMAIN)
        booted.run(f"{BY_HAND} repo create")
        booted.run("systemctl start hotspare")
        yield booted


def start_machine(host: Booted, name: str, definition: str) -> None:
    host.write(f"/opt/{name}.xml", definition)
    host.run(f"virsh -q define /opt/{name}.xml && virsh -q start {name}")


def shown(host: Booted, unit: str, *properties: str) -> list[str]:
    return [host.run(f"systemctl show --property={name} --value {unit}").strip() for name in properties]


def jobs(host: Booted) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(host.run(f"{BY_HAND} job list -o json"))["jobs"]
    return found


def in_place_of_the_server(host: Booted, command: str, credential: str = "", unit: str = "hotspare") -> str:
    """Run a command under a copy of a unit, hardening and all, and give what it printed.

    Args:
        host: where.
        command: whole paths.
        credential: a line in place of the unit's ``LoadCredential=``.
        unit: the server's if not said.
    """
    text = host.run(f"cat /etc/systemd/system/{unit}.service")
    if credential:
        text = re.sub(r"(?m)^LoadCredential=.*", credential, text)
    text = re.sub(r"(?m)^ExecStart=.*", f"ExecStart={command}\nStandardOutput=truncate:/opt/said", text)
    text = re.sub(r"(?m)^(Restart|RestartSec)=.*\n", "", text).replace("Type=notify", "Type=oneshot")
    host.write("/etc/systemd/system/once.service", text)
    host.run("systemctl daemon-reload")
    done = host.run("systemctl start once || journalctl --unit=once --output=cat --no-pager")
    assert done == "", done
    return host.run("cat /opt/said")


def test_the_server_is_up_when_systemd_says_so(host: Booted) -> None:
    assert shown(host, "hotspare", "ActiveState", "SubState", "NRestarts") == ["active", "running", "0"]
    asked = f"/opt/hotspare/python/bin/python3 -c {shlex.quote(HEALTH)}"
    assert host.run(asked) == "200\n"


def test_it_backs_a_running_machine_up_and_the_journal_tells_by_fields(host: Booted) -> None:
    host.run(f"{BY_HAND} job add nightly web")
    host.wait(f'{BY_HAND} job list -o json | grep -E \'"state": "(ok|failed)"\'')
    (job,) = jobs(host)
    assert job["state"] == "ok", host.run("journalctl --unit=hotspare --output=cat --no-pager")
    fields = "--unit=hotspare MACHINE=web POLICY=nightly --output=cat --no-pager"
    assert host.run(f"journalctl {fields}").splitlines()[-1] == "backup of web: ok"


def test_its_hardening_leaves_it_what_it_needs(host: Booted) -> None:
    in_place_of_the_server(host, "/usr/bin/hotspare backup web --no-progress")
    again = in_place_of_the_server(host, "/usr/bin/hotspare restore web --to again -o json")
    disk = json.loads(again)["machine"]["disks"][0]["source"]
    assert "identical" in host.run(f"qemu-img compare {DISK} {disk}")
    assert "file" in in_place_of_the_server(host, "/usr/bin/hotspare files ls web /")
    in_place_of_the_server(host, "/usr/bin/hotspare policy add weekly --when 'Sun 03:00'")
    assert host.run("ls /etc/hotspare/policies") == "nightly.yaml\nweekly.yaml\n"


def test_the_passphrase_may_be_encrypted(host: Booted) -> None:
    encrypt = "systemd-creds encrypt --with-key=host --name=passphrase"
    host.run(f"cd /etc/hotspare && {encrypt} passphrase passphrase.cred")
    line = "LoadCredentialEncrypted=passphrase:/etc/hotspare/passphrase.cred"
    assert "srv/backup" in in_place_of_the_server(host, "/usr/bin/hotspare repo info", line)


def test_it_is_started_again_when_it_dies_and_after_a_restart(host: Booted) -> None:
    # In place of who watches over a guest that is frozen.
    (group,) = shown(host, "hotspare", "ControlGroup")
    watcher = host.run(
        f"sleep 600 >/dev/null 2>&1 & for root in {CGROUPS}; do"
        f" [ ! -e $root{group} ] || echo $! >$root{group}/cgroup.procs; done; echo $!"
    ).strip()
    assert watcher in host.run("systemctl status hotspare --no-pager")
    host.run("systemctl kill --kill-whom=main --signal=KILL hotspare")
    host.wait("systemctl is-active hotspare && test $(systemctl show -P NRestarts hotspare) = 1")
    host.run("systemctl restart hotspare")
    host.run(f"kill {watcher}")  # which fails when it is gone
    assert shown(host, "hotspare", "ActiveState", "Result") == ["active", "success"]
    # The one before has stopped by itself, within its time.
    told = host.run("journalctl --unit=hotspare --output=cat --no-pager")
    stopped = told.rpartition("Stopping hotspare.service")[2]
    assert "hotspare.service: Deactivated successfully." in stopped, told


def test_a_mover_is_up_when_systemd_says_so(host: Booted) -> None:
    host.run("systemctl start hotspare-mover")
    assert shown(host, "hotspare-mover", "ActiveState", "NRestarts") == ["active", "0"]
    host.run("systemctl stop hotspare-mover")
    assert shown(host, "hotspare-mover", "Result") == ["success"]


def test_the_watchdog_looks_by_its_timer(host: Booted) -> None:
    host.run("systemctl start hotspare-watchdog.timer")
    (due,) = shown(host, "hotspare-watchdog.timer", "NextElapseUSecRealtime")
    assert due
    host.run("systemctl start hotspare-watchdog.service", check=False)
    told = host.run("journalctl --unit=hotspare-watchdog --output=cat --no-pager")
    assert shown(host, "hotspare-watchdog.service", "ExecMainStatus")[0] in {"0", "38"}, told


def asked(host: Booted, words: str, state: str = "") -> dict[str, Any]:
    """Ask one of the two agents, the unit's if not said, and give its document."""
    document: dict[str, Any] = json.loads(host.run(f"hotspare replica {words} {state} -o json"))
    return document


@pytest.fixture(scope="module")
def agents(host: Booted) -> Booted:
    """Two agents under the unit, and a machine that is kept from the first to the second."""
    text = host.run("cat /etc/systemd/system/hotspare-replica.service")
    options = f"replica agent --name standby --port 11000 {STANDBY}"
    host.write("/etc/systemd/system/standby.service", text.replace("replica agent", options))
    host.run("systemctl daemon-reload && systemctl start hotspare-replica standby")
    token = asked(host, "pair --address 127.0.0.1", STANDBY)["token"]
    asked(host, f"pair {token} --address 127.0.0.1")
    host.run(f"cp {DISK}.qcow2 {DISK.replace('web', 'kept')}.qcow2")
    start_machine(host, "kept", KEPT)
    asked(host, "create kept --to standby --every 1s")
    wait_protected(host)
    return host


def wait_protected(host: Booted) -> None:
    host.wait('hotspare replica status kept -o json | grep \'"phase": "protected"\'')


def test_replication_has_what_it_needs_within_its_hardening(agents: Booted) -> None:
    assert shown(agents, "hotspare-replica", "ActiveState", "NRestarts") == ["active", "0"]
    agents.run("test -e /run/hotspare/replicated/*")
    agents.write("/opt/fence", FENCE)
    in_place_of_the_server(agents, "/bin/sh /opt/fence", unit="hotspare-replica")
    # It has outlived who started it, and nothing keeps it waiting.
    assert "SCHED_RR" in agents.run("chrt --pid $(pgrep --full [l]ease.fence)")
    # The old disks of a machine that comes home are linked into a replica.
    in_place_of_the_server(agents, "/bin/ln /opt/content/file /var/cache/linked", unit="hotspare-replica")
    assert "kept: protected" in agents.run("journalctl --unit=hotspare-replica --output=cat --no-pager")


def test_an_agent_that_is_killed_leaves_what_it_started_at_work(agents: Booted) -> None:
    daemon = "pgrep --full ^qemu-storage-daemon"
    before = agents.run(daemon)
    agents.run("systemctl kill --kill-whom=main --signal=KILL standby && systemctl restart hotspare-replica")
    agents.wait(f"hotspare replica list {STANDBY}")
    wait_protected(agents)
    assert agents.run(daemon) == before
    assert shown(agents, "standby", "ActiveState", "NRestarts") == ["active", "1"]
