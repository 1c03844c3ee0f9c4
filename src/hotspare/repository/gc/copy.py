"""Moving needed chunks out of condemned packs, as they are: sealed again, never recompressed."""

from collections.abc import Callable, Iterable

import numpy as np
from cryptography.exceptions import InvalidTag

from hotspare.errors import ObjectNotFound, RepositoryDamaged
from hotspare.repository.gc.mark import Marks
from hotspare.repository.index import ChunkIndex, Location, PackRecord
from hotspare.repository.index.table import Table
from hotspare.repository.keys import Keyring
from hotspare.repository.pack import (
    FOOT,
    Entry,
    PackBuilder,
    open_entry,
    open_table,
    pack_cipher,
    table_place,
)
from hotspare.repository.parity import build_parity, parity_name
from hotspare.repository.reader import PackGone, group_neighbours
from hotspare.storage.backend import Backend


class Mover:
    """Copies chunks into fresh packs and lists them in a segment."""

    def __init__(self, backend: Backend, keyring: Keyring, pack_target: int, parity: int) -> None:
        self.bytes_copied = 0
        self._backend = backend
        self._keyring = keyring
        self._pack_target = pack_target
        self._parity = parity
        self._builders: dict[str, PackBuilder] = {}
        self._stored = ChunkIndex()

    def move(
        self, index: ChunkIndex, marks: Marks, condemned: frozenset[str], check: Callable[[], None]
    ) -> None:
        """Copy everything needed whose only packs are condemned.

        Raises:
            PackGone: such a pack is not there any more.
            RepositoryDamaged: a chunk is not what was written.
        """
        numbers = np.unique(index.pack_numbers(marks.places))
        for number in numbers.tolist():
            record = index.packs[number]
            if record.name in condemned:
                check()
                self._move_from(record, self._needed_in(index, marks, number, record))

    def finish(self) -> Table | None:
        """Store what is left and give the rows of all that was copied, or None."""
        for kind in list(self._builders):
            self._ship(kind)
        segment = self._stored.unpublished()
        return None if segment is None else Table.of(segment)

    def _needed_in(self, index: ChunkIndex, marks: Marks, number: int, record: PackRecord) -> list[Entry]:
        places = marks.places
        places = places[index.pack_numbers(places) == number]
        offsets = set(index.offsets(places).tolist())
        return [entry for entry in self._read_table(record) if entry.offset in offsets]

    def _read_table(self, record: PackRecord) -> list[Entry]:
        foot = self._read(record, record.size - FOOT.size, FOOT.size)
        start, length = table_place(foot, record.size, record.name)
        table = self._read(record, start, length)
        return list(open_table(self._keyring, record.name, record.epoch, record.seed, start, table))

    def _move_from(self, record: PackRecord, entries: Iterable[Entry]) -> None:
        cipher = pack_cipher(self._keyring, record.epoch, record.seed)
        wanted = [(0, Location(record, entry)) for entry in sorted(entries, key=lambda one: one.offset)]
        for group in group_neighbours(wanted):
            start, last = group[0][1].entry.offset, group[-1][1].entry
            data = memoryview(self._read(record, start, last.offset + last.length - start))
            for _, (_, entry) in group:
                sealed = data[entry.offset - start : entry.offset - start + entry.length]
                try:
                    payload = open_entry(cipher, self._keyring, entry, sealed)
                except InvalidTag as error:
                    raise RepositoryDamaged(
                        f"Pack {record.name} has a damaged chunk at byte {entry.offset}",
                        meaning="No garbage was deleted",
                        hint="Run 'hotspare verify' to see which restore points are affected",
                    ) from error
                self._add(record.kind, entry, payload)

    def _add(self, kind: str, entry: Entry, payload: bytes) -> None:
        builder = self._builders.get(kind)
        if builder is None:
            builder = self._builders[kind] = PackBuilder(self._keyring, kind, self._pack_target)
        self.bytes_copied += builder.add(entry.id, entry.codec, payload, entry.base)
        if builder.full:
            self._ship(kind)

    def _ship(self, kind: str) -> None:
        builder = self._builders.pop(kind)
        pack = builder.finish()
        with builder.data as data:
            self._backend.put(pack.name, [data])
            if self._parity:
                self._backend.put(parity_name(pack.name), build_parity(data, pack.digest, self._parity))
        self._stored.note(pack)

    def _read(self, record: PackRecord, offset: int, length: int) -> bytes:
        try:
            return self._backend.get_range(record.name, offset, length)
        except ObjectNotFound as error:
            raise PackGone(record) from error
