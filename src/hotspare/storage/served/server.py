"""The end that has the folder: answers one client, over a pair of file descriptors, until it hangs up.

Memory is bounded by what is under way at once: the pieces of an object are written as they arrive and read
as they are sent. Whoever is killed here leaves what ``LocalBackend`` leaves: whole objects.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from traceback import print_exc

from blake3 import blake3
from typing_extensions import Buffer

from hotspare import __version__
from hotspare.errors import HotspareError, ObjectNotFound, PermissionRefused, StorageError
from hotspare.storage.local import Incoming, LocalBackend
from hotspare.storage.served.access import AccessRules, Change, is_object_name, is_prefix
from hotspare.storage.served.frames import Frame, ProtocolError, encode_head
from hotspare.storage.served.protocol import (
    LISTED_MAX,
    MAGIC,
    PIECE_MAX,
    SPACE,
    VERSION,
    AskSpace,
    Delete,
    Done,
    Get,
    Hello,
    List,
    Listed,
    Message,
    Piece,
    Put,
    Sending,
    Size,
    SpaceLeft,
    Welcome,
    encode_listing,
    failure,
    frame_decoder,
)

_WORKERS = 8
_UNDER_WAY_MAX = 64
"""Requests that wait for a worker, and, apart from them, objects that are being received."""
_READ_SIZE = 256 * 1024


def serve_folder(folder: Path, rules: AccessRules, source: int, sink: int) -> None:
    """Answer one client until it hangs up.

    Args:
        folder: holds the objects; nothing outside of it is touched.
        rules: what the client may do.
        source: file descriptor that its requests come from.
        sink: file descriptor that the answers go to.

    Raises:
        StorageError: what came is not of the protocol.
    """
    try:
        _Server(folder, rules, _Sink(sink)).answer_all(_frames(source))
    except ProtocolError as error:
        raise StorageError(
            f"The client does not keep to the protocol: {error}",
            meaning="Its connection was ended; what it was about to store is not stored",
            hint="This command is started by a client, over SSH; see docs/storage.md",
        ) from error


def _frames(source: int) -> Iterator[Frame[Message]]:
    decoder = frame_decoder()
    while data := os.read(source, _READ_SIZE):
        yield from decoder.feed(data)


class _Sink:
    """Where answers go. Thread-safe; once the client is gone, they go nowhere."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self.broken = False
        self._write(MAGIC)

    def send(self, message: Message, body: Buffer = b"") -> None:
        with self._lock:
            self._write(encode_head(message, memoryview(body).nbytes))
            self._write(body)

    def _write(self, data: Buffer) -> None:
        view = memoryview(data)
        try:
            while view and not self.broken:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            self.broken = True


class _Upload:
    """An object that is being received."""

    def __init__(self, put: Put) -> None:
        self.put = put
        self.left = put.size
        self.hash = blake3()
        self.incoming: Incoming | None = None
        """None once it was refused: what still comes is dropped."""

    def take(self, data: bytes) -> None:
        if len(data) > self.left or not data:
            raise ProtocolError("pieces that do not add up to the object")
        self.left -= len(data)
        if self.incoming is not None:
            self.hash.update(data)
            self.incoming.write(data)

    def drop(self) -> None:
        if self.incoming is not None:
            self.incoming.close()
            self.incoming = None


class _Server:
    """The state of one connection."""

    def __init__(self, folder: Path, rules: AccessRules, sink: _Sink) -> None:
        self._folder = folder
        self._rules = rules
        self._sink = sink
        self._store = LocalBackend(folder)
        self._uploads: dict[int, _Upload] = {}
        self._slots = threading.BoundedSemaphore(_UNDER_WAY_MAX)
        self._own_lock = threading.Lock()

    def answer_all(self, frames: Iterator[Frame[Message]]) -> None:
        first = next(frames, None)
        if first is None or not self._let_in(first.message):
            return
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="serve") as workers:
            try:
                for frame in frames:
                    if self._sink.broken:
                        break
                    self._take(frame, workers)
            finally:
                for upload in self._uploads.values():
                    upload.drop()

    def _let_in(self, message: Message) -> bool:
        if not isinstance(message, Hello):
            raise ProtocolError("the first message is no greeting")
        error = self._why_not(message)
        if error is not None:
            self._sink.send(failure(0, error))
            return False
        rules = self._rules
        durability = self._store.durability
        self._sink.send(
            Welcome(VERSION, __version__, rules.access, durability, rules.own_prefix, offers=(SPACE,))
        )
        return True

    def _why_not(self, hello: Hello) -> HotspareError | None:
        if hello.version != VERSION:
            return StorageError(
                f"The server has Hotspare {__version__}, which speaks version {VERSION} of the protocol;"
                f" this is Hotspare {hello.program}, which speaks version {hello.version}",
                meaning="Nothing was read or written",
                hint="Install the same version of Hotspare on both hosts",
            )
        if resolved(hello.folder) != self._folder:
            return PermissionRefused(
                f"This key leads to the folder {self._folder}, and not to {hello.folder}",
                meaning="Nothing was read or written",
                hint="Write that folder into the URL, or mend the command in the server's authorized_keys",
            )
        return None

    def _take(self, frame: Frame[Message], workers: ThreadPoolExecutor) -> None:
        message = frame.message
        match message:
            case Put():
                self._begin(message)
                upload = self._uploads[message.id]
            case Piece():
                upload = self._uploads.get(message.id) or _Upload(Put(0, "", 0))
                self._guarded(message.id, lambda: upload.take(frame.body), upload)
            case Get() | Size() | List() | Delete() | AskSpace():
                self._submit(workers, message.id, lambda: self._answer(message))
                return
            case _:
                raise ProtocolError("a message that only a server sends")
        if upload.left == 0:
            del self._uploads[message.id]
            if upload.incoming is not None:
                self._submit(workers, message.id, lambda: self._finish(upload))

    def _begin(self, put: Put) -> None:
        if put.id in self._uploads or put.size < 0 or len(self._uploads) >= _UNDER_WAY_MAX:
            raise ProtocolError("a put that cannot be")
        upload = self._uploads[put.id] = _Upload(put)

        def receive() -> None:
            if self._change_of(put.name) is Change.NONE:
                raise self._refused(f"{put.name} cannot be stored")
            upload.incoming = self._store.receive(put.name)

        self._guarded(put.id, receive, upload)

    def _submit(self, workers: ThreadPoolExecutor, request: int, work: Callable[[], None]) -> None:
        self._slots.acquire()

        def run() -> None:
            try:
                self._guarded(request, work)
            finally:
                self._slots.release()

        workers.submit(run)

    def _guarded(self, request: int, work: Callable[[], None], upload: _Upload | None = None) -> None:
        """Do something and, when it fails, say so to the client."""
        answer: HotspareError
        try:
            work()
        except ProtocolError:
            raise
        except HotspareError as error:
            answer = error
        except Exception as error:  # noqa: BLE001 - one request that fails must not end all others
            print_exc(file=sys.stderr)
            answer = StorageError(f"The server failed: {type(error).__name__}", hint="See its log")
        else:
            return
        if upload is not None:
            upload.drop()
        self._sink.send(failure(request, answer))

    def _answer(self, message: Get | Size | List | Delete | AskSpace) -> None:
        if isinstance(message, List):
            self._list(message)
            return
        if isinstance(message, AskSpace):
            self._sink.send(SpaceLeft(message.id, *self._store.space()))
            return
        change = self._change_of(message.name)
        match message:
            case Get():
                if change is Change.OWN:
                    raise self._refused(f"{message.name} cannot be read")
                self._get(message)
            case Size():
                self._sink.send(Done(message.id, self._store.size(message.name)))
            case Delete():
                if change is Change.OWN:
                    with self._own_lock:
                        self._require_known(message.name, message.known, None)
                        self._store.delete(message.name)
                elif change is Change.ANY:
                    self._store.delete(message.name)
                else:
                    raise self._refused(f"{message.name} cannot be removed")
                self._sink.send(Done(message.id))

    def _get(self, get: Get) -> None:
        if get.offset < 0 or (get.length or 0) < 0:
            raise StorageError("A range cannot begin before its object")
        with self._store.opened(get.name) as file:
            size = os.fstat(file.fileno()).st_size
            end = size if get.length is None else get.offset + get.length
            if end > size:
                raise StorageError(f"{get.name} in {self._store.url} ends before byte {end}")
            self._sink.send(Sending(get.id, max(0, end - get.offset)))
            at = get.offset
            while at < end:
                data = os.pread(file.fileno(), min(PIECE_MAX, end - at), at)
                if not data:
                    raise StorageError(f"{get.name} in {self._store.url} became shorter as it was read")
                self._sink.send(Piece(get.id), data)
                at += len(data)
        self._sink.send(Done(get.id))

    def _list(self, message: List) -> None:
        if not is_prefix(message.prefix):
            raise StorageError("There can be no objects whose names begin so")
        found = self._store.list(message.prefix)
        while batch := list(islice(found, LISTED_MAX)):
            self._sink.send(Listed(message.id), encode_listing(batch))
        self._sink.send(Done(message.id))

    def _finish(self, upload: _Upload) -> None:
        incoming, put = upload.incoming, upload.put
        assert incoming is not None  # noqa: S101 - for the type checker; who is refused does not come here
        with incoming:
            digest = upload.hash.digest()
            change = self._change_of(put.name)
            if change is Change.ADD_HASHED and put.name.rpartition("/")[2] != digest.hex():
                raise StorageError(f"{put.name} arrived with other bytes than were sent", may_pass=True)
            if change is Change.OWN:
                with self._own_lock:
                    self._require_known(put.name, put.known, digest)
                    incoming.finish()
            elif not incoming.finish(replace=change is Change.ANY):
                self._require_same(put.name, digest)
        self._sink.send(Done(put.id))

    def _change_of(self, name: str) -> Change:
        if not is_object_name(name):
            raise StorageError("An object cannot have such a name")
        return self._rules.change_of(name)

    def _require_known(self, name: str, known: Sequence[bytes], new: bytes | None) -> None:
        """Raise ``PermissionRefused`` unless the client knows what is there now, or puts the same."""
        with suppress(ObjectNotFound):
            present = self._digest(name)
            if present != new and present not in known:
                raise self._refused(f"{name} is somebody else's")

    def _require_same(self, name: str, digest: bytes) -> None:
        """Raise ``PermissionRefused`` unless what is there is what was put: after a lost answer it is."""
        if self._digest(name) != digest:
            raise self._refused(f"{name} cannot be replaced")

    def _digest(self, name: str) -> bytes:
        found = blake3()
        with self._store.opened(name) as file:
            while data := file.read(PIECE_MAX):
                found.update(data)
        return found.digest()

    def _refused(self, what: str) -> PermissionRefused:
        kind = {"append-only": "takes new backups and nothing else", "read-only": "can only be read"}
        why = kind.get(self._rules.access, "does not allow it")
        return PermissionRefused(
            f"{what}: over this connection the repository {why}",
            meaning="Nothing was changed",
            hint="Do this on the server itself, or with a key that may do everything",
        )


def resolved(folder: str) -> Path:
    """Give the folder that a URL means on this host; ``~/x`` is below the user's home folder."""
    path = Path.home() / folder[2:] if folder.startswith("~/") else Path(folder)
    return path.resolve()
