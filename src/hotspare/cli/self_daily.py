"""Self-backups that a server makes by itself: soon after something was changed, and once a day."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hotspare.cli.options import Options
from hotspare.cli.self import back_up_self
from hotspare.cli.self_sources import places_of
from hotspare.cli.session import Session
from hotspare.errors import HotspareError
from hotspare.repository.repository import Repository
from hotspare.self_backup.make import current_fingerprint, last_self_backup
from hotspare.self_backup.manifest import manifest_of

LOOK_SECONDS = 60.0
"""Between two looks at whether something was changed."""
_SETTLE_SECONDS = 300.0
"""Changes rarely come alone: at most one self-backup in so much time."""
_DAY_SECONDS = 86_400.0
_RETRY_SECONDS = 900.0
_LAST_SECONDS = 10.0
"""For so long the server waits at its end for one that goes on."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Timing:
    """When the next self-backup is due; pure, with times in seconds since the epoch."""

    made_at: float = float("-inf")
    tried_at: float = float("-inf")
    fingerprint: str = ""
    """Of the newest self-backup."""
    failed: bool = False

    def due(self, now: float, fingerprint: str) -> bool:
        """Tell whether one is due now; a newest one from the future (a wrong clock) counts as none."""
        if self.failed and 0 <= now - self.tried_at < _RETRY_SECONDS:
            return False
        age = now - self.made_at
        if not 0 <= age < _DAY_SECONDS:
            return True
        return fingerprint != self.fingerprint and age >= _SETTLE_SECONDS


@dataclass(slots=True)
class SelfBackups:
    """Makes them; belongs to one thread."""

    options: Options
    clock: Callable[[], float] = time.time
    _timing: Timing | None = field(default=None)
    _said: str = ""

    def look(self) -> bool:
        """Make one if it is due; gives whether it did. What goes wrong is logged once, and tried again."""
        now = self.clock()
        try:
            with Session(self.options) as session:
                return self._look(session, now)
        except HotspareError as error:
            self._timing = self._timing or Timing()
            self._timing.tried_at, self._timing.failed = now, True
            if self._said != str(error):
                _log.warning("There is no new self-backup. %s", error)
            self._said = str(error)
            return False

    def _look(self, session: Session, now: float) -> bool:
        if session.settings.repository is None or not session.settings.self_backup:
            return False
        places = places_of(session.settings)
        fingerprint = current_fingerprint(places)
        if self._timing is not None and not self._timing.due(now, fingerprint):
            return False
        repository = session.repository()
        if self._timing is None:
            self._timing = _timing_of(repository, session)
            if not self._timing.due(now, fingerprint):
                return False
        made = back_up_self(session, repository)
        self._timing = Timing(made_at=now, tried_at=now, fingerprint=made.manifest.fingerprint)
        self._said = ""
        for said in (*made.manifest.remarks, made.manifest.audit_problem):
            if said:
                _log.warning("Self-backup %s: %s", made.point.id, said)
        return True


@contextmanager
def self_backups_by_themselves(options: Options) -> Iterator[None]:
    """Make self-backups in a thread of their own while the block runs."""
    stopped = threading.Event()
    backups = SelfBackups(options)

    def run() -> None:
        while not stopped.wait(LOOK_SECONDS):
            try:
                backups.look()
            except Exception:  # noqa: BLE001 - a mistake of ours must not end the thread; it is said each time
                _log.exception("There is no new self-backup")

    thread = threading.Thread(target=run, name="self-backup", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        # One that is broken off leaves what a killed one does, which the next one clears away.
        thread.join(_LAST_SECONDS)


def _timing_of(repository: Repository, session: Session) -> Timing:
    """Go on from the newest self-backup of this host: a restart alone is no reason for another."""
    newest = last_self_backup(repository, places_of(session.settings))
    if newest is None:
        return Timing()
    try:
        fingerprint = manifest_of(newest).fingerprint
    except HotspareError:
        fingerprint = ""
    return Timing(made_at=newest.finished_at.timestamp(), fingerprint=fingerprint)
