"""A platform of another host: looked at, its machines backed up and restored, by the mover there."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hotspare.backup.claim import UNDISPUTED, Claim
from hotspare.cancellation import Cancellation
from hotspare.cli.directing import Errand, run_errand
from hotspare.cli.heard import Heard, WatchedClaim
from hotspare.documents.form import error_of
from hotspare.documents.host import HostReport, read_host
from hotspare.errors import HotspareError, Interrupted, MachineNotFound, PlatformUnavailable, StorageError
from hotspare.events import Listener, Progress, ignore
from hotspare.mover.control import parse_remote_platform
from hotspare.platforms.offers import Offers
from hotspare.platforms.platform import Machine
from hotspare.policy.load import LoadSample
from hotspare.repository.abandoned import settle_abandoned
from hotspare.repository.keys.slot import Credential
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.settings import Settings

PATIENCE = 60.0
"""Seconds that a host has to say what machines it has, or what a restore would make there."""
LOOKING_SECONDS = 30.0
"""For how long a host that was lost is looked at: what it was about to finish may take that long."""
_LOOKS_EVERY = 3.0
"""Seconds."""
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

    def offers(self) -> Offers:
        """See ``Host``."""
        return self.report().offers

    def report(self, seconds: float = 0.0) -> HostReport:
        """Have it say what there is, and for so many seconds how busy it is; 0 leaves that out.

        Raises:
            PlatformUnavailable: it does not answer, or not in time.
            PermissionRefused: it does not let us in.
            HotspareError: what it says is wrong there.
        """
        said = self._answer(("mover", "host", f"--seconds={seconds}"), "what machines it has", seconds)
        try:
            found = read_host(said, self.uri)
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
        heard, watched = Heard(listener), WatchedClaim(claim)
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

    def plan_restore(self, repository: str | None, words: Sequence[str]) -> dict[str, Any]:
        """Have it say what a restore would make there, without making anything.

        Args:
            repository: the URL that settings or policy name it by.
            words: what follows ``hotspare restore``.

        Returns: the plan, as ``documents.plan.plan_fields`` describes one.

        Raises:
            PlatformUnavailable: it does not answer, or not in time.
            HotspareError: what stands in the way of such a restore there.
        """
        said = self._answer(("restore", "--dry-run", *words), "what would be made there", 0.0, repository)
        plan: dict[str, Any] = _document(said, self.uri)["plan"]
        return plan

    def restore(
        self,
        repository: str | None,
        name: str,
        words: Sequence[str],
        heard: Heard,
        cancellation: Cancellation,
    ) -> dict[str, Any]:
        """Have a machine made there from a restore point, and give the document that describes it.

        Args:
            repository: the URL that settings or policy name it by.
            name: of the machine to be, as ``words`` have it.
            words: what follows ``hotspare restore``.
            heard: told what is said there.
            cancellation: stops it there, at its next safe moment.

        Raises:
            PlatformUnavailable: the host cannot be reached, or was lost on the way; its meaning says whether
                there is a machine.
            HotspareError: what went wrong there.
        """
        watched = WatchedClaim()
        try:
            status = self._have_done(("restore", *words), heard, cancellation, repository, watched)
        except PlatformUnavailable as error:
            if watched.may_commit:
                raise self._found_after(error, name, cancellation) from error
            if heard.something:
                raise _never_made(error, name) from error
            meaning = error.meaning or "Nothing was restored"
            raise PlatformUnavailable(error.what, meaning=meaning, hint=error.hint) from error
        if status != 0:
            raise heard.error(self.uri)
        return _document(heard.out, self.uri)

    def _found_after(
        self, error: PlatformUnavailable, name: str, cancellation: Cancellation
    ) -> PlatformUnavailable:
        """Look whether a machine is there whose restore was about to be finished when the host was lost."""
        end = time.monotonic() + LOOKING_SECONDS
        answered = False
        while True:
            try:
                found = [one for one in self.machines() if one.name == name]
                answered = True
            except HotspareError:
                found = []
            if found or time.monotonic() > end or cancellation.requested:
                break
            cancellation.pause(_LOOKS_EVERY)
        see = f"'hotspare machine list --platform {self.uri}'"
        if found:
            return PlatformUnavailable(
                error.what,
                meaning=f"The machine {name} is there, with all its data; it is {found[0].state.value}."
                " The connection was lost after that, and whatever else was asked for may not have been done",
                hint="Use it; it does not have to be restored again",
            )
        if answered:
            return PlatformUnavailable(
                error.what,
                meaning=f"All data of {name} had been written, and it was to become a machine in that moment;"
                f" there was none on {self.uri} when it was looked for afterwards",
                hint=f"Look once more with {see}; if it is not there, begin the restore again",
            )
        return PlatformUnavailable(
            error.what,
            meaning=f"All data of {name} had been written, and it was to become a machine in that moment;"
            " whether there is one is not known, as the host does not answer",
            hint=f"When it does, see {see} before you begin the restore again",
        )

    def _answer(self, words: Sequence[str], what: str, seconds: float, repository: str | None = None) -> str:
        """Have a question answered in time: by the document that a command prints.

        Args:
            words: of the command.
            what: is asked, for the error.
            seconds: that the answer takes anyway.
            repository: URL of the one that the command opens.

        Raises as ``report`` does.
        """
        heard, cancellation = Heard(ignore), Cancellation()
        patience = threading.Timer(PATIENCE + seconds, cancellation.cancel)
        patience.start()
        try:
            status = self._have_done(words, heard, cancellation, repository)
        except Interrupted:
            status = Interrupted.exit_status
        finally:
            patience.cancel()
        if cancellation.requested:
            raise PlatformUnavailable(
                f"{self.uri} did not say within {PATIENCE:.0f} s {what}",
                meaning="Nothing was done with machines of that host",
                hint="Log in there with ssh, and see whether 'hotspare machine list' answers",
            )
        if status != 0:
            raise heard.error(self.uri)
        return heard.out

    def _have_done(
        self,
        words: Sequence[str],
        heard: Heard,
        cancellation: Cancellation,
        repository: str | None = None,
        claim: Claim = UNDISPUTED,
    ) -> int:
        options = words.index("--") if "--" in words else len(words)
        errand = Errand(
            platform=self.uri,
            words=(*words[:options], "--output=json", *words[options:]),
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


def _never_made(error: PlatformUnavailable, name: str) -> PlatformUnavailable:
    """Say what a connection means that was lost before the other host was told that it may finish."""
    return PlatformUnavailable(
        error.what,
        meaning=f"There is no machine {name} of this restore, for it had no leave yet to finish. What it had"
        " written there is removed, or kept beside its place, where the next restore like this one goes on",
        hint="See whether the host can be reached with ssh, and begin the restore again; for two minutes the"
        " one that was lost may still hold its disks there",
    )


def _document(said: str, uri: str) -> dict[str, Any]:
    """Read the document that a command has printed on another host."""
    try:
        found: dict[str, Any] = msgspec.json.decode(said, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise PlatformUnavailable(
            f"What {uri} says cannot be understood: {error}",
            meaning="What was done there is not known",
            hint="Install the same version of Hotspare on both hosts",
        ) from error
    return found


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


def _point(repository: Repository, machine: str, heard: Heard, uri: str) -> RestorePoint:
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
