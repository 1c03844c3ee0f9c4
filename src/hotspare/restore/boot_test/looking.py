"""Doing checks on a machine on trial."""

import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from hotspare.cancellation import Cancellation
from hotspare.platforms.guest_files import ShellEnded
from hotspare.platforms.trial import Trial
from hotspare.repository.tested import CheckOutcome, CheckRecord
from hotspare.restore.boot_test.check import GUEST_FOLDER, Check
from hotspare.restore.boot_test.network import Card, IsolatedNetwork, Knock

NOT_YET = 75
"""Exit status of a script that wants to be asked again (EX_TEMPFAIL of sysexits.h)."""
OUTPUT_KEPT = 4000
"""Characters of what a script prints."""
_PAUSE_SECONDS = 1.0
_KNOCK_SECONDS = 3.0
_SEND = 'umask 077 && mkdir -p "${1%/*}" && cat > "$1"'
# What was sent lies where programs may be forbidden (noexec), so its first line is obeyed by hand.
_RUN = """
script=$1; shift
IFS= read -r first <"$script"
case $first in "#!"*) exec ${first#??} "$script" "$@" ;; esac
exec sh "$script" "$@"
"""
_UPTIME = "cut -d' ' -f1 /proc/uptime"
_FOLDER = "/run/hotspare/checks"


class Seen(NamedTuple):
    """What one attempt at a check saw."""

    outcome: CheckOutcome
    detail: str = ""
    output: str = ""
    again: bool = False
    """It may be otherwise in a moment."""


class Looking(NamedTuple):
    """What a machine is looked at through."""

    trial: Trial
    network: IsolatedNetwork
    cards: Sequence[Card]

    def do(self, check: Check, cancellation: Cancellation) -> CheckRecord:
        """Do one check, again and again where that may help, until its time is over."""
        started = time.monotonic()
        deadline = started + check.seconds
        while True:
            cancellation.check()
            left = max(deadline - time.monotonic(), 1.0)
            seen = self._try(check, left, cancellation)
            if not seen.again or time.monotonic() + _PAUSE_SECONDS > deadline or not self.trial.is_running():
                break
            time.sleep(_PAUSE_SECONDS)
        seconds = round(time.monotonic() - started, 3)
        return CheckRecord(
            name=check.name,
            outcome=seen.outcome,
            seconds=seconds,
            detail=seen.detail,
            output=seen.output[-OUTPUT_KEPT:],
        )

    def _try(self, check: Check, seconds: float, cancellation: Cancellation) -> Seen:
        if not self.trial.is_running():
            return Seen("failed", "the machine is off: it powered itself off, restarted or crashed")
        ways: dict[str, Callable[[], Seen]] = {
            "agent": self._agent,
            "heartbeat": self._heartbeat,
            "tcp": lambda: self._tcp(check, seconds),
        }
        return ways.get(check.kind, lambda: self._script(check, seconds, cancellation))()

    def _agent(self) -> Seen:
        if self.trial.agent_answers():
            return Seen("passed", "it answers")
        return Seen("failed", "no guest agent answers", again=True)

    def _heartbeat(self) -> Seen:
        """See that the guest's clock goes on; without an agent, that the machine is not off."""
        if not self.trial.agent_answers():
            return self._goes_on()
        try:
            before = self.trial.shell(_UPTIME, (), seconds=10)
            time.sleep(_PAUSE_SECONDS)
            after = self.trial.shell(_UPTIME, (), seconds=10)
        except OSError as error:
            return Seen("failed", f"the guest does not tell its uptime: {error}", again=True)
        if before.status or after.status:
            return self._goes_on()  # not a Linux
        first, then = float(before.output), float(after.output)
        if then > first:
            return Seen("passed", f"its uptime goes on, {first:.1f} s to {then:.1f} s")
        return Seen("failed", f"its uptime stands still at {then:.1f} s", again=True)

    def _goes_on(self) -> Seen:
        before = self.trial.activity()
        time.sleep(_PAUSE_SECONDS)
        after = self.trial.activity()
        if after.cpu_seconds > before.cpu_seconds:
            return Seen("passed", "its processor works; nobody inside was asked")
        return Seen("failed", "its processor stands still", again=True)

    def _tcp(self, check: Check, seconds: float) -> Seen:
        wanted, port = check.tcp
        if not self.cards:
            return Seen("failed", "the machine has no network card")
        found: list[str] = []
        said = [IPv4Address(one) for one in self.trial.addresses()]
        for card in self.cards:
            addresses = [wanted] if wanted else self.network.addresses(card) or said
            for address in addresses:
                knock = self.network.knock(card, address, port, min(_KNOCK_SECONDS, seconds))
                if knock == "open":
                    return Seen("passed", f"{address} port {port} is open")
                found.append(f"{address} {_WORDS[knock]}")
        if not found:
            return Seen("failed", "the machine has not used an IPv4 address yet", again=True)
        return Seen("failed", f"port {port}: {', '.join(dict.fromkeys(found))}", again=True)

    def _script(self, check: Check, seconds: float, cancellation: Cancellation) -> Seen:
        if not self.trial.agent_answers():
            return Seen("failed", "no guest agent answers, which would run it", again=True)
        try:
            ended = self._run_script(check, seconds, cancellation)
        except TimeoutError as error:
            return Seen("failed", str(error))
        except (OSError, ValueError) as error:
            return Seen("failed", f"it cannot be run: {getattr(error, 'strerror', None) or error}")
        lines = [line for line in ended.output.splitlines() if line.strip()]
        last = lines[-1][:200] if lines else ""
        if ended.status == 0:
            return Seen("passed", last, ended.output)
        detail = f"exit status {ended.status}" + (f": {last}" if last else "")
        return Seen("failed", detail, ended.output, again=ended.status == NOT_YET)

    def _run_script(self, check: Check, seconds: float, cancellation: Cancellation) -> ShellEnded:
        content = check.script()
        path = f"{GUEST_FOLDER}/{check.name.partition(':')[2]}"
        if content is not None:
            path = f"{_FOLDER}/{check.name.replace(':', '-')}"
            sent = self.trial.shell(_SEND, [path], seconds=10, stdin=content)
            if sent.status:
                raise ValueError(sent.output.strip() or "it cannot be sent")
        words = [path, *([check.sql] if check.sql else [])]
        return self.trial.shell(_RUN, words, seconds=seconds, check=cancellation.check)


_WORDS: dict[Knock, str] = {"open": "is open", "refused": "refuses", "silent": "does not answer"}
