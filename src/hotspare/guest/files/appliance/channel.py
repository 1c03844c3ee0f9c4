"""Asking the agent inside the micro-VM. It reads what a guest wrote, so none of its answers is believed."""

import mmap
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from hotspare.errors import FileSystemUnreadable
from hotspare.guest.files.appliance.inside.wire import ANSWER, WINDOW_SIZE, pack_request

T = TypeVar("T")


class QuestionFailed(Exception):
    """The agent says no: the number of an error, and a text."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text
        super().__init__(text)


class Channel:
    """Sends questions and waits for answers, one after the other. Thread-safe.

    Args:
        port: to the agent.
        window: the file through which long answers come.
        end: ends the micro-VM, and tells its last words; called when it does not answer, or nonsense.
        seconds: how long an answer may take.

    Attributes:
        lost: why no answer will come any more.
    """

    def __init__(self, port: socket.socket, window: Path, end: Callable[[], str], seconds: float) -> None:
        self._port = port
        self._end = end
        self._seconds = seconds
        self._lock = threading.Lock()
        self.lost: str | None = None
        fd = os.open(window, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._window = mmap.mmap(fd, WINDOW_SIZE, prot=mmap.PROT_READ)
        finally:
            os.close(fd)

    def ask(self, question: str, *fields: bytes | str | int, seconds: float | None = None) -> bytes:
        """Ask, and give the answer.

        Raises:
            QuestionFailed: the answer is an error.
            FileSystemUnreadable: there is no answer in time, or the micro-VM is gone.
        """
        request = pack_request([question.encode(), *map(_field, fields)])
        with self._lock:
            if self.lost is not None:
                raise self._gone(self.lost)
            try:
                number, answer = self._exchange(request, time.monotonic() + (seconds or self._seconds))
            except TimeoutError:
                raise self._lose(f"did not answer within {seconds or self._seconds:.0f} s") from None
            except (OSError, EOFError, ValueError) as error:
                raise self._lose(f"broke off ({error})") from error
            except BaseException:
                # The answer is still to come, and would be taken for that to the next question.
                self._lose("was interrupted")
                raise
        if number:
            raise QuestionFailed(number, answer[:1000].decode(errors="replace"))
        return answer

    def decoded(self, answer: bytes, kind: type[T]) -> T:
        """Decode an answer in MessagePack.

        Raises:
            FileSystemUnreadable: it is something else; the micro-VM is ended.
        """
        try:
            return msgspec.msgpack.decode(answer, type=kind)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            with self._lock:
                raise self._lose(f"answered nonsense ({error})") from error

    def close(self) -> None:
        """Hang up; a second call does nothing."""
        with self._lock:
            self.lost = self.lost or "was closed"
            self._port.close()
            if not self._window.closed:
                self._window.close()

    def _exchange(self, request: bytes, deadline: float) -> tuple[int, bytes]:
        self._port.settimeout(max(0.01, deadline - time.monotonic()))
        self._port.sendall(request)
        number, length, in_window = ANSWER.unpack(self._receive(ANSWER.size, deadline))
        if length > WINDOW_SIZE:
            raise ValueError(f"an answer of {length} bytes")
        return number, self._window[:length] if in_window else self._receive(length, deadline)

    def _receive(self, length: int, deadline: float) -> bytes:
        parts = []
        while length:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._port.settimeout(left)
            part = self._port.recv(length)
            if not part:
                raise EOFError("it is gone")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _lose(self, why: str) -> FileSystemUnreadable:
        if self.lost is None:
            self.lost = why
            last_words = self._end()
            if last_words:
                self.lost += f". It said last: {last_words[-500:]}"
        return self._gone(self.lost)

    @staticmethod
    def _gone(why: str) -> FileSystemUnreadable:
        return FileSystemUnreadable(
            f"The micro-VM that reads this file system {why}",
            meaning="Nothing was changed, neither in the repository nor on a disk",
            hint="Try again; if the same file fails again, its file system may be damaged",
        )


def _field(value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return b"%d" % value
    return os.fsencode(value)
