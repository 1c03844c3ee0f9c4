"""Setting a guest free where libvirt fails in ways that cannot be commanded: on scripted domains."""

from collections.abc import Callable
from unittest.mock import Mock

import libvirt
import pytest

from hotspare.platforms.hooks.hook import parse_hook
from hotspare.platforms.libvirt import guest_agent, quiesce
from hotspare.platforms.libvirt.connection import is_known_off
from hotspare.platforms.libvirt.guest_hooks import GuestHooks

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
