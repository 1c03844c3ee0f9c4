"""What the server is asked to do that takes long: each action is a command of this program, in a process.

So an action is the same thing as that command: it is in the history, and what goes wrong with it cannot take
the server down. The list of actions is lost with the server; the history of runs is not.
"""

import json
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, Literal

from hotspare.access.audit import ASKED_BY
from hotspare.access.roles import Target
from hotspare.documents.form import utc_time
from hotspare.documents.progress import ProgressWatch, event_of, progress_fields
from hotspare.errors import ActionNotFound, Conflict

State = Literal["waiting", "running", "ok", "failed", "cancelled"]
_KEPT = 1000
_WAITING_MAX = 500
_SAID_MAX = 200
"""Lines."""


@dataclass(slots=True)
class Action:
    """One action, and how it stands."""

    id: str
    kind: str
    """``backup``, ``check`` or ``prune``."""
    words: Sequence[str]
    asked_by: str
    target: Target
    asked_at: datetime
    without: Collection[str] = ()
    """Variables that the command does not get."""
    state: State = "waiting"
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: dict[str, Any] | None = None
    """The JSON document that the command printed."""
    error: dict[str, Any] | None = None
    """The document of the error that it ended with."""
    watches: dict[str, ProgressWatch] = field(default_factory=dict)
    """How far each machine's run is, by the machine's name."""
    _process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def fields(self) -> dict[str, Any]:
        """Describe it in a JSON document."""
        return {
            "id": self.id,
            "kind": self.kind,
            "command": ["hotspare", *self.words],
            "asked_by": self.asked_by,
            "asked_at": utc_time(self.asked_at),
            "state": self.state,
            "started_at": utc_time(self.started_at) if self.started_at else None,
            "finished_at": utc_time(self.finished_at) if self.finished_at else None,
            "result": self.result,
            "error": self.error,
            "progress": [
                {"machine": machine, **progress_fields(watch.progress)}
                for machine, watch in list(self.watches.items())
            ],
        }

    def take_in(self, line: str) -> bool:
        """Note what a line says of how far it is; tells whether it says that."""
        event = event_of(line)
        if event is None:
            return False
        if event.machine not in self.watches:
            self.watches[event.machine] = ProgressWatch()
        self.watches[event.machine](event)
        return True


class Actions:
    """Carries actions out, a few at once, in the order in which they were asked for."""

    def __init__(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        ended: Callable[[], None],
        *,
        at_once: int = 2,
    ) -> None:
        """Begin with none.

        Args:
            program: how this program is started.
            environment: of the commands: it has what they need to find and open the repository.
            ended: called whenever an action has ended.
            at_once: how many are carried out at the same time.
        """
        self._program = tuple(program)
        self._ended = ended
        self._environment = dict(environment)
        self._actions: dict[str, Action] = {}
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(at_once, "action")

    def begin(
        self,
        kind: str,
        command: Sequence[str],
        arguments: Sequence[str],
        asked_by: str,
        target: Target,
        *,
        without: Collection[str] = (),
    ) -> Action:
        """Have a command carried out; gives the action at once.

        Args:
            kind: for who looks at the list.
            command: its words.
            arguments: that follow.
            asked_by: by whom.
            target: to whose scopes it belongs.
            without: variables of the environment that the command does not get.

        Raises:
            Conflict: too many wait.
        """
        words = (*command, "-o", "json", "--progress", "jsonl", *arguments)
        action = Action(secrets.token_hex(6), kind, words, asked_by, target, datetime.now(UTC), without)
        with self._lock:
            if sum(one.state == "waiting" for one in self._actions.values()) >= _WAITING_MAX:
                raise Conflict(
                    f"{_WAITING_MAX} actions are waiting already",
                    meaning="Nothing was begun",
                    hint="Try again later",
                )
            self._forget_old()
            self._actions[action.id] = action
        self._workers.submit(self._carry_out, action)
        return action

    def all(self) -> list[Action]:
        """Give the actions, the newest first."""
        with self._lock:
            return list(reversed(self._actions.values()))

    def get(self, number: str) -> Action:
        """Find one. Raises ``ActionNotFound``."""
        with self._lock:
            if number in self._actions:
                return self._actions[number]
        raise ActionNotFound(f"The server knows no action '{number}'", meaning="Nothing was changed")

    def cancel(self, number: str) -> Action:
        """Have an action stopped at a safe moment; one that is over stays as it is."""
        action = self.get(number)
        with self._lock:
            if action.state == "waiting":
                action.state, action.finished_at = "cancelled", datetime.now(UTC)
            elif action._process is not None and action._process.poll() is None:
                action._process.send_signal(signal.SIGINT)
        return action

    def close(self) -> None:
        """Stop all that runs, at a safe moment, and wait for it."""
        for action in self.all():
            self.cancel(action.id)
        self._workers.shutdown()

    def _forget_old(self) -> None:
        over = [one.id for one in self._actions.values() if one.finished_at is not None]
        for number in over[: max(0, len(self._actions) - _KEPT)]:
            del self._actions[number]

    def _carry_out(self, action: Action) -> None:
        given = {name: value for name, value in self._environment.items() if name not in action.without}
        with self._lock:
            if action.state != "waiting":
                return
            action.state, action.started_at = "running", datetime.now(UTC)
            action._process = process = subprocess.Popen(
                [*self._program, *action.words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**given, ASKED_BY: action.asked_by},
                # A Ctrl-C for the server is not one for its actions, which ``close`` stops.
                start_new_session=True,
            )
        said: list[str] = []
        reading = threading.Thread(target=_follow, args=(action, process.stderr, said), name="progress")
        reading.start()
        with process:  # which closes its pipes
            out = process.stdout.read() if process.stdout else ""
            reading.join()
        self._ended()
        with self._lock:
            action.result, action.error = _document(out), _error("".join(said))
            stopped = process.returncode == 130
            action.state = "ok" if process.returncode == 0 else "cancelled" if stopped else "failed"
            action.finished_at = datetime.now(UTC)


def _follow(action: Action, lines: IO[str] | None, said: list[str]) -> None:
    """Read what a command says while it works: events, and what else it says, of which the end is kept."""
    for line in lines or ():
        if not action.take_in(line):
            said.append(line)
            del said[:-_SAID_MAX]


def _document(text: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return found


def _error(text: str) -> dict[str, Any] | None:
    """Give the last line that is a JSON document: what stands before it are warnings."""
    for line in reversed(text.splitlines()):
        if line.startswith("{") and (found := _document(line)) is not None:
            return found
    return {"type": "error", "v": 1, "code": "failed", "what": text[-1000:]} if text.strip() else None
