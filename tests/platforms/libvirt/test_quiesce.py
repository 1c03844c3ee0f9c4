"""Setting a guest free where libvirt fails in ways that cannot be commanded: on scripted domains."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import libvirt
import pytest

from hotspare.platforms.hooks.hook import parse_hook
from hotspare.platforms.libvirt import guest_agent, quiesce
from hotspare.platforms.libvirt.connection import is_known_off
from hotspare.platforms.libvirt.guest_hooks import GuestHooks
from hotspare.platforms.libvirt.quiesce import QuietRequest, quiesced
from hotspare.platforms.libvirt.watchdog import Watchdog
from hotspare.platforms.platform import Consistency

CONNECTED = (
    "<domain><devices><channel><target name='org.qemu.guest_agent.0' state='connected'/></channel></devices>"
    "</domain>"
)


def lost() -> int:
    raise libvirt.libvirtError("internal error: client socket is closed")


def gone() -> int:
    """What libvirt says of a transient domain that has stopped."""
    error = libvirt.libvirtError("Domain not found")
    error.err = (libvirt.VIR_ERR_NO_DOMAIN,)
    raise error


def scripted_domain(power: Callable[[], int]) -> Mock:
    """A domain whose agent does not answer; what libvirt says of its power is given."""
    return Mock(isActive=power, fsThaw=lost, XMLDesc=lambda flags: CONNECTED)


@pytest.mark.parametrize(("power", "thawed"), [(lambda: 0, 0), (gone, 0), (lambda: 1, None), (lost, None)])
def test_only_what_is_known_to_be_off_needs_no_thawing(
    power: Callable[[], int], thawed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    domain = scripted_domain(power)

    assert quiesce._thaw(domain) == thawed
    assert is_known_off(domain) == (thawed == 0)
    assert quiesce.set_free(domain, "run") == (thawed == 0)


@pytest.mark.parametrize("power", [lambda: 1, lost])
def test_hooks_are_not_taken_for_ended_when_libvirt_is_lost(
    power: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_agent, "_ask", lambda domain, request: lost())
    hooks = GuestHooks(scripted_domain(power), "run", [parse_hook("guest:erp")], 60, lambda: None)
    hooks._began = True

    assert hooks.thaw() is False
    assert "not known whether it was thawed" in hooks.failures["guest:erp"]


def test_no_guest_is_frozen_that_nobody_would_thaw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: None if program == "virsh" else program)
    domain, run = scripted_domain(lambda: 1), Mock()
    wanted = QuietRequest(Consistency.FILESYSTEM, (), False, "run", lambda: None)

    with quiesced(domain, "qemu:///system", run, wanted) as outcome:
        assert outcome.level is Consistency.CRASH
    assert "virsh is missing" in outcome.warnings[0]
    domain.fsFreeze.assert_not_called()


@pytest.fixture
def virsh_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that takes virsh's place and notes down what it is asked."""
    log, program = tmp_path / "log", tmp_path / "bin" / "virsh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nshift 3\necho "$@" >> {log}\n')
    program.chmod(0o755)
    log.touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


def started(seconds: float, release: str = "") -> Watchdog:
    watchdog = Watchdog.start("qemu:///system", "uuid", release, seconds)
    assert watchdog is not None
    return watchdog


def test_a_watchdog_that_is_dismissed_does_nothing(virsh_log: Path) -> None:
    before_the_freeze, after = started(60), started(60)
    assert after.freezing()
    for watchdog in (before_the_freeze, after):
        watchdog.dismiss()
        assert watchdog.process.returncode == 0
    assert virsh_log.read_text() == ""


@pytest.mark.parametrize("frozen", [False, True])
def test_a_watchdog_that_is_left_alone_thaws_and_ends_hooks(virsh_log: Path, frozen: bool) -> None:
    watchdog = started(60, release="release")
    if frozen:
        assert watchdog.freezing()
    watchdog.hand_over()
    watchdog.process.wait(30)
    assert virsh_log.read_text() == "domfsthaw uuid\nqemu-agent-command uuid release\n"


def test_a_watchdog_has_patience_for_hooks_but_not_for_a_freeze(virsh_log: Path) -> None:
    watchdog = started(0.3)
    time.sleep(1)
    assert virsh_log.read_text() == ""

    assert watchdog.freezing()
    watchdog.process.wait(30)
    assert virsh_log.read_text() == "domfsthaw uuid\n"
    watchdog.dismiss()


def test_a_watchdog_that_has_ended_is_noticed() -> None:
    watchdog = started(60)
    watchdog.process.kill()
    watchdog.process.wait()
    assert not watchdog.freezing()
    watchdog.dismiss()
