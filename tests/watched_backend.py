"""A store that tells a test of each object before it is put, so that the test may fail it."""

from collections.abc import Callable, Iterator, Sequence

from typing_extensions import Buffer

from hotspare.storage.backend import Backend, ObjectInfo


class WatchedBackend:
    """Hands every call on; ``before_put`` is called with the object's name first."""

    def __init__(self, inner: Backend) -> None:
        self.url = inner.url
        self.durability = inner.durability
        self.capabilities = inner.capabilities
        self.before_put: Callable[[str], None] = lambda _name: None
        self._inner = inner

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        self.before_put(name)
        self._inner.put(name, parts)

    def get(self, name: str) -> bytes:
        return self._inner.get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._inner.get_range(name, offset, length)

    def size(self, name: str) -> int:
        return self._inner.size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._inner.list(prefix)

    def delete(self, name: str) -> None:
        self._inner.delete(name)

    def close(self) -> None:
        self._inner.close()
