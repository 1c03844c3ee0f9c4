"""Sending what is due: each receiver for itself, so that one which does not answer holds up no other."""

import socket
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hotspare.errors import HotspareError
from hotspare.notices.message import compose
from hotspare.notices.outbox import Notice, Outbox
from hotspare.notices.sending import send, url_of
from hotspare.policy.occurrence import Occurrence
from hotspare.policy.receiver import Receiver

ANSWER_SECONDS = 60.0
"""A receiver that has not taken a message by then counts as one that does not answer."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the notices of one receiver."""

    receiver: str
    notices: int
    error: str | None
    """Why they were not sent; None when they were."""


def deliver(
    outbox: Outbox,
    receivers: Mapping[str, Receiver],
    environment: Mapping[str, str],
    *,
    only: str | None = None,
    patience: float = ANSWER_SECONDS,
) -> list[Delivery]:
    """Send what is due, and note in the outbox what became of it.

    A notice may arrive twice when this process dies between sending it and noting that.

    Args:
        outbox: has what is to be sent.
        receivers: by name; what waits for one that there is not any more is given up.
        environment: the process's, with the URLs that are in variables.
        only: send all that waits for this receiver, also what would be due later.
        patience: seconds for all receivers together, each of which has a thread.
    """
    waiting: dict[str, list[Notice]] = defaultdict(list)
    for notice in outbox.claim(only):
        waiting[notice.receiver].append(notice)
    gone = waiting.keys() - receivers.keys()
    for name in gone:
        outbox.give_up(waiting.pop(name), "there is no such receiver any more")
    messages = [(name, part) for name, all_of_it in waiting.items() for part in _messages(all_of_it)]
    errands = [
        _Errand(receivers[name], [one.occurrence for one in part], environment, digest=part[0].digest)
        for name, part in messages
    ]
    for errand in errands:
        errand.start()
    deadline = time.monotonic() + patience
    done = []
    for (name, part), errand in zip(messages, errands, strict=True):
        errand.join(max(0.0, deadline - time.monotonic()))
        error = _outcome(errand, patience)
        if error is None:
            outbox.sent(part)
        else:
            outbox.failed(part, error)
        done.append(Delivery(name, len(part), error))
    return done


def send_within(
    receiver: Receiver,
    occurrences: Sequence[Occurrence],
    environment: Mapping[str, str],
    patience: float = ANSWER_SECONDS,
) -> str | None:
    """Send something at once, beside the outbox; gives why it was not taken, None when it was."""
    errand = _Errand(receiver, occurrences, environment, digest=False)
    errand.start()
    errand.join(patience)
    return _outcome(errand, patience)


def _outcome(errand: "_Errand", patience: float) -> str | None:
    return f"no answer within {patience:.0f} seconds" if errand.is_alive() else errand.error


def _messages(notices: Sequence[Notice]) -> list[list[Notice]]:
    """Give what goes into one message each: what is told at once, and the digest."""
    parts = ([one for one in notices if one.digest is digest] for digest in (False, True))
    return [part for part in parts if part]


class _Errand(threading.Thread):
    """Sends one message. A daemon: nobody waits for it for ever."""

    def __init__(
        self,
        receiver: Receiver,
        occurrences: Sequence[Occurrence],
        environment: Mapping[str, str],
        *,
        digest: bool,
    ) -> None:
        super().__init__(name=f"notice to {receiver.name}", daemon=True)
        self.error: str | None = None
        self._receiver = receiver
        self._message = compose(occurrences, host=socket.gethostname(), digest=digest)
        self._environment = environment

    def run(self) -> None:
        """Send it, and keep what went wrong."""
        try:
            send(url_of(self._receiver, self._environment), self._message)
        except HotspareError as error:
            self.error = error.what
        except Exception as error:  # noqa: BLE001 - a plugin may do anything; its words may hold the URL
            self.error = f"the plugin failed: {type(error).__name__}"
