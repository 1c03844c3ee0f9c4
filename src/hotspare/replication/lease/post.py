"""What waits to be said to a voter."""

import logging
import threading

from hotspare.replication.lease.terms import Renew, Take

_LOG = logging.getLogger("hotspare.replica")


class Post:
    """The newest message to a voter; one that was not sent yet when a newer one comes is not sent at all."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._message: Renew | Take | None = None
        self._noted = ""

    def put(self, message: Renew | Take | None) -> None:
        """Put a message in the place of the one that waits; None just wakes who waits for one."""
        with self._changed:
            self._message = message
            self._changed.notify()

    def get(self) -> Renew | Take | None:
        """Wait for a message for a second, and take it."""
        with self._changed:
            if self._message is None:
                self._changed.wait(1.0)
            message, self._message = self._message, None
            return message

    def note(self, problem: str) -> None:
        """Log what is new."""
        if problem != self._noted:
            self._noted = problem
            _LOG.warning("%s", problem)
