"""The way that frames take: the standard input and output of a program that is started, or anything else."""

import os
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Protocol

from typing_extensions import Buffer

from hotspare.errors import HotspareError, StorageError
from hotspare.storage.served.ssh import explain_end

READ_SIZE = 256 * 1024
_END_PATIENCE = 5.0
"""Seconds."""
_WORDS_KEPT = 20
"""Last lines of the standard error that are kept for a message."""


class Transport(Protocol):
    """Bytes in both directions. One thread reads; those that write take turns."""

    def read(self) -> bytes:
        """Give what has come, at least a byte; nothing at the end. Raises ``OSError``."""
        ...

    def write(self, data: Buffer) -> None:
        """Send all of it. Raises ``OSError`` when nobody takes it any more."""
        ...

    def close_sending(self) -> None:
        """Say that nothing more will be sent, which has the other side end."""
        ...

    def abort(self) -> None:
        """End it at once, and with it whatever reads or writes."""
        ...

    def wait(self) -> None:
        """Return once the other side has ended, if need be by force."""
        ...

    def close(self) -> None:
        """Let go; nobody reads or writes any more."""
        ...

    def why_ended(self, *, greeted: bool) -> HotspareError:
        """Say why it has ended, when nobody here wanted it; ``greeted`` if the server had answered."""
        ...


class ProgramTransport:
    """The standard input and output of a program."""

    def __init__(self, url: str, command: Sequence[str]) -> None:
        """Start the program. Raises ``StorageError``; ``url`` is for messages."""
        self._url = url
        self._words: deque[str] = deque(maxlen=_WORDS_KEPT)
        try:
            # A session of its own: an interrupt from the keyboard is ours, and must not cut the connection.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise StorageError(
                f"The program {command[0]} cannot be started: {error.strerror}",
                hint="Install OpenSSH's client, or mend HOTSPARE_SSH_COMMAND",
            ) from error
        self._listener = threading.Thread(target=self._read_words, name="served-words", daemon=True)
        self._listener.start()

    @property
    def descriptor(self) -> int:
        """Becomes readable when something has come."""
        return _pipe(self._process.stdout).fileno()

    def read(self) -> bytes:
        """See ``Transport``."""
        return os.read(self.descriptor, READ_SIZE)

    def write(self, data: Buffer) -> None:
        """See ``Transport``."""
        stream = _pipe(self._process.stdin)
        view = memoryview(data)
        while view:
            if stream.closed:
                raise BrokenPipeError
            view = view[os.write(stream.fileno(), view) :]

    def close_sending(self) -> None:
        """See ``Transport``."""
        with suppress(OSError):
            _pipe(self._process.stdin).close()

    def abort(self) -> None:
        """See ``Transport``."""
        self._process.kill()

    def wait(self) -> None:
        """See ``Transport``."""
        try:
            self._process.wait(_END_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """See ``Transport``."""
        _pipe(self._process.stdout).close()
        self._listener.join(_END_PATIENCE)
        if not self._listener.is_alive():
            _pipe(self._process.stderr).close()

    def why_ended(self, *, greeted: bool) -> HotspareError:
        """See ``Transport``."""
        try:
            status = self._process.wait(_END_PATIENCE)
        except subprocess.TimeoutExpired:
            status = None
        self._listener.join(_END_PATIENCE)
        return explain_end(self._url, status, list(self._words), greeted=greeted)

    def _read_words(self) -> None:
        stream = _pipe(self._process.stderr)
        with suppress(OSError, ValueError):
            for line in iter(lambda: stream.readline(4096), b""):
                self._words.append(printable(line.decode(errors="replace").strip()))


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - all three were asked for
    return stream


def printable(text: str) -> str:
    """Take out what could steer a terminal: the other side is not trusted that far."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
