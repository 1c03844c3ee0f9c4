"""One open repository: created, opened, listed, written, read."""

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
import numpy as np

from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.append_only import require_removable, require_writable
from hotspare.repository.damaged import DamagedChunks, load_damaged, without_damaged
from hotspare.repository.disk import RepositoryDisk
from hotspare.repository.disk_map import PAGE_SIZE, DiskMap, without_holes
from hotspare.repository.format import (
    CHUNK_ID_SIZE,
    CONFIG,
    DATA,
    DEFAULT_CHUNK_SIZE,
    DELTA_FEATURE,
    EXTRAS_FEATURE,
    FORMAT_NAME,
    FORMAT_VERSION,
    LOCK_FEATURE,
    META,
    POINTS,
    STATE_FEATURE,
    Features,
    RepositoryConfig,
    StoreRecord,
    check_may_write,
)
from hotspare.repository.gc.forgotten import put_forgotten
from hotspare.repository.gc.state import read_expulsions, read_garbage_state
from hotspare.repository.index import ChunkIndex
from hotspare.repository.index.cache import SegmentSource
from hotspare.repository.index.table import Table
from hotspare.repository.kept import refuse_kept, release_point
from hotspare.repository.keys import Keyring, new_secrets
from hotspare.repository.keys.keychest import Keychest
from hotspare.repository.keys.slot import Credential, Passphrase
from hotspare.repository.object_lock.deleted import note_forgotten
from hotspare.repository.object_lock.keeper import LockKeeper
from hotspare.repository.object_lock.store import refuse_without_locks, with_locks
from hotspare.repository.opening import get_record, open_keys, refuse_occupied
from hotspare.repository.point import PointContent, RestorePoint, open_point, order_of_points, point_name
from hotspare.repository.reader import ChunkReader
from hotspare.repository.session import Session, SessionKind, Surroundings
from hotspare.repository.tested import forget_tested
from hotspare.repository.writer import RepositoryWriter, require_pack
from hotspare.storage.backend import Backend

OnDamage = Callable[[str, RepositoryDamaged], None]
"""Told the object name of a restore point that cannot be read, and why."""


class Statistics(NamedTuple):
    """What a repository holds; self-backups are not counted as machines and points."""

    points: int
    machines: int
    packs: int
    chunks: int
    stored_bytes: int
    """All objects together."""
    disk_bytes: int
    """Sum of the disk sizes of all points: what restoring each would give."""


class Repository:
    """A store of restore points. Safe for several threads, but for ``writer``, of which one may be open."""

    def __init__(
        self,
        backend: Backend,
        config: RepositoryConfig,
        keyring: Keyring,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.surroundings = surroundings or Surroundings()
        self.backend = with_locks(backend, config)
        self.config = config
        self.keyring = keyring
        self.index_folder: Path | None = None
        """Where the index is kept on this host, once it was read; None keeps it in memory."""
        self._index: ChunkIndex | None = None
        self._segments: set[str] = set()
        self._mergeable: dict[str, Table] = {}
        self._damaged: DamagedChunks | None = None

    @property
    def damaged(self) -> DamagedChunks:
        """Chunks that were found damaged and are not to be counted on; read at first use."""
        if self._damaged is None:
            self._damaged = load_damaged(self.backend, self.keyring)
        return self._damaged

    def count_on_all_but(self, damaged: DamagedChunks) -> None:
        """Load the index anew, without these chunks, at its next use."""
        self._damaged = damaged
        self._index = None

    @property
    def lock_keeper(self) -> LockKeeper | None:
        """What keeps objects locked; None where none are."""
        return LockKeeper.of(self.backend, self.keyring, self.config)

    @property
    def chunk_size_max(self) -> int:
        """Bytes of the largest chunk there can be, a map page included."""
        return max(self.config.chunk_size, PAGE_SIZE)

    @property
    def id(self) -> str:
        """The repository's identity: 32 hexadecimal digits."""
        return self.config.id

    @classmethod
    def create(
        cls,
        backend: Backend,
        credential: str | Credential,
        *,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        parity: int = 0,
        like: "Repository | None" = None,
        store: StoreRecord | None = None,
        lock: timedelta | None = None,
    ) -> Self:
        """Make a new repository in an empty store.

        Args:
            backend: the store.
            credential: what opens it; a text is a passphrase.
            chunk_size: bytes; a power of two.
            parity: parity sectors for every hundred sectors of a pack; 0 for none.
            store: what the store was seen to do, to be remembered.
            lock: for how long objects are locked, in a store that was seen to keep locks; None for no locks.
            like: a repository whose chunk size and chunk ids this one shall share, to copy quickly.

        Raises:
            RepositoryExists: the store is not empty.
        """
        refuse_occupied(backend)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        config = RepositoryConfig(
            format=FORMAT_NAME,
            version=FORMAT_VERSION,
            id=secrets.token_hex(16),
            chunk_size=like.config.chunk_size if like else chunk_size,
            created=created,
            parity=parity,
            lock_seconds=int(lock.total_seconds()) if lock else 0,
            features=Features(
                read=(DELTA_FEATURE,),
                write=(LOCK_FEATURE,) if lock else (),
                gc=(STATE_FEATURE, EXTRAS_FEATURE),
            ),
            store=store,
        )
        backend = with_locks(backend, config)
        refuse_without_locks(backend, config)
        unlocked = new_secrets(like.keyring.secrets.id_key if like else None)
        line = msgspec.json.encode(config)
        # The config comes last: without it there is no repository, so a crash leaves none half-made.
        chest = Keychest.create(backend, config.id, unlocked, _credential(credential), created)
        keyring = Keyring(config.id, chest.secrets)
        backend.put(CONFIG, [line, b"\n", keyring.config_mac(line).encode(), b"\n"])
        repository = cls(backend, config, keyring)
        if repository.lock_keeper:
            repository.lock_keeper.write_down()
        return repository

    @classmethod
    def open(cls, backend: Backend, credential: str | Credential) -> Self:
        """Open an existing repository; a text is a passphrase.

        Raises:
            RepositoryNotFound: there is none.
            WrongKey: the credential fits no key slot.
            RepositoryTooNew: this program does not know its format.
            RepositoryDamaged: its config or key slots are not what was written.
        """
        config, chest = open_keys(backend, _credential(credential))
        return cls(backend, config, Keyring(config.id, chest.secrets))

    def points(self, on_damage: OnDamage | None = None) -> list[RestorePoint]:
        """Give all restore points, oldest first.

        Args:
            on_damage: called for each point that cannot be read; without it ``RepositoryDamaged`` is raised.
        """
        return self._load_points(POINTS, on_damage)

    def machine_points(self, machine_id: str, on_damage: OnDamage | None = None) -> list[RestorePoint]:
        """Give one machine's restore points, oldest first; others are not read. As ``points`` else."""
        return self._load_points(self.machine_folder(machine_id), on_damage)

    def machine_folder(self, machine_id: str) -> str:
        """Give what the object names of a machine's points begin with."""
        return f"{POINTS}{self.keyring.machine_folder(machine_id)}/"

    def point_names(self) -> Iterator[str]:
        """Yield the object names of all restore points."""
        return (item.name for item in self.backend.list(POINTS))

    def load_point(self, name: str) -> RestorePoint:
        """Read one restore point by its object name. Raises ``RepositoryDamaged``."""
        return open_point(self.keyring, name, get_record(self.backend, name))

    def forget(self, point: RestorePoint, *, force: bool = False) -> None:
        """Remove a restore point. Its chunks stay until garbage is collected.

        Raises:
            PointKept: it is to be kept, and ``force`` is not set.
            PermissionRefused: the store is append-only or read-only from here.
        """
        check_may_write(self.config, self.backend.url)
        require_removable(self.backend)
        if not force:
            self.refuse_kept(point)
        name = point_name(self.keyring, point)
        if point.session:
            put_forgotten(self.backend, point.session, name, datetime.now(UTC))
        self._delete_point(name)
        release_point(self.backend, point.id)
        forget_tested(self.backend, point.id)

    def refuse_kept(self, point: RestorePoint) -> None:
        """Raise ``PointKept`` for a point that is to be kept."""
        refuse_kept(self.backend, self.keyring, point.id, datetime.now(UTC))

    def forget_by_name(self, name: str) -> None:
        """Remove a restore point that cannot be read, by its object name."""
        check_may_write(self.config, self.backend.url)
        require_removable(self.backend)
        self._delete_point(name)
        forget_tested(self.backend, name.rpartition("/")[2])

    def _delete_point(self, name: str) -> None:
        if self.config.lock_seconds:
            note_forgotten(self.backend, self.keyring, name)
        self.backend.delete(name)

    def index(self) -> ChunkIndex:
        """Give the index of all chunks, loaded at first use. Raises ``RepositoryDamaged``."""
        return self._index or self.load_index()

    def load_index(self) -> ChunkIndex:
        """Load the index as it is now, and use it from now on. Raises ``RepositoryDamaged``."""
        index = ChunkIndex()
        tables = self._read_tables(index)
        index.load_tables([without_damaged(table, self.damaged) for table in tables.values()])
        self._index, self._segments = index, set(tables)
        return index

    def refresh_index(self) -> None:
        """Take in what was published since the index was loaded. Raises ``RepositoryDamaged``."""
        index = self.index()
        tables = self._read_tables(index)
        new = sorted(tables.keys() - self._segments)
        index.extend_tables([without_damaged(tables[name], self.damaged) for name in new])
        self._segments.update(new)

    def forget_index(self) -> None:
        """Have the index loaded again when it is next asked for: it was made anew."""
        self._index = None

    def writer(self) -> RepositoryWriter:
        """Open the way in, with a session of its own; one at a time for each ``Repository``.

        The parent of an increment must be looked for after this: only what is found then is protected.
        """
        check_may_write(self.config, self.backend.url)
        refuse_without_locks(self.backend, self.config)
        require_writable(self.backend)
        session = Session(self.backend, self.keyring, SessionKind.WRITER)
        session.begin()
        try:
            index = self.load_index()
        except BaseException:
            session.end()
            raise
        bases = self.reader() if DELTA_FEATURE in self.config.features.read else None
        return RepositoryWriter(
            self.backend,
            self.keyring,
            index,
            session,
            self.surroundings,
            bases,
            self.config.parity,
            segments=self._mergeable,
            damaged=self.damaged,
            locks=self.lock_keeper,
        )

    def reader(self) -> ChunkReader:
        """Open the way out."""
        return ChunkReader(self.backend, self.keyring, self.index(), self.chunk_size_max, self.refresh_index)

    @property
    def keeps_state(self) -> bool:
        """Whether points may hold state: a collector of an older version would not know of it."""
        return STATE_FEATURE in self.config.features.gc

    @property
    def keeps_extras(self) -> bool:
        """Whether points may hold extras, likewise."""
        return EXTRAS_FEATURE in self.config.features.gc

    def disk(self, disk: PointContent) -> RepositoryDisk:
        """Open one disk, or other content, of a restore point for reading. Raises ``RepositoryDamaged``."""
        reader = self.reader()
        return RepositoryDisk(reader, reader.read, disk.root, disk.size, self.config.chunk_size)

    def require_pages(self, disk_map: DiskMap) -> None:
        """Raise ``RepositoryDamaged`` unless the packs that hold a map's leaf pages are all there."""
        index = self.index()
        positions = index.positions(without_holes(disk_map.leaves))
        if (positions < 0).any():
            raise RepositoryDamaged("A map page is in no index segment")
        bases = index.bases(positions)
        needed = np.concatenate((positions, bases[bases >= 0]))
        for number in set(index.pack_numbers(needed).tolist()):
            pack = index.packs[number]
            require_pack(self.backend, pack, whole=pack.digest not in self.damaged)

    def misses_chunks(self, disk_map: DiskMap) -> bool:
        """Tell whether chunks of a map were found damaged: then an increment must not inherit them.

        Only looks when damage is known, as it reads every page.
        """
        if not self.damaged:
            return False
        index = self.index()
        pages = (disk_map.leaf(number) for number in range(len(disk_map.leaves) // CHUNK_ID_SIZE))
        return any((index.positions(without_holes(page)) < 0).any() for page in pages)

    def statistics(self) -> Statistics:
        """Count what the repository holds; points that cannot be read are not counted."""
        points = [one for one in self.points(lambda _name, _error: None) if not one.is_self_backup]
        objects = list(self.backend.list(""))
        return Statistics(
            points=len(points),
            machines=len({point.machine_id for point in points}),
            packs=sum(item.name.startswith((DATA + "/", META + "/")) for item in objects),
            chunks=len(self.index()),
            stored_bytes=sum(item.size for item in objects),
            disk_bytes=sum(disk.size for point in points for disk in point.disks),
        )

    def close(self) -> None:
        """Let go of the store; a second call does nothing."""
        self.backend.close()

    def _load_points(self, prefix: str, on_damage: OnDamage | None) -> list[RestorePoint]:
        found = {}
        for item in self.backend.list(prefix):
            try:
                found[item.name] = self.load_point(item.name)
            except ObjectNotFound:
                continue  # forgotten since it was listed
            except RepositoryDamaged as error:
                if on_damage is None:
                    raise
                on_damage(item.name, error)
        expulsions = read_expulsions(self.backend, self.keyring)
        counting = [point for name, point in found.items() if expulsions.counts(name, point.session)]
        return sorted(counting, key=order_of_points)

    def _read_tables(self, index: ChunkIndex) -> dict[str, Table]:
        """Read ``gc/`` and then the segments; tell the index what is not to be counted on."""
        state = read_garbage_state(self.backend, self.keyring)
        expelled = state.expulsions.expelled
        source = SegmentSource(self.backend, self.keyring, self.index_folder)
        listing = source.listing(expelled)
        trusted, doubtful = set[str](), set[str]()
        for one in listing.in_force.values():
            names = doubtful if one.session in expelled else trusted
            names.update(pack.name for pack in one.table.packs)
        doubtful = (doubtful - trusted) | state.condemned_packs
        index.avoid(doubtful)
        # A merge must neither vouch for what nobody has checked, nor bring back rows that a collector drops.
        self._mergeable = {
            name: table
            for name, table in listing.trusted(expelled).items()
            if doubtful.isdisjoint(pack.name for pack in table.packs)
        }
        return {name: one.table for name, one in listing.in_force.items()}


def _credential(given: str | Credential) -> Credential:
    return Passphrase(given) if isinstance(given, str) else given
