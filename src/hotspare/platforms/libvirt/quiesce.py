"""Keeping a guest quiet for an instant, and setting it free whatever happens.

A guest that stays frozen hangs, and so does an application whose hook is never ended. So both are undone even
where doing them failed (a freeze that timed out may still happen), by a process of its own if ours is killed,
takes too long or cannot reach libvirt any more, and by the next run as a last resort. Hooks also end by
themselves, inside the guest.
"""

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
from hotspare.platforms.libvirt.watchdog import Watchdog
from hotspare.platforms.platform import Consistency

FREEZE_SECONDS = 10
"""How long the guest agent may take to freeze, and again to thaw."""
FROZEN_SECONDS = 10
"""How long the guest's file systems may be frozen, from when that is asked for: beginning takes milliseconds,
but may have to wait for libvirt or for storage. Then the guest is set free, whatever we are at."""
_BEGIN_SECONDS = 40
"""What starting the job may take, before hooks end by themselves: it takes milliseconds."""
_THAW_ATTEMPTS = 3
_NO_HOOKS = "this machine has no hook that quiesces an application"


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
        _go_on_unquiet(domain, wanted, outcome, "no guest agent answers")
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
    watchdog = Watchdog.start(uri, domain.UUIDString(), hooks.release_request, FROZEN_SECONDS)
    if watchdog is None:
        _go_on_unquiet(domain, wanted, outcome, "virsh is missing, to thaw the guest if the backup cannot")
        yield outcome
        return
    started = lasted = 0.0
    try:
        run.mark_frozen()
        hooks.freeze()
        _refuse_less(domain, wanted, hooks)
        started = time.monotonic()
        _freeze(domain, watchdog, outcome)
        if wanted.required and outcome.level is Consistency.CRASH:
            raise not_reached(domain, wanted.level, outcome.level, outcome.warnings)
        yield outcome
    finally:
        lasted = time.monotonic() - started
        thawed = _thaw(domain)
        if outcome.level is not Consistency.CRASH:
            outcome.frozen_seconds = time.monotonic() - started
        if thawed is not None and hooks.thaw():
            watchdog.dismiss()
            run.mark_thawed()
        else:
            outcome.warnings.append("the guest agent does not thaw in time; it is being asked again")
            watchdog.hand_over()
        with suppress(libvirt.libvirtError):
            domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)
    _lower_if_early(outcome, lasted, thawed)
    _judge(domain, wanted, hooks, outcome)


def _go_on_unquiet(domain: libvirt.virDomain, wanted: QuietRequest, outcome: QuietOutcome, why: str) -> None:
    must = [hook.name for hook in wanted.hooks if hook.on_failure is OnFailure.FAIL]
    if wanted.required or (wanted.level is Consistency.APPLICATION and must):
        raise not_reached(domain, wanted.level, outcome.level, [why])
    outcome.warnings.append(f"{why}, so the restore point is crash-consistent")


def _lower_if_early(outcome: QuietOutcome, lasted: float, thawed: int | None) -> None:
    """Call the view crash-consistent when it is not known that the guest was frozen until it was there.

    Args:
        outcome: to be changed.
        lasted: seconds from asking for the freeze until the view was there.
        thawed: file systems that we thawed then.
    """
    if outcome.level is Consistency.CRASH:
        return
    why = None
    if lasted >= FROZEN_SECONDS:
        why = f"the backup could not begin within {FROZEN_SECONDS} s, so the guest was thawed before"
        if thawed == 0:
            outcome.frozen_seconds = FROZEN_SECONDS  # about then, by the watchdog
    elif thawed == 0:
        why = "the guest thawed its file systems too early"
    if why is not None:
        outcome.level = Consistency.CRASH
        outcome.warnings.append(f"{why}: only crash-consistent")


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


def _freeze(domain: libvirt.virDomain, watchdog: Watchdog, outcome: QuietOutcome) -> None:
    warning = None
    try:
        if not watchdog.freezing():
            warning = "the process that would thaw the guest if the backup cannot has ended"
        elif domain.fsFreeze() > 0:
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
