"""A platform in memory whose every step can be made to fail.

It stands in for a hypervisor only where the point is the order of the engine's steps: which failure a
real one shows at which call cannot be commanded. Everything else is tested on real ones.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from hotspare.block.extent import Extent, ExtentKind
from hotspare.cancellation import Cancellation
from hotspare.errors import MachineNotFound, SourceLost
from hotspare.platforms.placement import TargetPlan
from hotspare.platforms.platform import (
    Consistency,
    Finding,
    IoTotals,
    Machine,
    MachineDisk,
    MachineMarks,
    PowerState,
    Remnant,
    Snapshot,
    SnapshotDisk,
    SnapshotRequest,
    StateFile,
    SweepRequest,
    Target,
    TargetRequest,
    Token,
)
from tests.memory_disk import MemoryDisk

BLOCK = 4096


class ScriptedDisk(MemoryDisk):
    """A disk that remembers what was written since each token was made."""

    def __init__(self, size: int) -> None:
        super().__init__(bytearray(size))
        self.dirty_since: dict[str, set[int]] = {}

    def guest_writes(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data
        blocks = range(offset // BLOCK, -(-(offset + len(data)) // BLOCK))
        for dirty in self.dirty_since.values():
            dirty.update(blocks)


class ScriptedPlatform:
    """One machine, ``web01``. ``fail_at`` names the step that raises; ``log`` tells what was called."""

    uri = "scripted:"

    def __init__(self, *sizes: int) -> None:
        self.disks = {f"vd{'abc'[number]}": ScriptedDisk(size) for number, size in enumerate(sizes)}
        self.fail_at = ""
        self.before: dict[str, Callable[[], None]] = {}
        self.log: list[str] = []
        self.state: tuple[StateFile, ...] = ()
        self.guest_io: Callable[[], dict[str, IoTotals] | None] = lambda: None

    def step(self, name: str) -> None:
        self.log.append(name)
        if name in self.before:
            self.before[name]()
        if name == self.fail_at:
            raise SourceLost(f"made to fail at {name}")

    def inspect(self, name: str) -> Machine:
        self.step("inspect")
        if name != "web01":
            raise MachineNotFound(f"no machine {name}")
        disks = tuple(
            MachineDisk(name=name, size=disk.size, format="raw", source="memory")
            for name, disk in self.disks.items()
        )
        return Machine(
            id="uuid of web01", name="web01", platform=self.uri, state=PowerState.RUNNING, disks=disks
        )

    def use(self, at: datetime) -> None:
        return None

    @contextmanager
    def open_snapshot(
        self, machine: Machine, request: SnapshotRequest, cancellation: Cancellation
    ) -> Iterator[Snapshot]:
        self.step("open_snapshot")
        snapshot = ScriptedSnapshot(self, machine, request)
        try:
            yield snapshot
        finally:
            snapshot.release()

    def probe(self) -> list[Finding]:
        return []

    def machines(self) -> list[Machine]:
        return [self.inspect("web01")]

    def plan_target(self, machine: Machine, request: TargetRequest) -> TargetPlan:
        raise NotImplementedError("restores are tested on real platforms")

    def mark(self, name: str, marks: MachineMarks) -> Machine:
        raise NotImplementedError("marks are tested on real platforms")

    def sweep(self, request: SweepRequest) -> list[Remnant]:
        raise NotImplementedError("sweeping is tested on real platforms")

    def create_target(self, machine: Machine, request: TargetRequest) -> Target:
        raise NotImplementedError("restores are tested on real platforms")

    def start(self, name: str) -> None:
        raise NotImplementedError("restores are tested on real platforms")

    def close(self) -> None:
        pass


class ScriptedSnapshot:
    consistency = Consistency.FILESYSTEM
    frozen_seconds = 0.25
    warnings: Sequence[str] = ("a warning",)
    state: Sequence[StateFile] = ()

    def __init__(self, platform: ScriptedPlatform, machine: Machine, request: SnapshotRequest) -> None:
        self.machine = machine
        self.state = platform.state
        self._platform = platform
        self._request = request
        self._committed = self._released = False
        self._frozen = {name: MemoryDisk(bytearray(disk.data)) for name, disk in platform.disks.items()}
        self._changed: dict[str, list[int] | None] = {}
        self.disks: Sequence[SnapshotDisk] = [self._open(name, disk) for name, disk in platform.disks.items()]

    def _open(self, name: str, disk: ScriptedDisk) -> SnapshotDisk:
        since = self._request.since.get(name)
        reason = None
        if since is None:
            reason = "first backup"
        elif since.value not in disk.dirty_since or since.size != disk.size:
            reason = "bitmap lost"
        assert since is None or reason or since.value in disk.dirty_since
        self._changed[name] = None if reason or since is None else sorted(disk.dirty_since[since.value])
        disk.dirty_since[self._request.point_id] = set()
        token = Token(value=self._request.point_id, disk_identity=name, size=disk.size)
        return SnapshotDisk(name, disk.size, token, reason)

    def changed(self, disk: str) -> Iterator[Extent]:
        self._platform.step("changed")
        frozen = self._frozen[disk]
        blocks = self._changed[disk]
        if blocks is None:
            yield from frozen.extents(0, frozen.size)
            return
        for block in blocks:
            length = min(BLOCK, frozen.size - block * BLOCK)
            zero = not any(frozen.data[block * BLOCK : block * BLOCK + length])
            yield Extent(block * BLOCK, length, ExtentKind.ZERO if zero else ExtentKind.DATA)

    def reader(self, disk: str) -> MemoryDisk:
        self._platform.step("reader")
        platform, frozen = self._platform, self._frozen[disk]

        class Reader(MemoryDisk):
            def read_into(self, offset: int, buffer: memoryview) -> None:
                platform.step("read")
                super().read_into(offset, buffer)

        return Reader(frozen.data)

    def guest_io(self) -> dict[str, IoTotals] | None:
        return self._platform.guest_io()

    def check(self) -> None:
        self._platform.step("check")

    def commit(self) -> None:
        self._platform.step("commit")
        self._committed = True
        for disk in self._platform.disks.values():
            disk.dirty_since = {
                token: dirty for token, dirty in disk.dirty_since.items() if token == self._request.point_id
            }

    def release(self) -> None:
        if self._released:
            return
        self._released = True
        self._platform.log.append("release")
        if not self._committed:
            for disk in self._platform.disks.values():
                disk.dirty_since.pop(self._request.point_id, None)
