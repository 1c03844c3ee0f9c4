"""A restore over a machine, killed at each of its steps: the machine is the old or the new one, whole."""

import os
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import libvirt
import pytest

from hotspare.block.nbd.client import NbdClient
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, MachineNotFound, PlatformUnavailable, UsageError
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.platform import Machine
from lab import connection
from tests.platforms.libvirt.bare_machine import MIB, BareMachine
from tests.platforms.libvirt.lost_connection import MortalPlatform, mortal_platform

pytestmark = pytest.mark.lab

OLD, NEW = b"\1", b"\2"
STEPS_MAX = 60

Action = Callable[[LibvirtPlatform], None]


@pytest.fixture(scope="module")
def machine(lab_host: None) -> Iterator[BareMachine]:
    """Two disks full of OLD, and a copy of each to begin again with."""
    with BareMachine("in-place", ("qcow2", "raw"), size=MIB) as made:
        for path in made.disks.values():
            form = path.suffix[1:]
            subprocess.run(
                ["qemu-io", "-f", form, "-c", f"write -P 1 0 {MIB}", path],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            shutil.copy(path, path.with_suffix(".pristine"))
        yield made


@pytest.fixture
def described(machine: BareMachine, platform: LibvirtPlatform) -> Machine:
    """The machine as of a restore point: not upon overlays that the test before has left."""
    begin_again(machine, platform)
    return platform.inspect(machine.name)


def whole_content(machine: BareMachine) -> bytes:
    """What its disks are full of, by its definition: all of the same, or the test fails."""
    root = ET.fromstring(machine.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    seen = set()
    for disk in root.iterfind("devices/disk[@device='disk']"):
        source, driver = disk.find("source"), disk.find("driver")
        assert source is not None
        assert driver is not None
        raw = str(machine.folder / "content")
        command = [
            "qemu-img",
            "convert",
            "-f",
            driver.attrib["type"],
            "-O",
            "raw",
            source.attrib["file"],
            raw,
        ]
        subprocess.run(command, check=True)
        seen |= set(Path(raw).read_bytes())
    assert len(seen) == 1
    return bytes(seen)


def leftovers(machine: BareMachine) -> list[str]:
    return sorted(path.name for path in machine.folder.iterdir() if "hotspare" in path.name)


def restore(described: Machine) -> Action:
    """As ``restore_machine`` does, which discards what it made whatever happens."""

    def act(platform: LibvirtPlatform) -> None:
        target = platform.replace_machine(described, power_off=False)
        try:
            for disk in described.disks:
                with closing(target.writer(disk.name)) as writer:
                    for offset in range(0, disk.size, MIB):
                        writer.write(offset, NEW * MIB)
                    writer.flush()
            target.finalize()
        finally:
            target.discard()

    return act


def undo(name: str) -> Action:
    return lambda platform: void(platform.undo_restore(name, force=False))


def confirm(name: str) -> Action:
    return lambda platform: void(platform.confirm_restore(name, Cancellation()))


def void(_result: object) -> None:
    pass


@contextmanager
def killed_before(step: int) -> Iterator[None]:
    """Kill this process before the ``step``-th call that changes something that lasts."""
    count = 0

    def counted(original: Callable[..., Any], *, program: bool = False) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            # Programs that only look change nothing.
            if program and {"qemu-nbd", "create", "commit"}.isdisjoint(arguments[1]):
                return original(*arguments, **named)
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **named)

        return call

    with (
        patch.object(subprocess, "Popen", _counted_class(subprocess.Popen, counted)),
        patch.object(Path, "unlink", counted(Path.unlink)),
        patch.object(Path, "replace", counted(Path.replace)),
        patch.object(os, "fsync", counted(os.fsync)),
        patch.object(NbdClient, "write", counted(NbdClient.write)),
        patch.object(libvirt.virConnect, "defineXML", counted(libvirt.virConnect.defineXML)),
    ):
        yield


def _counted_class(original: Any, counted: Callable[..., Any]) -> Any:
    class Counted(original):  # type: ignore[misc]  # the class is a parameter
        __init__ = counted(original.__init__, program=True)

    return Counted


def run_killed(action: Action, platform: LibvirtPlatform, step: int) -> bool:
    """Run an action in a process that is killed before that step; tell whether it came to that."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            own = LibvirtPlatform(platform.uri, scratch_folder=platform.scratch_folder)
            with closing(own), killed_before(step):
                action(own)
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        return True
    assert os.waitstatus_to_exitcode(ended) == 0
    return False


def steps(action: Action, platform: LibvirtPlatform) -> Iterator[int]:
    """Run an action, killed before each of its steps in turn, until it is not killed any more."""
    for step in range(1, STEPS_MAX):
        if not run_killed(action, platform, step):
            assert step > 4, "nothing was killed"
            return
        yield step
    pytest.fail("it never came to its end")


def begin_again(machine: BareMachine, platform: LibvirtPlatform) -> None:
    """Make it the old machine."""
    with suppress(UsageError):  # there is nothing to undo
        platform.undo_restore(machine.name, force=True)
    for path in machine.disks.values():
        shutil.copy(path.with_suffix(".pristine"), path)
    assert leftovers(machine) == []


def test_killed_while_it_restores(
    machine: BareMachine, platform: LibvirtPlatform, described: Machine
) -> None:
    begin_again(machine, platform)
    seen = set()
    for step in steps(restore(described), platform):
        content = whole_content(machine)
        seen.add(content)
        if step % 2 and content == OLD:
            restore(described)(platform)
            assert whole_content(machine) == NEW
        if leftovers(machine):
            platform.undo_restore(machine.name, force=False)
        assert whole_content(machine) == OLD
        assert leftovers(machine) == []
    assert OLD in seen
    assert whole_content(machine) == NEW


def test_killed_while_it_is_undone(
    machine: BareMachine, platform: LibvirtPlatform, described: Machine
) -> None:
    begin_again(machine, platform)
    restore(described)(platform)
    seen = set()
    for _ in steps(undo(machine.name), platform):
        seen.add(whole_content(machine))
        if leftovers(machine):
            platform.undo_restore(machine.name, force=False)
        assert whole_content(machine) == OLD
        assert leftovers(machine) == []
        restore(described)(platform)
    assert seen == {OLD, NEW}
    assert whole_content(machine) == OLD


def test_killed_while_it_is_made_final(
    machine: BareMachine, platform: LibvirtPlatform, described: Machine
) -> None:
    begin_again(machine, platform)
    restore(described)(platform)
    for _ in steps(confirm(machine.name), platform):
        assert whole_content(machine) == NEW
        if leftovers(machine):
            platform.confirm_restore(machine.name, Cancellation())
        assert whole_content(machine) == NEW
        assert leftovers(machine) == []
        assert platform.inspect(machine.name).disks == described.disks
        begin_again(machine, platform)
        restore(described)(platform)
    assert whole_content(machine) == NEW


@pytest.fixture
def upon_a_device(lab_host: None) -> Iterator[BareMachine]:
    """A machine whose second disk is a block device."""
    with BareMachine("upon-device", ("qcow2", "raw"), size=MIB) as made:
        backing = made.disks["vdb"]
        done = subprocess.run(
            ["losetup", "--find", "--show", backing], check=True, capture_output=True, text=True
        )
        device = done.stdout.strip()
        try:
            definition = made.domain.XMLDesc().replace(f"file='{backing}'", f"dev='{device}'")
            before, _, after = definition.rpartition("<disk type='file' device='disk'>")
            connection().defineXML(f"{before}<disk type='block' device='disk'>{after}")
            yield made
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)


def test_a_device_is_one_again_when_it_is_final(
    upon_a_device: BareMachine, platform: LibvirtPlatform
) -> None:
    before = platform.inspect(upon_a_device.name)
    assert before.disks[1].source.startswith("/dev/loop")
    restore(before)(platform)
    overlaid = platform.inspect(upon_a_device.name)
    assert Path(overlaid.disks[1].source).parent == upon_a_device.folder
    assert set(upon_a_device.disks["vdb"].read_bytes()) == {0}, "below the overlay nothing was written"

    after = platform.confirm_restore(upon_a_device.name, Cancellation())

    assert after.disks == before.disks
    assert "<disk type='block' device='disk'>" in after.native
    assert Path(after.disks[1].source).read_bytes() == NEW * MIB
    assert leftovers(upon_a_device) == []


def test_a_machine_that_is_gone_is_not_replaced(platform: LibvirtPlatform, described: Machine) -> None:
    gone = Machine(
        id="00000000-0000-4000-8000-000000000000",
        name=described.name,
        platform=described.platform,
        state=described.state,
        disks=described.disks,
        native=described.native,
    )
    with pytest.raises(MachineNotFound, match="--keep-uuid"):
        platform.replace_machine(gone, power_off=False)


def lose_the_answer(patch: pytest.MonkeyPatch, mortal: MortalPlatform, *, done: bool) -> None:
    """Lose libvirt in the midst of defining a machine, after or before it is done."""
    define = libvirt.virConnect.defineXML

    def define_and_lose(lost: libvirt.virConnect, definition: str) -> Any:
        if done:
            define(lost, definition)
        mortal.cut()
        return define(lost, definition)

    patch.setattr(libvirt.virConnect, "defineXML", define_and_lose)


def test_the_answer_that_it_is_defined_is_lost(
    machine: BareMachine,
    platform: LibvirtPlatform,
    described: Machine,
    scratch_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin_again(machine, platform)
    with mortal_platform(scratch_folder) as mortal, monkeypatch.context() as patch:
        lose_the_answer(patch, mortal, done=True)
        restore(described)(mortal)

    assert whole_content(machine) == NEW
    platform.undo_restore(machine.name, force=False)
    assert whole_content(machine) == OLD
    assert leftovers(machine) == []


@pytest.mark.parametrize(("done", "back"), [(True, False), (False, False), (False, True)])
def test_it_is_not_known_whether_it_is_defined(
    machine: BareMachine,
    platform: LibvirtPlatform,
    described: Machine,
    scratch_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    done: bool,
    back: bool,
) -> None:
    def stays_away(uri: str) -> libvirt.virConnect:
        raise PlatformUnavailable(f"libvirt does not answer at {uri}")

    begin_again(machine, platform)
    with mortal_platform(scratch_folder) as mortal, monkeypatch.context() as patch:
        lose_the_answer(patch, mortal, done=done)
        if not back:
            patch.setattr("hotspare.platforms.libvirt.in_place.open_connection", stays_away)
        with pytest.raises(PlatformUnavailable, match="was lost while it defined"):
            restore(described)(mortal)

    assert whole_content(machine) == (NEW if done else OLD)
    assert len(leftovers(machine)) == 3, "two overlays and the record"
    platform.undo_restore(machine.name, force=False)
    assert whole_content(machine) == OLD
    assert leftovers(machine) == []


def test_a_definition_that_is_refused_leaves_the_old_machine(
    machine: BareMachine, platform: LibvirtPlatform, described: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_again(machine, platform)

    def refuse(_connection: libvirt.virConnect, _definition: str) -> None:
        raise libvirt.libvirtError("unsupported configuration")

    with monkeypatch.context() as patch:
        patch.setattr(libvirt.virConnect, "defineXML", refuse)
        with pytest.raises(HotspareError, match="unsupported configuration"):
            restore(described)(platform)

    assert whole_content(machine) == OLD
    assert leftovers(machine) == []
