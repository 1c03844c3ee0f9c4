"""A platform of another host: looked at, and its machines backed up, by the mover there."""

import threading
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import msgspec

from hotspare.backup.claim import UNDISPUTED, Claim
from hotspare.cancellation import Cancellation
from hotspare.cli.directing import Errand, run_errand
from hotspare.documents.form import error_of
from hotspare.documents.host import HostReport, read_host
from hotspare.documents.progress import event_of
from hotspare.errors import HotspareError, Interrupted, MachineNotFound, PlatformUnavailable, StorageError
from hotspare.events import Listener, Progress, ignore
from hotspare.mover.control import parse_remote_platform
from hotspare.platforms.platform import Machine
from hotspare.policy.load import LoadSample
from hotspare.repository.abandoned import settle_abandoned
from hotspare.repository.keys.slot import Credential
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.settings import Settings

PATIENCE = 60.0
"""Seconds that a host has to say what machines it has."""
_Credential = Callable[[str], Credential]
"""Gives what opens the repository at a URL."""


class OtherHost:
    """Fulfils ``fleet.host.Host``; each question is a connection of its own."""

    def __init__(self, uri: str, settings: Settings, credential: _Credential) -> None:
        """Connect to nothing yet. Raises ``UsageError`` for a URI that names no host."""
        parse_remote_platform(uri)
        self.uri = uri
        self._settings = settings
        self._credential = credential
        self._pools: dict[str, frozenset[str]] = {}

    def machines(self) -> list[Machine]:
        """See ``Host``."""
        return self.report().machines

    def inspect(self, reference: str) -> Machine:
        """See ``Host``."""
        return machine_among(self.machines(), reference, self.uri)

    def pools(self, machine: Machine) -> frozenset[str]:
        """See ``Host``; as of the last time that its machines were asked for."""
        return pools_at(self.uri, self._pools.get(machine.id, frozenset()))

    def load(self, seconds: float) -> LoadSample | None:
        """See ``Host``."""
        return self.report(seconds).load

    def report(self, seconds: float = 0.0) -> HostReport:
        """Have it say what there is, and for so many seconds how busy it is; 0 leaves that out.

        Raises:
            PlatformUnavailable: it does not answer, or not in time.
            PermissionRefused: it does not let us in.
            HotspareError: what it says is wrong there.
        """
        heard = _Heard(ignore)
        cancellation = Cancellation()
        patience = threading.Timer(PATIENCE + seconds, cancellation.cancel)
        patience.start()
        try:
            status = self._have_done(("mover", "host", f"--seconds={seconds}"), heard, cancellation)
        except Interrupted:
            status = Interrupted.exit_status
        finally:
            patience.cancel()
        if cancellation.requested:
            raise PlatformUnavailable(
                f"{self.uri} did not say within {PATIENCE:.0f} s what machines it has",
                meaning="Nothing was done with machines of that host",
                hint="Log in there with ssh, and see whether 'hotspare machine list' answers",
            )
        if status != 0:
            raise heard.error(self.uri)
        try:
            found = read_host(heard.out, self.uri)
        except ValueError as error:
            raise PlatformUnavailable(
                f"What {self.uri} says of its machines cannot be understood: {error}",
                meaning="Nothing was done with machines of that host",
                hint="Install the same version of Hotspare on both hosts",
            ) from error
        self._pools = dict(found.pools)
        return found

    def back_up(
        self,
        repository: tuple[Repository, str | None],
        machine: str,
        words: Sequence[str],
        listener: Listener,
        cancellation: Cancellation,
        claim: Claim,
    ) -> RestorePoint:
        """Have a machine backed up there, and give its new restore point.

        Args:
            repository: opened, and the URL that settings or policy name it by.
            machine: its id.
            words: options of ``hotspare backup``.
            listener: told how far it is.
            cancellation: stops it there, at its next safe moment.
            claim: says whether it may begin, and finish.

        Raises:
            PlatformUnavailable: the host cannot be reached, or was lost on the way.
            HotspareError: what went wrong there, as ``backup_machine`` raises it here.
        """
        opened, url = repository
        heard, watched = _Heard(listener), _WatchedClaim(claim)
        try:
            self._have_done(("backup", machine, *words), heard, cancellation, url, watched)
        except PlatformUnavailable:
            # It may have published its restore point with the last that it was told.
            point = settle_abandoned(opened, machine, watched.session) if watched.may_commit else None
            if point is None:
                raise
            return point
        if watched.refusal is not None:
            raise watched.refusal
        point = _point(opened, machine, heard, self.uri)
        for disk in point.disks:  # of what was told on the way, the last may be missing
            counts = disk.bytes_processed, disk.bytes_read, disk.bytes_new, disk.bytes_stored
            listener(Progress(point.machine_name, disk.name, *counts))
        return point

    def _have_done(
        self,
        words: Sequence[str],
        heard: "_Heard",
        cancellation: Cancellation,
        repository: str | None = None,
        claim: Claim = UNDISPUTED,
    ) -> int:
        errand = Errand(
            platform=self.uri,
            words=(*words, "--output", "json"),
            repository=repository,
            credential=lambda: self._credential(repository or ""),
            said=heard,
            progress="jsonl",
            claim=claim,
        )
        try:
            return run_errand(errand, self._settings, cancellation)
        except StorageError as error:
            # Of the connection, which carries a store elsewhere; here it is the machines' host that is gone.
            raise PlatformUnavailable(error.what, meaning=error.meaning, hint=error.hint) from error


def machine_among(machines: Sequence[Machine], reference: str, uri: str) -> Machine:
    """Find a machine by its id, else by its name. Raises ``MachineNotFound``."""
    for found in (
        *(one for one in machines if one.id == reference),
        *(one for one in machines if one.name == reference),
    ):
        return found
    raise MachineNotFound(
        f"There is no machine '{reference}' on {uri}",
        meaning="Nothing was done",
        hint=f"See 'hotspare machine list --platform {uri}'",
    )


def pools_at(uri: str, pools: frozenset[str]) -> frozenset[str]:
    """Name pools of another host as it is done for files: ``host2:/srv/vms``."""
    host = urlsplit(uri).netloc.rpartition("@")[2]
    return frozenset(f"{host}:{pool}" for pool in pools)


class _Heard:
    """What a command has said over there: its document, its events, and its error."""

    def __init__(self, listener: Listener) -> None:
        self.out = ""
        self._listener = listener
        self._rest = ""
        self._lines: list[str] = []
        """What was said beside events; the last is the error, if there was one."""

    def __call__(self, stream: int, text: str) -> None:
        if stream == 1:
            self.out += text
            return
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            event = event_of(line)
            if event is not None:
                self._listener(event)
            elif line:
                self._lines = [*self._lines[-20:], line]

    def error(self, uri: str) -> HotspareError:
        """Give what went wrong there."""
        for line in reversed([*self._lines, self._rest]):
            try:
                fields = msgspec.json.decode(line)
            except msgspec.DecodeError:
                continue
            if isinstance(fields, dict) and fields.get("type") == "error":
                return error_of(fields)
        said = " ".join(self._lines) or "it said nothing"
        return HotspareError(f"The command on {uri} failed: {said}", meaning="No restore point was made")


class _WatchedClaim:
    """Fulfils ``Claim``: asks another, and remembers what it said."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self.session = ""
        self.may_commit = False
        self.refusal: HotspareError | None = None

    def begun(self, session: str) -> None:
        self.session = session
        self._asked(lambda: self._claim.begun(session))

    def before_commit(self) -> None:
        self._asked(self._claim.before_commit)
        self.may_commit = True

    def _asked(self, ask: Callable[[], None]) -> None:
        try:
            ask()
        except HotspareError as error:
            self.refusal = error
            raise


def _point(repository: Repository, machine: str, heard: _Heard, uri: str) -> RestorePoint:
    """Give the restore point that a backup says it has made. Raises what it says went wrong."""
    try:
        (result,) = msgspec.json.decode(heard.out)["results"]
        number = result["point"]["id"] if result["point"] else None
        error = result["error"]
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        raise heard.error(uri) from None
    if number is None:
        raise error_of(error) if error else heard.error(uri)
    for point in repository.machine_points(machine, lambda _name, _error: None):
        if point.id == number:
            return point
    raise PlatformUnavailable(
        f"{uri} says that it made the restore point {number}, and the repository does not have it",
        meaning="It went to another repository, if anywhere",
        hint="See whether HOTSPARE_REPOSITORY_ON_HOST names the same repository as is used here",
    )
