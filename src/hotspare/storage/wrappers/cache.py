"""Keeps copies of small immutable objects on a local disk: packs of metadata, index segments, restore points.

Listings and everything else always come from the store, so what is deleted is seen to be gone by whoever
lists first, as the repository does. A check of the store's health must not read through a cache.

A copy is a file of ``magic, BLAKE3-256 of the object, object`` in a private folder. It is checked when this
process reads it first; one that is damaged or torn is removed and fetched again. Several processes may
share the folder: files appear whole, by rename, and one that another process evicts is only a miss.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3
from typing_extensions import Buffer

from hotspare.errors import StorageError
from hotspare.storage.backend import Backend, ObjectLocks
from hotspare.storage.registry import is_remote
from hotspare.storage.temporaries import is_stale, is_temporary, new_temporary_name
from hotspare.storage.wrappers.forwarding import ForwardingBackend, ForwardingLocks
from hotspare.units import GIB

_IMMUTABLE = ("index/", "meta/", "points/")
_NAMED_BY_HASH = re.compile(r"(?:index|meta)/(?:.*/)?([0-9a-f]{64})")
_MAGIC = b"HSCACHE1"
_HEADER = len(_MAGIC) + 32
_HOST_LIMIT = 2 * GIB
_LOOK_AGAIN = 16
"""The folder is looked through each time that this part of the limit was added, for what others added."""


class _Identity(NamedTuple):
    """What changes when a file is replaced or cut off."""

    inode: int
    size: int


class CachedBackend(ForwardingBackend):
    """Reads what it has from a folder, the rest from the inner store.

    Args:
        inner: the store.
        folder: belongs to this cache and this store alone; made, with mode 0700, when it is missing.
        limit: bytes that the folder may hold; the copies unused for longest give way.
    """

    def __init__(self, inner: Backend, folder: Path, *, limit: int) -> None:
        super().__init__(inner)
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        self._total: int | None = None
        self._added = 0
        self._checked: dict[str, _Identity] = {}

    def wrap_locks(self, locks: ObjectLocks) -> ObjectLocks:
        """See ``ForwardingBackend.wrap_locks``."""
        return _CachedLocks(locks, self._forget, self._keep)

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """See ``Backend.put``; the object is likely to be read soon, so a copy is kept."""
        if not name.startswith(_IMMUTABLE):
            super().put(name, parts)
            return
        self._forget(name)
        super().put(name, parts)
        self._keep(name, b"".join(bytes(part) for part in parts))

    def get(self, name: str) -> bytes:
        """See ``Backend.get``."""
        if not name.startswith(_IMMUTABLE):
            return super().get(name)
        found = self._read(name, 0, None)
        if found is None:
            found = super().get(name)
            self._keep(name, found)
        return found

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ``Backend.get_range``; the first range fetches the whole object."""
        if not name.startswith(_IMMUTABLE):
            return super().get_range(name, offset, length)
        data = self._read(name, offset, length)
        if data is None:
            whole = super().get(name)
            self._keep(name, whole)
            data = whole[offset : offset + length]
        if len(data) != length:
            raise StorageError(f"{name} in {self.url} ends before byte {offset + length}")
        return data

    def delete(self, name: str) -> None:
        """See ``Backend.delete``."""
        super().delete(name)
        if name.startswith(_IMMUTABLE):
            self._forget(name)

    def _path(self, name: str) -> Path:
        # Hashed, so that no name is too long for a file and all lie in one folder.
        return self._folder / hashlib.sha256(name.encode()).hexdigest()

    def _read(self, name: str, offset: int, length: int | None) -> bytes | None:
        """Give bytes of the copy; None when there is none that is whole."""
        path = self._path(name)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            if not self._is_whole(name, file):
                self._forget(name)
                return None
            size = os.fstat(file).st_size - _HEADER
            wanted = max(0, min(size - offset, size if length is None else length))
            data = os.pread(file, wanted, _HEADER + offset)
            os.utime(file)
        except OSError:
            return None
        finally:
            os.close(file)
        return data if len(data) == wanted else None

    def _is_whole(self, name: str, file: int) -> bool:
        status = os.fstat(file)
        if status.st_uid != os.geteuid():
            return False
        identity = _Identity(status.st_ino, status.st_size)
        with self._lock:
            if self._checked.get(name) == identity:
                return True
        content = os.pread(file, status.st_size, 0)
        digest = blake3(content[_HEADER:]).digest()
        whole = content[:_HEADER] == _MAGIC + digest and _is_named_right(name, digest)
        if whole:
            with self._lock:
                self._checked[name] = identity
        return whole

    def _keep(self, name: str, data: bytes) -> None:
        size = _HEADER + len(data)
        digest = blake3(data).digest()
        if size > self._limit or not _is_named_right(name, digest):
            return
        # A cache that cannot be written, or is full, must not fail what it should make faster.
        with suppress(OSError):
            self._make_room(size)
            temporary = self._folder / new_temporary_name()
            try:
                file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
                with os.fdopen(file, "wb") as stream:
                    stream.write(_MAGIC + digest)
                    stream.write(data)
                temporary.rename(self._path(name))
            finally:
                temporary.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        with self._lock:
            self._added += size
            if (
                self._total is None
                or self._added > self._limit // _LOOK_AGAIN
                or self._total + size > self._limit
            ):
                self._total = self._evict(self._limit - size)
                self._added = size
            self._total += size

    def _evict(self, limit: int) -> int:
        """Remove the copies unused for longest, so that at most ``limit`` bytes stay; give what stays."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        now = time.time()
        found = []
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if is_stale(entry.name, modified=status.st_mtime, now=now):
                    Path(entry).unlink()
                else:
                    found.append((status.st_mtime_ns, status.st_size, Path(entry)))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit:
                break
            if not is_temporary(path.name):
                path.unlink(missing_ok=True)
                total -= size
        return total

    def _forget(self, name: str) -> None:
        with self._lock:
            self._checked.pop(name, None)
        with suppress(OSError):
            self._path(name).unlink()


def with_host_cache(backend: Backend, state_folder: Path) -> Backend:
    """Keep what a remote store has of small immutable objects on this host as well, for all commands."""
    if not is_remote(backend.url):
        return backend
    folder = state_folder / "cache" / blake3(backend.url.encode()).hexdigest(8)
    return CachedBackend(backend, folder, limit=_HOST_LIMIT)


class _CachedLocks(ForwardingLocks):
    """Keeps copies of what is stored locked; an older version is always read from the store."""

    def __init__(
        self, inner: ObjectLocks, forget: Callable[[str], None], keep: Callable[[str, bytes], None]
    ) -> None:
        super().__init__(inner)
        self._forget = forget
        self._keep = keep

    def put_locked(self, name: str, parts: Sequence[Buffer], until: datetime) -> str:
        if not name.startswith(_IMMUTABLE):
            return super().put_locked(name, parts, until)
        self._forget(name)
        version = super().put_locked(name, parts, until)
        self._keep(name, b"".join(bytes(part) for part in parts))
        return version

    def delete_version(self, name: str, version: str) -> None:
        super().delete_version(name, version)
        self._forget(name)


def _is_named_right(name: str, digest: bytes) -> bool:
    match = _NAMED_BY_HASH.fullmatch(name)
    return match is None or match[1] == digest.hex()
