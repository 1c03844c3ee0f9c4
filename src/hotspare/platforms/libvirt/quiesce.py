"""Keeping a guest quiet for an instant, and setting it free whatever happens.

A guest that stays frozen hangs, and so does an application whose hook is never ended. So both are undone even
where doing them failed (a freeze that timed out may still happen), by a process of its own if ours is killed,
and by the next run as a last resort. Hooks also end by themselves, inside the guest.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import libvirt

from hotspare.errors import ConsistencyNotReached
from hotspare.platforms.hooks.hook import Hook, OnFailure
from hotspare.platforms.libvirt.connection import is_known_off, message_of
from hotspare.platforms.libvirt.guest_agent import agent_is_connected
from hotspare.platforms.libvirt.guest_hooks import GuestHooks, release_leftover
from hotspare.platforms.libvirt.scratch import RunFolder
from hotspare.platforms.platform import Consistency

FREEZE_SECONDS = 10
"""How long the guest agent may take to freeze, and again to thaw."""
_BEGIN_SECONDS = 40
"""What starting the job may take, before hooks end by themselves: it takes milliseconds."""
_THAW_ATTEMPTS = 3
_NO_HOOKS = "this machine has no hook that quiesces an application"
_HANDED_OVER: list[subprocess.Popen[bytes] | None] = []
"""Watchdogs at work: Python would complain about processes that it forgets while they run."""

# $1 is the URI, $2 the domain's UUID, $3 the agent's request that ends the hooks, or empty. One line on
# standard input means that all is well; its end without one that we are gone.
_WATCHDOG = """
read -r answer && exit 0
attempt=0
thawed=
while [ $attempt -lt 120 ]; do
    [ "$thawed" ] || { timeout 30 virsh --quiet --connect "$1" domfsthaw "$2" && thawed=yes; }
    if [ "$thawed" ]; then
        [ "$3" ] || exit 0
        timeout 30 virsh --quiet --connect "$1" qemu-agent-command "$2" "$3" && exit 0
    fi
    attempt=$((attempt + 1))
    sleep 2
done
"""


@dataclass(frozen=True, slots=True)
class QuietRequest:
    """How quiet the guest is to be."""

    level: Consistency
    """``CRASH``, ``FILESYSTEM`` or ``APPLICATION``."""
    hooks: Sequence[Hook]
    """Begun for ``APPLICATION`` only."""
    required: bool
    """Rather fail than go on with less."""
    run_id: str
    check: Callable[[], None]
    """Raises when the user wants to stop."""


@dataclass(slots=True)
class QuietOutcome:
    """What came of it; complete after the block."""

    level: Consistency = Consistency.CRASH
    frozen_seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    used: list[tuple[str, str, str]] = field(default_factory=list)
    """Hook, mount point and path of what an application needs."""


@contextmanager
def quiesced(
    domain: libvirt.virDomain, uri: str, run: RunFolder, wanted: QuietRequest
) -> Iterator[QuietOutcome]:
    """Keep the guest as quiet as wanted, or as can be, while the block runs.

    Raises:
        ConsistencyNotReached: what is required cannot be had; the guest is free again.
    """
    outcome = QuietOutcome()
    if not agent_is_connected(domain):
        _go_on_without_agent(domain, wanted, outcome)
        yield outcome
        return
    with suppress(libvirt.libvirtError):
        domain.agentSetResponseTimeout(FREEZE_SECONDS, 0)
    hooks = GuestHooks(
        domain,
        wanted.run_id,
        wanted.hooks if wanted.level is Consistency.APPLICATION else (),
        seconds_between=2 * FREEZE_SECONDS + _BEGIN_SECONDS,
        check=wanted.check,
    )
    run.mark_frozen()
    watchdog = _start_watchdog(uri, domain.UUIDString(), hooks.release_request)
    started = 0.0
    try:
        hooks.freeze()
        _refuse_less(domain, wanted, hooks)
        started = time.monotonic()
        _freeze(domain, outcome)
        if wanted.required and outcome.level is Consistency.CRASH:
            raise not_reached(domain, wanted.level, outcome.level, outcome.warnings)
        yield outcome
    finally:
        thawed = _thaw(domain)
        if outcome.level is not Consistency.CRASH:
            outcome.frozen_seconds = time.monotonic() - started
        if thawed is not None and hooks.thaw():
            _dismiss(watchdog)
            run.mark_thawed()
        else:
            outcome.warnings.append("the guest agent does not thaw in time; it is being asked again")
            _hand_over(watchdog)
        with suppress(libvirt.libvirtError):
            domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)
    if thawed == 0 and outcome.level is not Consistency.CRASH:
        outcome.level = Consistency.CRASH
        outcome.warnings.append("the guest thawed its file systems too early: only crash-consistent")
    _judge(domain, wanted, hooks, outcome)


def _go_on_without_agent(domain: libvirt.virDomain, wanted: QuietRequest, outcome: QuietOutcome) -> None:
    why = "no guest agent answers, so the restore point is crash-consistent"
    must = [hook.name for hook in wanted.hooks if hook.on_failure is OnFailure.FAIL]
    if wanted.required or (wanted.level is Consistency.APPLICATION and must):
        raise not_reached(domain, wanted.level, outcome.level, ["no guest agent answers"])
    outcome.warnings.append(why)


def _refuse_less(domain: libvirt.virDomain, wanted: QuietRequest, hooks: GuestHooks) -> None:
    """Stop before anything is frozen when it is known that the level will not be reached."""
    if wanted.required and wanted.level is Consistency.APPLICATION and not hooks.quiet:
        reasons = [f"hook {name} failed: {why}" for name, why in hooks.failures.items()]
        reasons = reasons or [_NO_HOOKS]
        raise not_reached(domain, wanted.level, Consistency.FILESYSTEM, reasons)


def _judge(domain: libvirt.virDomain, wanted: QuietRequest, hooks: GuestHooks, outcome: QuietOutcome) -> None:
    """Find out the level that was reached, when all is over.

    Raises:
        ConsistencyNotReached: it is less than what is required.
    """
    hooks.judge()
    outcome.used = hooks.used
    if wanted.level is Consistency.APPLICATION and outcome.level is Consistency.FILESYSTEM:
        if hooks.quiet:
            outcome.level = Consistency.APPLICATION
        elif not hooks.failures:
            outcome.warnings.append(f"{_NO_HOOKS}, so only its file systems were frozen")
    outcome.warnings += [f"hook {name} failed: {why}" for name, why in hooks.failures.items()]
    if wanted.required and not outcome.level.meets(wanted.level):
        raise not_reached(domain, wanted.level, outcome.level, outcome.warnings)
    outcome.warnings += hooks.warnings


def not_reached(
    domain: libvirt.virDomain, wanted: Consistency, reached: Consistency, reasons: Sequence[str]
) -> ConsistencyNotReached:
    """Give the error for a level that is required and was not reached, saying why."""
    return ConsistencyNotReached(
        f"{domain.name()} can be backed up with the consistency {reached.value} only, "
        f"and {wanted.value} is required: {'; '.join(reasons)}",
        meaning="No restore point was made, and nothing in the guest stays frozen",
        hint="Mend the reason, or leave --require-consistency out. docs/consistency.md has the levels",
    )


def _freeze(domain: libvirt.virDomain, outcome: QuietOutcome) -> None:
    warning = None
    try:
        if domain.fsFreeze() > 0:
            outcome.level = Consistency.FILESYSTEM
        else:
            warning = "the guest agent found no file system to freeze"
    except libvirt.libvirtError as error:
        warning = f"the guest agent did not freeze the file systems ({message_of(error)})"
    if warning:
        outcome.warnings.append(f"{warning}, so the restore point is crash-consistent")


def _thaw(domain: libvirt.virDomain) -> int | None:
    """Thaw and give the number of file systems; None when it is not known to be done.

    A machine that is off needs no thawing. One whose libvirt does not answer may well be frozen.
    """
    for attempt in range(_THAW_ATTEMPTS):
        try:
            return int(domain.fsThaw())
        except libvirt.libvirtError:
            if is_known_off(domain):
                return 0
            time.sleep(0.2 * attempt)
    return None


def set_free(domain: libvirt.virDomain, run_id: str) -> bool:
    """Undo what a dead run may have left: thaw the guest, end its hooks. Tell whether that is so now."""
    if is_known_off(domain):
        return True
    if not agent_is_connected(domain):
        return False
    with suppress(libvirt.libvirtError):  # or an agent that hangs would hold us up for ever
        domain.agentSetResponseTimeout(FREEZE_SECONDS, 0)
    thawed = _thaw(domain)
    with suppress(libvirt.libvirtError):
        domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)
    if thawed is None:
        return False
    # An agent that may not execute has begun no hook.
    with suppress(libvirt.libvirtError, TimeoutError):
        release_leftover(domain, run_id)
    return True


def _start_watchdog(uri: str, uuid: str, release: str) -> subprocess.Popen[bytes] | None:
    shell, virsh = shutil.which("sh"), shutil.which("virsh")
    if shell is None or virsh is None:
        return None
    return subprocess.Popen(
        [shell, "-c", _WATCHDOG, "hotspare-thaw", uri, uuid, release],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C on the terminal is for us, not for it
    )


def _hand_over(watchdog: subprocess.Popen[bytes] | None) -> None:
    _HANDED_OVER.append(watchdog)
    if watchdog is not None and watchdog.stdin is not None:
        watchdog.stdin.close()


def _dismiss(watchdog: subprocess.Popen[bytes] | None) -> None:
    if watchdog is None:
        return
    with suppress(OSError):
        watchdog.communicate(b"thawed\n", timeout=5)
