"""One simulated history: writers, collectors, a forgetter and a reader at one store, and what must hold."""

import random
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hotspare import events
from hotspare.backup import machine as backup_module
from hotspare.backup import transfer
from hotspare.backup.machine import backup_machine
from hotspare.backup.options import BackupOptions
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError
from hotspare.repository import copy as copy_module
from hotspare.repository import copy_plan, disk_map, reindex, scrub, session, survey
from hotspare.repository.copy import copy_points
from hotspare.repository.format import DELTA_FEATURE, FORMAT_NAME, PARITY, Features, RepositoryConfig
from hotspare.repository.gc import wait
from hotspare.repository.gc.collect import prune
from hotspare.repository.gc.mark import Marks
from hotspare.repository.keys import Keyring, Secrets
from hotspare.repository.point import RestorePoint
from hotspare.repository.reindex import rebuild_index
from hotspare.repository.repair import RepairReport, repair_repository
from hotspare.repository.repository import Repository
from hotspare.repository.session import Surroundings
from tests.simulation.machines import CHUNK, SimulatedMachine
from tests.simulation.scheduler import Actor, ActorClock, Crash, Scheduler, heart_of
from tests.simulation.store import ActorBackend, DirectBackend, SimulatedStore

_START = datetime(2026, 11, 23, tzinfo=UTC)
_PAGE_IDS = 4
FEATURES = Features(read=(DELTA_FEATURE,))


class Violation(AssertionError):
    """Something that must never happen has."""


class World:
    """The state of one history."""

    def __init__(self, seed: int, scheduler: Scheduler | None = None, parity: int | None = None) -> None:
        """``scheduler`` decides who runs next; None leaves that, or the ``parity``, to the seed."""
        self.seed = seed
        self.random = random.Random(seed)
        self.scheduler = scheduler or Scheduler(
            random.Random(seed + 1),
            jump=self.random.choice([0.0, 0.0, 0.01, 0.05]),
            stickiness=self.random.choice([0.0, 0.5, 0.9, 0.97]),
        )
        self.store = SimulatedStore(self.scheduler, random.Random(seed + 2))
        self.scheduler.between = self.store.between
        self.copy_store = SimulatedStore(self.scheduler, random.Random(seed + 4))
        """Of a second repository, into which points are copied. It is not a faulty one."""
        self.counts = {
            "points": 0, "pruned": 0, "expelled": 0, "failed": 0, "forgotten": 0, "copied": 0, "repairs": 0
        }  # fmt: skip
        self.pack_target = self.random.choice([50, 12_000, 60_000])
        self.parity = self.random.choice([0, 0, 20]) if parity is None else parity
        self.promised: dict[str, tuple[RestorePoint, bytes]] = {}
        """Points that were reported as a success and not forgotten, with what their disk must give."""
        self.copied: dict[str, tuple[RestorePoint, bytes]] = {}
        """The same of the second repository."""
        self.keyring = WatchedKeyring(self.random)
        self.config = self._new_config()
        alike = self.random.random() < 0.5
        self.copy_keyring = WatchedKeyring(self.random, self.keyring.secrets.id_key if alike else None)
        self.copy_config = self._new_config()
        self.expel_after = 1800.0
        self.failures: list[str] = []
        names = ["web", "db", "mail"][: self.random.randint(1, 3)]
        self.machines = [SimulatedMachine(name, self.random) for name in names]

    def _new_config(self) -> RepositoryConfig:
        return RepositoryConfig(
            format=FORMAT_NAME,
            version=1,
            id=self.random.randbytes(16).hex(),
            chunk_size=CHUNK,
            created="",
            features=FEATURES,
            parity=self.parity,
        )

    def repository(self, actor: Actor | None, pack_target: int | None = None) -> Repository:
        """Open the repository as a process of its own does, or as an onlooker."""
        if actor is None:
            return Repository(DirectBackend(self.store), self.config, self.keyring)
        surroundings = self._surroundings(actor, pack_target)
        return Repository(ActorBackend(self.store, actor), self.config, self.keyring, surroundings)

    def copy_repository(self, actor: Actor | None) -> Repository:
        """Open the second repository."""
        if actor is None:
            return Repository(DirectBackend(self.copy_store), self.copy_config, self.copy_keyring)
        backend = ActorBackend(self.copy_store, actor)
        return Repository(backend, self.copy_config, self.copy_keyring, self._surroundings(actor))

    def _surroundings(self, actor: Actor, pack_target: int | None = None) -> Surroundings:
        return Surroundings(
            clock=ActorClock(self.scheduler, actor),
            heart=lambda beat: heart_of(actor, self.scheduler.now, beat),
            executor=InlineExecutor,
            pack_target=pack_target or self.pack_target,
        )

    # What actors do.

    def back_up(self, platform: SimulatedMachine, actor: Actor, *, full: bool = False) -> None:
        before = platform.content
        options = BackupOptions(full=full)
        repository = self.repository(actor)
        point = backup_machine(repository, platform, platform.name, options, events.ignore, Cancellation())
        self.scheduler.tell(f"SUCCESS {point.id} ({point.disks[0].mode}, parent {point.parent})")
        self.counts["points"] += 1
        self.promised[point.id] = point, before

    def prune(self, keep_waste: float, actor: Actor, pack_target: int | None = None) -> None:
        report = prune(
            self.repository(actor, pack_target),
            events.ignore,
            Cancellation(),
            keep_waste=keep_waste,
            expel_after=self.expel_after,
        )
        self.scheduler.tell(f"PRUNED {report.packs_deleted} packs, {report.bytes_copied} bytes copied")
        self.counts["pruned"] += report.packs_deleted > 0
        self.counts["expelled"] += report.sessions_expelled

    def forget(self, actor: Actor) -> None:
        if not self.promised:
            return
        # Often the newest: it is the parent of an increment that may be under way.
        known = sorted(self.promised)
        self.forget_one(known[-1] if self.random.random() < 0.6 else self.random.choice(known), actor)

    def forget_one(self, point_id: str, actor: Actor) -> None:
        point, _ = self.promised.pop(point_id)
        self.scheduler.tell(f"FORGET {point_id}")
        self.counts["forgotten"] += 1
        self.repository(actor).forget(point)

    def copy(self, actor: Actor) -> None:
        """Copy a point into the second repository."""
        if not self.promised:
            return
        point, expected = self.promised[self.random.choice(sorted(self.promised))]
        source, target = self.repository(actor), self.copy_repository(actor)
        report = copy_points(source, target, [point], events.ignore, Cancellation())
        for copied in report.copied:
            self.scheduler.tell(f"COPIED {copied.id}")
            self.copied[copied.id] = copied, expected
            self.counts["copied"] += 1

    def prune_copy(self, actor: Actor) -> None:
        prune(self.copy_repository(actor), events.ignore, Cancellation(), expel_after=self.expel_after)

    def reindex(self, actor: Actor) -> None:
        rebuild_index(self.repository(actor), events.ignore, Cancellation())

    def repair(self, actor: Actor) -> RepairReport:
        report = repair_repository(self.repository(actor), events.ignore, Cancellation(), dry_run=False)
        self.scheduler.tell(f"REPAIRED {report.healed}, {report.dropped}")
        self.counts["repairs"] += 1
        return report

    def read(self, actor: Actor, repository: Repository) -> None:
        """Restore a point through a repository that may have been opened long ago."""
        if not self.promised:
            return
        point_id = self.random.choice(sorted(self.promised))
        point, expected = self.promised[point_id]
        try:
            data = content(repository, point)
        except HotspareError as error:
            if point_id in self.promised:
                raise Violation(f"{point_id} cannot be read: {error}") from error
            return
        if data != expected:
            raise Violation(f"{point_id} reads wrong")

    # What must hold.

    def check_promises(self) -> None:
        """Every promised point is listed and restores byte for byte, whatever is going on."""
        _check(self.repository(None), self.promised)

    def check_copies(self) -> None:
        """The same of what was copied."""
        _check(self.copy_repository(None), self.copied)

    def check_no_garbage(self) -> None:
        """Nothing is stored that no restore point needs."""
        self._check_no_garbage(self.repository(None), set(self.store.objects))

    def _check_no_garbage(self, repository: Repository, names: set[str]) -> None:
        for folder in ("sessions/", "gc/condemned/"):
            left = [name for name in names if name.startswith(folder)]
            if left:
                raise Violation(f"left behind: {left}")
        points = repository.points()
        if len(points) != sum(name.startswith("points/") for name in names):
            raise Violation("points that do not count were left behind")
        index = repository.load_index()
        indexed = {pack.name for pack in index.packs}
        stored = {name for name in names if name.startswith(("data/", "meta/"))}
        if indexed != stored:
            raise Violation(f"packs and index differ: {sorted(indexed ^ stored)}")
        parity = {name.removeprefix(PARITY) for name in names if name.startswith(PARITY)}
        if not parity <= stored:
            raise Violation(f"parity of no pack: {sorted(parity - stored)}")
        reader = repository.reader()
        marks = Marks(index, reader, CHUNK, Cancellation())
        for point in points:
            marks.add_point(point)
        marks.add_bases_of(marks.places)
        if not marks.needed.all():
            raise Violation(
                f"{int((~marks.needed).sum())} of {len(index)} chunks are garbage and still there"
            )


def _check(repository: Repository, promised: Mapping[str, tuple[RestorePoint, bytes]]) -> None:
    if not promised:
        return
    listed = {point.id for point in repository.points()}
    for point_id, (point, expected) in sorted(promised.items()):
        if point_id not in listed:
            raise Violation(f"{point_id} was promised and is not listed")
        try:
            data = content(repository, point)
        except HotspareError as error:
            raise Violation(f"{point_id} is lost: {error}") from error
        if data != expected:
            raise Violation(f"{point_id} restores wrong")


def content(repository: Repository, point: RestorePoint) -> bytes:
    (disk,) = point.disks
    buffer = bytearray(disk.size)
    repository.disk(disk).read_into(0, memoryview(buffer))
    return bytes(buffer)


class InlineExecutor(Executor):
    """Runs what it is given at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Crash:
            raise
        except Exception as error:  # noqa: BLE001 - a future keeps what it was
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


class WatchedKeyring(Keyring):
    """Notes each (key, nonce) that something is sealed with, and refuses to let one be used twice."""

    def __init__(self, random_source: random.Random, id_key: bytes | None = None) -> None:
        unlocked = Secrets(
            id_key=id_key or random_source.randbytes(32), epochs={1: random_source.randbytes(32)}, current=1
        )
        super().__init__("0" * 32, unlocked)
        self.used: set[tuple[int, bytes, bytes, bytes]] = set()
        self._sealers: dict[tuple[int, bytes, bytes], WatchedCipher] = {}
        """The same objects are opened again and again: deriving their keys would be a tenth of a history."""

    def sealer(self, epoch: int, seed: bytes, purpose: bytes) -> AESGCM:
        key = epoch, seed, purpose
        known = self._sealers.get(key)
        if known is None:
            known = self._sealers[key] = WatchedCipher(self, super().sealer(*key), key)
        return known  # type: ignore[return-value]  # AESGCM is final


class WatchedCipher:
    def __init__(self, keyring: WatchedKeyring, cipher: AESGCM, key: tuple[int, bytes, bytes]) -> None:
        self.decrypt = cipher.decrypt
        self._keyring = keyring
        self._cipher = cipher
        self._key = key

    def encrypt(self, nonce: bytes, data: bytes, context: bytes) -> bytes:
        self._note(nonce)
        return self._cipher.encrypt(nonce, data, context)

    def encrypt_into(self, nonce: bytes, data: bytes, context: bytes, place: memoryview) -> int:
        self._note(nonce)
        return self._cipher.encrypt_into(nonce, data, context, place)

    def _note(self, nonce: bytes) -> None:
        used = (*self._key, nonce)
        if used in self._keyring.used:
            raise Violation("a nonce was used twice with the same key")
        self._keyring.used.add(used)


def inline_map(
    work: Callable[[Any, Any], Any], items: Iterable[Any], workers: Sequence[Any]
) -> Generator[Any, None, None]:
    for item in items:
        yield work(workers[0], item)


@contextmanager
def small_world(world: World) -> Iterator[None]:
    """Make pages, stripes and identities small and repeatable, and keep threads out."""

    def now(_zone: object) -> datetime:
        return _START + timedelta(seconds=world.scheduler.now)

    source = random.Random(world.seed + 3)
    with ExitStack() as stack:
        for module, name, value in (
            (disk_map, "PAGE_IDS", _PAGE_IDS),
            (disk_map, "PAGE_SIZE", _PAGE_IDS * 32),
            (transfer, "STRIPE", 4 * CHUNK),
            (transfer, "ordered_map", inline_map),
            (transfer, "WORKERS", 1),
            (copy_plan, "PAGE_IDS", _PAGE_IDS),
            (survey, "PAGE_IDS", _PAGE_IDS),
            (copy_module, "ordered_map", inline_map),
            (copy_module, "WORKERS", 1),
            (scrub, "ordered_map", inline_map),
            (reindex, "ordered_map", inline_map),
            (backup_module, "datetime", SimpleNamespace(now=now)),
            # All actors are this process, which lives: what /proc says of it is not asked for again.
            (session, "own_life", lambda: "this process"),
            (wait, "is_known_dead", lambda _life: False),
            (secrets, "token_bytes", source.randbytes),
            (secrets, "token_hex", lambda size: source.randbytes(size).hex()),
            (secrets, "choice", source.choice),
        ):
            stack.enter_context(patch.object(module, name, value))
        yield
