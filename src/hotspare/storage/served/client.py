"""The end that has the repository open: a store like others; a connection that was lost is made anew."""

import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Self

from blake3 import blake3
from typing_extensions import Buffer

from hotspare.errors import ObjectNotFound
from hotspare.storage.backend import Capabilities, Durability, ObjectInfo, Space
from hotspare.storage.served.connection import Call, ServedConnection
from hotspare.storage.served.protocol import SPACE, AskSpace, Delete, Get, List, Put, Request, Size
from hotspare.storage.served.ssh import parse_ssh_url, remote_command
from hotspare.storage.served.transport import ProgramTransport, Transport

_PATIENCE = 120.0
"""Seconds that a call may take beside the transfer of its bytes."""
_SLOWEST = 50_000
"""Bytes per second below which a transfer is given up."""
_LIST_PATIENCE = 3600.0
_UNDER_WAY_MAX = 32
"""Half of what the server takes at once."""
_REMEMBERED = 100
"""Contents of an object of one's own that may be there, as many puts of it as may fail in a row."""


class ServedBackend:
    """A store in a folder that ``hotspare repo serve`` serves."""

    def __init__(self, url: str, open_transport: Callable[[], Transport], folder: str) -> None:
        """Connect at the first call.

        Args:
            url: for messages.
            open_transport: gives a way to the server.
            folder: what to ask it for.
        """
        self.url = url
        self._open_transport = open_transport
        self._folder = folder
        self._connecting = threading.Lock()
        self._connection: ServedConnection | None = None
        self._under_way = threading.BoundedSemaphore(_UNDER_WAY_MAX)
        self._written: defaultdict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        """Digests of what was last put as objects of our own: the server wants to hear one of them."""

    @classmethod
    def at(cls, url: str, environment: Mapping[str, str] = os.environ) -> Self:
        """Open the store of an ``ssh://`` URL. Raises ``UsageError``, ``ConfigError``."""
        host, folder = parse_ssh_url(url)
        return cls.over(url, remote_command(host, ["repo", "serve", "--", folder], environment), folder)

    @classmethod
    def over(cls, url: str, command: Sequence[str], folder: str) -> Self:
        """Open the store that a program serves over its standard input and output."""
        return cls(url, lambda: ProgramTransport(url, command), folder)

    @property
    def durability(self) -> Durability:
        """See ``Backend.durability``; connects to ask the server."""
        return self._connected().welcome.durability

    @property
    def capabilities(self) -> Capabilities:
        """See ``Backend.capabilities``; connects to ask the server."""
        welcome = self._connected().welcome
        return Capabilities(access=welcome.access, space=self._space if SPACE in welcome.offers else None)

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """See ``Backend.put``; an append-only server refuses to replace, but not the same bytes again."""
        connection = self._connected()
        views = [memoryview(part).cast("B") for part in parts]
        size = sum(map(len, views))
        if not self._is_own(connection, name):
            self._ask(connection, Put(connection.next_id(), name, size), size, views)
            return
        written = self._written[name]
        known = tuple(written)
        digest = blake3(b"".join(views)).digest()
        if digest not in written:
            written.append(digest)
        self._ask(connection, Put(connection.next_id(), name, size, known), size, views)
        # Only now it is sure which of them is there.
        self._written[name] = deque([digest], maxlen=_REMEMBERED)

    def get(self, name: str) -> bytes:
        """See ``Backend.get``."""
        connection = self._connected()
        call = self._ask(connection, Get(connection.next_id(), name, 0, None), size=1 << 30)
        return b"".join(call.pieces)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ``Backend.get_range``."""
        connection = self._connected()
        pieces = self._ask(connection, Get(connection.next_id(), name, offset, length), length).pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def size(self, name: str) -> int:
        """See ``Backend.size``."""
        connection = self._connected()
        return self._ask(connection, Size(connection.next_id(), name)).value

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``Backend.list``; the whole listing is held in memory."""
        connection = self._connected()
        size = int(_LIST_PATIENCE * _SLOWEST)
        return iter(self._ask(connection, List(connection.next_id(), prefix), size).objects)

    def delete(self, name: str) -> None:
        """See ``Backend.delete``."""
        connection = self._connected()
        known = tuple(self._written[name]) if self._is_own(connection, name) else ()
        with suppress(ObjectNotFound):
            self._ask(connection, Delete(connection.next_id(), name, known))
        self._written.pop(name, None)

    def close(self) -> None:
        """See ``Backend.close``."""
        with self._connecting:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _space(self) -> Space | None:
        connection = self._connected()
        if SPACE not in connection.welcome.offers:
            return None  # another server answers since it was asked what it offers
        return self._ask(connection, AskSpace(connection.next_id())).space

    def _connected(self) -> ServedConnection:
        with self._connecting:
            if self._connection is not None and self._connection.is_lost:
                self._connection.close()
                self._connection = None
            if self._connection is None:
                self._connection = ServedConnection(self.url, self._open_transport(), self._folder)
            return self._connection

    def _ask(
        self, connection: ServedConnection, request: Request, size: int = 0, parts: Sequence[memoryview] = ()
    ) -> Call:
        with self._under_way:
            return connection.ask(request, parts, timeout=_PATIENCE + size / _SLOWEST)

    @staticmethod
    def _is_own(connection: ServedConnection, name: str) -> bool:
        prefix = connection.welcome.own_prefix
        return bool(prefix) and name.startswith(prefix)
