"""The map of a disk: which chunk lies where, as a tree of pages that restore points share.

A page lists up to 2048 chunk ids and is stored as a chunk itself; the ids of pages are listed by pages
above, up to one root. A page (or chunk) of nothing but zeroes has the reserved id ``HOLE``. An
increment keeps every page that it does not touch, so each restore point is whole and costs only
what changed.
"""

from collections.abc import Callable, Iterator

from hotspare.errors import RepositoryDamaged
from hotspare.repository.format import CHUNK_ID_SIZE, HOLE, PAGE_IDS

PAGE_SIZE = PAGE_IDS * CHUNK_ID_SIZE

LoadPage = Callable[[bytes], bytes]
"""Gives the plaintext of a stored page by its id. Raises ``RepositoryDamaged``."""
StorePage = Callable[[bytes, bytes], bytes]
"""Stores a page and gives its id; the second argument is the id of the page that it replaces, or ``HOLE``."""


def chunk_count(disk_size: int, chunk_size: int) -> int:
    """Give how many chunks a disk has; the last one may be short."""
    return -(-disk_size // chunk_size)


def level_widths(chunks: int) -> list[int]:
    """Give how many pages each level of a map has, the leaves first, the root last."""
    widths = [-(-chunks // PAGE_IDS)]
    while widths[-1] > 1:
        widths.append(-(-widths[-1] // PAGE_IDS))
    return widths


def ids_in_page(number: int, below: int) -> int:
    """Give how many ids page ``number`` of a level lists, where the level below has ``below`` of them."""
    return min(PAGE_IDS, below - number * PAGE_IDS)


def first_in_page(number: int) -> int:
    """Give which id of its level page ``number`` begins with."""
    return number * PAGE_IDS


class DiskMap:
    """A stored map, read page by page."""

    def __init__(self, load_page: LoadPage, root: bytes, chunks: int) -> None:
        self.chunks = chunks
        self.root = root
        self._load_page = load_page
        self._leaves = _list_leaves(load_page, root, chunks)
        self._at = -1
        self._page = b""

    @property
    def leaves(self) -> bytes:
        """The concatenated ids of the leaf pages."""
        return self._leaves

    def leaf_is_hole(self, number: int) -> bool:
        """Whether all chunks of a leaf page read as zeroes."""
        return self.leaf_id(number) == HOLE

    def leaf_id(self, number: int) -> bytes:
        """Give the id of a leaf page."""
        return self._leaves[number * CHUNK_ID_SIZE : (number + 1) * CHUNK_ID_SIZE]

    def leaf(self, number: int) -> bytes:
        """Give the chunk ids of leaf page ``number``, concatenated."""
        if number != self._at:
            count = min(PAGE_IDS, self.chunks - number * PAGE_IDS)
            self._page = _load(self._load_page, self.leaf_id(number), count)
            self._at = number
        return self._page

    def __getitem__(self, chunk: int) -> bytes:
        """Give the id of one chunk, counted from the start of the disk."""
        page, at = divmod(chunk, PAGE_IDS)
        if self.leaf_is_hole(page):
            return HOLE
        return self.leaf(page)[at * CHUNK_ID_SIZE : (at + 1) * CHUNK_ID_SIZE]

    def missing_page(self, chunk: int) -> bytes | None:
        """Give the id of the page that has to be loaded for a chunk's id; None when that is at hand."""
        page = chunk // PAGE_IDS
        return None if page == self._at or self.leaf_is_hole(page) else self.leaf_id(page)

    def runs(self, first: int, count: int) -> Iterator[tuple[int, int, bool]]:
        """Yield (first chunk, chunks, is hole) over a range, neighbours of one kind merged per page."""
        chunk, end = first, first + count
        while chunk < end:
            page, at = divmod(chunk, PAGE_IDS)
            stop = min(end, (page + 1) * PAGE_IDS)
            if self.leaf_is_hole(page):
                yield chunk, stop - chunk, True
            else:
                yield from _runs_in_page(self.leaf(page), at, chunk, stop)
            chunk = stop


class DiskMapBuilder:
    """A new map, written from the start of the disk to its end; what is skipped comes from the parent's map.

    Without a parent, what is skipped is a hole.
    """

    def __init__(self, store_page: StorePage, chunks: int, parent: DiskMap | None = None) -> None:
        if parent is not None and parent.chunks != chunks:
            raise ValueError("a parent map must be of a disk of the same size")
        self._store_page = store_page
        self._chunks = chunks
        self._parent = parent
        leaf_count = -(-chunks // PAGE_IDS)
        self._leaves = bytearray(parent.leaves if parent else bytes(leaf_count * CHUNK_ID_SIZE))
        self._number = -1
        self._page = bytearray()

    def set(self, chunk: int, chunk_id: bytes) -> None:
        """Put one chunk; chunks must come in rising order."""
        self._open_page(chunk // PAGE_IDS)
        at = chunk % PAGE_IDS * CHUNK_ID_SIZE
        self._page[at : at + CHUNK_ID_SIZE] = chunk_id

    def set_holes(self, first: int, count: int) -> None:
        """Make a run of chunks read as zeroes."""
        chunk, end = first, first + count
        while chunk < end:
            number, at = divmod(chunk, PAGE_IDS)
            stop = min(end, (number + 1) * PAGE_IDS)
            whole = at == 0 and stop == min(self._chunks, (number + 1) * PAGE_IDS)
            if whole:
                self._close_page()
                self._leaves[number * CHUNK_ID_SIZE : (number + 1) * CHUNK_ID_SIZE] = HOLE
            else:
                self._open_page(number)
                self._page[at * CHUNK_ID_SIZE : (at + stop - chunk) * CHUNK_ID_SIZE] = bytes(
                    (stop - chunk) * CHUNK_ID_SIZE
                )
            chunk = stop

    def finish(self) -> bytes:
        """Store what is left and give the id of the root page."""
        self._close_page()
        level = bytes(self._leaves)
        while len(level) > CHUNK_ID_SIZE:
            # Of the levels above the leaves, a parent map knows the root only.
            parent_id = self._parent.root if self._parent and len(level) <= PAGE_SIZE else HOLE
            level = b"".join(
                self._store(level[start : start + PAGE_SIZE], parent_id)
                for start in range(0, len(level), PAGE_SIZE)
            )
        return level

    def _open_page(self, number: int) -> None:
        if number == self._number:
            return
        if number < self._number:
            raise ValueError("chunks must come in rising order")
        self._close_page()
        self._number = number
        count = min(PAGE_IDS, self._chunks - number * PAGE_IDS)
        if self._parent is not None and not self._parent.leaf_is_hole(number):
            self._page = bytearray(self._parent.leaf(number))
        else:
            self._page = bytearray(count * CHUNK_ID_SIZE)

    def _close_page(self) -> None:
        if self._page:
            start = self._number * CHUNK_ID_SIZE
            parent_id = self._parent.leaf_id(self._number) if self._parent else HOLE
            self._leaves[start : start + CHUNK_ID_SIZE] = self._store(bytes(self._page), parent_id)
            self._page = bytearray()

    def _store(self, page: bytes, parent_id: bytes) -> bytes:
        return HOLE if page == bytes(len(page)) else self._store_page(page, parent_id)


def without_holes(page: bytes) -> bytes:
    """Give the ids of a page that are not ``HOLE``, concatenated."""
    return b"".join(one for one in split_ids(page) if one != HOLE)


def split_ids(page: bytes) -> list[bytes]:
    """Give the ids of a page one by one."""
    return [page[at : at + CHUNK_ID_SIZE] for at in range(0, len(page), CHUNK_ID_SIZE)]


def _list_leaves(load_page: LoadPage, root: bytes, chunks: int) -> bytes:
    """Walk down from the root to the ids of the leaf pages."""
    widths = level_widths(chunks)
    level = root
    for width in reversed(widths[:-1]):
        pages = []
        for number in range(len(level) // CHUNK_ID_SIZE):
            count = min(PAGE_IDS, width - number * PAGE_IDS)
            pages.append(
                _load(load_page, level[number * CHUNK_ID_SIZE : (number + 1) * CHUNK_ID_SIZE], count)
            )
        level = b"".join(pages)
    return level


def _load(load_page: LoadPage, page_id: bytes, count: int) -> bytes:
    if page_id == HOLE:
        return bytes(count * CHUNK_ID_SIZE)
    page = load_page(page_id)
    if len(page) != count * CHUNK_ID_SIZE:
        raise RepositoryDamaged(f"A map page has {len(page)} bytes where {count * CHUNK_ID_SIZE} belong")
    return page


def _runs_in_page(page: bytes, at: int, chunk: int, stop: int) -> Iterator[tuple[int, int, bool]]:
    start = chunk
    kind = page[at * CHUNK_ID_SIZE : (at + 1) * CHUNK_ID_SIZE] == HOLE
    for following in range(chunk + 1, stop):
        at += 1
        hole = page[at * CHUNK_ID_SIZE : (at + 1) * CHUNK_ID_SIZE] == HOLE
        if hole != kind:
            yield start, following - start, kind
            start, kind = following, hole
    yield start, stop - start, kind
