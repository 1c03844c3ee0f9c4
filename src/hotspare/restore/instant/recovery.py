"""Recovering a machine instantly: it starts from the repository, and its keeper moves it off that.

The order is: record, overlays, server, definition, start. So a crash at any step leaves nothing, or what
``resume`` goes on with and ``undo`` removes.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hotspare import events
from hotspare.errors import HotspareError, MachineNotFound, TargetExists, UsageError
from hotspare.platforms.instant import InstantPlatform, InstantTarget
from hotspare.platforms.placement import TargetPlan
from hotspare.platforms.platform import Machine, Platform, PowerState, StateFile, TargetRequest
from hotspare.repository.kept import keep_point, read_kept
from hotspare.repository.point import RestorePoint, point_name
from hotspare.repository.repository import Repository
from hotspare.restore.instant.guardian import release_held_point
from hotspare.restore.instant.keeper import Keeper, Orders, Serving, stop_keeper
from hotspare.restore.instant.record import RecoveredDisk, Recoveries, Recovery, Stage
from hotspare.restore.machine import machine_of


class InstantRecovery:
    """What recoveries of one command share.

    Args:
        platform: where machines are started.
        state_folder: of the program.
        scratch_folder: as the platform was told; None for its default.
        download_limit: bytes per second of the repository; 0 for none.
        serving: how disks are served.

    Raises:
        UsageError: machines cannot run from a repository on this platform.
    """

    def __init__(
        self,
        platform: Platform,
        state_folder: Path,
        *,
        scratch_folder: Path | None = None,
        download_limit: int = 0,
        serving: Serving | None = None,
    ) -> None:
        self.recoveries = Recoveries(state_folder)
        self.platform = platform
        self.instant = _instant(platform)
        self._state_folder = state_folder
        self._scratch_folder = scratch_folder
        self._download_limit = download_limit
        self._serving = serving or Serving()

    def plan(self, point: RestorePoint, request: TargetRequest) -> TargetPlan:
        """Say what would be made. Raises as ``Platform.plan_target``."""
        if self.recoveries.read(request.name) is not None:
            raise TargetExists(
                f"The machine {request.name} is being recovered already",
                meaning="Nothing was done",
                hint=f"See 'hotspare recover list'; 'hotspare recover resume {request.name}' goes on with it",
            )
        return self.instant.plan_instant(machine_of(point), request)

    def begin(
        self,
        repository: Repository,
        point: RestorePoint,
        plan: TargetPlan,
        request: TargetRequest,
        keeper: Keeper,
        listener: events.Listener,
        *,
        stay: bool = False,
        limit: int = 0,
    ) -> Machine:
        """Start a machine from a restore point. On an error nothing of it stays.

        Args:
            repository: where the point is; it must be reachable from this host.
            point: what to recover.
            plan: what ``plan`` said.
            request: what was planned.
            keeper: a process that has no orders yet.
            listener: told of the progress.
            stay: keep running from the repository until it is told to move.
            limit: bytes per second for moving; 0 for none.

        Raises:
            TargetExists: the name or a file is taken.
            NoSpace, PermissionRefused: something cannot be written.
            HotspareError: the disks cannot be served, or the machine does not start.
        """
        name = plan.name
        listener(events.PhaseStarted(name, "create"))
        recovery = self._recovery(repository, point, plan, listener)
        target: InstantTarget | None = None
        defined = False
        try:
            self.recoveries.write(recovery)
            keeper.order(self._orders(repository, name))
            target = self.instant.create_instant(machine_of(point), request, Path(recovery.socket))
            _add_state(repository, point, target, name, listener)
            keeper.wait_ready()
            target.define()
            defined = True
            listener(events.PhaseStarted(name, "start"))
            stage: Stage = "running" if stay else "moving"
            self.platform.start(name)
            self.recoveries.write(msgspec.structs.replace(recovery, stage=stage, limit=limit))
            return self.platform.inspect(name)
        except BaseException:
            keeper.stop()
            if target is not None:
                target.discard()
            if defined:
                with suppress(HotspareError):
                    self.instant.abandon(name)
            self._forget(repository, recovery)
            raise

    def _recovery(
        self, repository: Repository, point: RestorePoint, plan: TargetPlan, listener: events.Listener
    ) -> Recovery:
        return Recovery(
            name=plan.name,
            platform=self.platform.uri,
            scratch_folder=str(self._scratch_folder) if self._scratch_folder else None,
            repository=repository.backend.url,
            point=point.id,
            point_object=point_name(repository.keyring, point),
            disks=tuple(RecoveredDisk(name=one.name, size=one.size, path=one.path) for one in plan.disks),
            socket=str(self.instant.served_socket(plan.name)),
            stage="starting",
            holds_point=hold_point(repository, point, plan.name, listener),
            began_at=datetime.now(UTC),
        )

    def resume(self, repository: Repository, recovery: Recovery, keeper: Keeper) -> Machine:
        """Go on with a recovery after whatever crash: have it kept, and the machine run.

        A machine that was shut down is left off, and moved as it is.

        Raises:
            UsageError: it never came to be: then there is something to undo only.
        """
        name = recovery.name
        if recovery.stage == "starting":
            self._require_defined(recovery)
            recovery = msgspec.structs.replace(recovery, stage="moving")
            self.recoveries.write(recovery)
        if self.recoveries.is_kept(name):
            keeper.stop()
        else:
            self.instant.served_socket(name)  # its folder may be gone
            keeper.order(self._orders(repository, name))
            keeper.wait_ready()
        condition = self.instant.condition(name)
        if condition.power is PowerState.OFF and not condition.shut_down:
            self.platform.start(name)
        return self.platform.inspect(name)

    def move(self, name: str, limit: int) -> Recovery:
        """Have a machine moved off the repository that was to stay upon it. Raises ``UsageError``."""
        recovery = self.recoveries.find(name)
        moving = msgspec.structs.replace(recovery, stage="moving", limit=limit or recovery.limit)
        self.recoveries.write(moving)
        return moving

    def undo(self, recovery: Recovery, repository: Callable[[], Repository]) -> None:
        """Throw a recovered machine away, with all that it wrote.

        Raises:
            HotspareError: it is moved meanwhile, or something cannot be removed.
        """
        stop_keeper(self.recoveries, recovery.name)
        try:
            self.instant.abandon(recovery.name)
        except MachineNotFound:
            for disk in recovery.disks:  # made, but never defined, or undefined by hand
                Path(disk.path).unlink(missing_ok=True)
        self._forget(repository() if recovery.holds_point else None, recovery)

    def _require_defined(self, recovery: Recovery) -> None:
        try:
            self.instant.condition(recovery.name)
        except MachineNotFound as error:
            raise UsageError(
                f"The recovery of {recovery.name} was broken off before there was a machine",
                meaning="Nothing of it ran",
                hint=f"Run 'hotspare recover undo {recovery.name}', and recover it again",
            ) from error

    def _orders(self, repository: Repository, name: str) -> Orders:
        return Orders(
            state_folder=str(self._state_folder),
            name=name,
            config=repository.config,
            secrets=repository.keyring.secrets,
            download_limit=self._download_limit,
            serving=self._serving,
        )

    def _forget(self, repository: Repository | None, recovery: Recovery) -> None:
        if repository is not None and recovery.holds_point:
            release_held_point(repository, recovery)
        self.recoveries.remove(recovery.name)


def _instant(platform: Platform) -> InstantPlatform:
    if isinstance(platform, InstantPlatform):
        return platform
    raise UsageError(
        f"Machines cannot run from a repository at {platform.uri}",
        meaning="Nothing was done",
        hint="Restore the machine with 'hotspare restore', or recover it on a host with libvirt",
    )


def hold_point(repository: Repository, point: RestorePoint, name: str, listener: events.Listener) -> bool:
    """Protect a point from being forgotten while a machine runs from it; tells whether it was us who did."""
    try:
        if read_kept(repository.backend, repository.keyring, point.id) is not None:
            return False
        keep_point(repository.backend, repository.keyring, point.id, datetime.now(UTC))
    except HotspareError as error:
        problem = f"the restore point cannot be protected from being forgotten meanwhile: {error.what}"
        listener(events.Warned(name, problem))
        return False
    return True


def _add_state(
    repository: Repository, point: RestorePoint, target: InstantTarget, name: str, listener: events.Listener
) -> None:
    for state in point.state:
        content = bytearray(state.size)
        repository.disk(state).read_into(0, memoryview(content))
        if (problem := target.add_state(StateFile(name=state.name, content=bytes(content)))) is not None:
            listener(events.Warned(name, problem))
