"""QEMU, which is another user, gets at disks that lie below a folder for root alone."""

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from hotspare.errors import PermissionRefused
from hotspare.platforms.libvirt import entrance
from hotspare.platforms.libvirt.entrance import let_qemu_pass, let_qemu_reach
from hotspare.platforms.libvirt.scratch import Account

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="to be another user takes root")
QEMU, SOMEBODY = 64055, 65534


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[libvirt.virConnect]:
    monkeypatch.setattr(entrance, "qemu_account", lambda _connection: Account(QEMU, QEMU))
    opened = libvirt.open("test:///default")
    yield opened
    opened.close()


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder for root alone, where others may come to it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def reads(user: int, path: Path) -> bool:
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "cat", str(path)]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def test_qemu_is_let_through_and_nobody_else(connection: libvirt.virConnect, state: Path) -> None:
    disk = state / "replicas" / "one" / "disk"
    disk.parent.mkdir(parents=True)
    for folder in (state / "replicas", disk.parent):
        folder.chmod(0o700)
    disk.write_text("content")
    disk.chmod(0o644)
    assert not reads(QEMU, disk)
    for _ in range(2):
        let_qemu_reach(connection, disk.parent, state)
        assert (reads(QEMU, disk), reads(SOMEBODY, disk)) == (True, False)
    assert not reads(QEMU, state)  # nor may it list what is there
    # What systemd makes of a StateDirectoryMode=0710 leaves it as it is.
    state.chmod(0o710)
    assert reads(QEMU, disk)
    state.chmod(0o700)
    assert not reads(QEMU, disk)
    let_qemu_pass(connection, state)
    assert reads(QEMU, disk)


def test_what_is_open_to_all_stays_as_it_is(connection: libvirt.virConnect, state: Path) -> None:
    state.chmod(0o711)
    let_qemu_pass(connection, state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o711
    assert os.listxattr(state) == []


def test_another_list_is_kept(connection: libvirt.virConnect, state: Path) -> None:
    before = [(0x01, 7, entrance._NOBODY), (0x02, 5, SOMEBODY), (0x04, 0, entrance._NOBODY)]
    before += [(0x10, 5, entrance._NOBODY), (0x20, 0, entrance._NOBODY)]
    packed = b"".join(entrance._ENTRY.pack(tag, allowed, account) for tag, allowed, account in before)
    os.setxattr(state, entrance._ATTRIBUTE, entrance._VERSION + packed)
    (state / "disk").touch()
    let_qemu_pass(connection, state)
    assert (reads(QEMU, state / "disk"), reads(SOMEBODY, state / "disk")) == (True, True)


def test_where_that_cannot_be_it_is_said(connection: libvirt.virConnect) -> None:
    with pytest.raises(PermissionRefused, match=f"QEMU \\(user {QEMU}\\) cannot be let into /nowhere"):
        let_qemu_pass(connection, Path("/nowhere"))
