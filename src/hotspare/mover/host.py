"""The end on the host of the machines: runs one command, told and listened to over a pair of descriptors.

When the connection is lost, the command is interrupted as by Ctrl-C: it stops at its next safe moment, thaws
and cleans up, and nobody hears what it says.
"""

import io
import os
import queue
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress

from typing_extensions import Buffer

from hotspare import __version__
from hotspare.errors import ConfigError, HotspareError, Interrupted, RunExpelled, StorageError
from hotspare.mover.wire import (
    MAGIC,
    SILENT_SECONDS,
    VERSION,
    Alive,
    Ask,
    Begun,
    Cancel,
    Committing,
    Ended,
    Hello,
    Message,
    Said,
    Secret,
    Start,
    Stream,
    Verdict,
    frame_decoder,
)
from hotspare.storage.served.client import ServedBackend
from hotspare.storage.served.frames import BODY_MAX, Frame, ProtocolError, encode_head
from hotspare.storage.served.transport import READ_SIZE

Command = Callable[[Start, "ControlHost"], int]
"""Runs the command line that it is given, and gives its exit status."""
_VERDICT_SECONDS = 120.0
"""For so long a backup, which holds a snapshot, waits for whether it may publish its restore point."""


class ControlHost:
    """The other end, as the command sees it. Thread-safe."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._sending = threading.Lock()
        self._streams: dict[int, _StreamTransport] = {}
        self._streams_lock = threading.Lock()
        self._secrets: queue.SimpleQueue[Secret | None] = queue.SimpleQueue()
        self._verdicts: queue.SimpleQueue[Verdict | None] = queue.SimpleQueue()
        self._is_lost = False
        self._is_silent = False
        """A question was not answered in time; what is answered later belongs to no question."""

    def ask_secret(self) -> Secret:
        """Ask what opens the repository.

        Raises:
            ConfigError: it cannot be had there.
            StorageError: the connection is lost.
        """
        self.send(Ask())
        secret = self._secrets.get()
        if secret is None:
            raise _lost()
        if not secret.kind:
            raise ConfigError(
                f"On the control host: {secret.content.decode(errors='replace')}",
                meaning="The repository was not opened",
                hint="Set HOTSPARE_PASSPHRASE_FILE or HOTSPARE_PASSPHRASE_COMMAND there",
            )
        return secret

    def begun(self, session: str) -> None:
        """See ``backup.claim.Claim``. Nothing of the machine is held yet, so there is no haste."""
        self._await_verdict(Begun(session), None)

    def before_commit(self) -> None:
        """See ``backup.claim.Claim``."""
        self._await_verdict(Committing(), _VERDICT_SECONDS)

    def _await_verdict(self, question: Message, seconds: float | None) -> None:
        verdict = None
        if not self._is_silent:
            self.send(question)
            with suppress(queue.Empty):
                verdict = self._verdicts.get(timeout=seconds)
        if verdict is None:
            self._is_silent = True
            raise _lost()
        if verdict.refusal:
            raise RunExpelled(
                f"On the control host: {verdict.refusal}",
                meaning="No restore point was made here, and no change tracking was advanced",
                hint="Nothing has to be done here",
            )

    def open_store(self, url: str, folder: str) -> ServedBackend:
        """Open the repository that is a folder of the control host."""
        return ServedBackend(url, self._open_stream, folder)

    def send(self, message: Message, body: Buffer = b"") -> None:
        """Send a message; once the connection is lost, nowhere."""
        with self._sending, suppress(OSError):
            for part in (encode_head(message, memoryview(body).nbytes), body):
                view = memoryview(part)
                while view and not self._is_lost:
                    view = view[os.write(self._sink, view) :]

    def frames(self) -> Iterator[Frame[Message]]:
        """Yield what is said, until the connection ends or is silent. Raises ``ProtocolError``."""
        with self._sending, suppress(OSError):
            os.write(self._sink, MAGIC)
        decoder = frame_decoder()
        while select.select([self._source], [], [], SILENT_SECONDS)[0]:
            data = os.read(self._source, READ_SIZE)
            if not data:
                return
            yield from decoder.feed(data)

    def listen(self, frames: Iterator[Frame[Message]]) -> None:
        """Take in what is said until the connection ends, and interrupt the command then."""
        with suppress(ProtocolError, OSError):
            for frame in frames:
                match frame.message:
                    case Secret():
                        self._secrets.put(frame.message)
                    case Verdict():
                        self._verdicts.put(frame.message)
                    case Stream():
                        with self._streams_lock:
                            stream = self._streams.get(frame.message.id)
                        if stream is not None:
                            stream.arrived.put(frame.body)
                    case Alive():
                        pass
                    case Cancel():
                        os.kill(os.getpid(), signal.SIGINT)
                    case _:
                        break
        self._is_lost = True
        self._secrets.put(None)
        self._verdicts.put(None)
        with self._streams_lock:
            for stream in self._streams.values():
                stream.arrived.put(b"")
        os.kill(os.getpid(), signal.SIGINT)

    def _open_stream(self) -> "_StreamTransport":
        with self._streams_lock:
            if self._is_lost:
                raise _lost()
            number = len(self._streams) + 1
            stream = self._streams[number] = _StreamTransport(self, number)
            return stream


class _StreamTransport:
    """A ``Transport`` over the connection that there is."""

    def __init__(self, control: ControlHost, number: int) -> None:
        self.arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        """What was asked for and has come: bounded by the requests that are under way."""
        self._control = control
        self._number = number

    def read(self) -> bytes:
        return self.arrived.get()

    def write(self, data: Buffer) -> None:
        view = memoryview(data)
        for start in range(0, len(view), BODY_MAX):
            self._control.send(Stream(self._number), view[start : start + BODY_MAX])

    def close_sending(self) -> None:
        self._control.send(Stream(self._number))

    def abort(self) -> None:
        self.arrived.put(b"")

    def wait(self) -> None:
        self.arrived.put(b"")

    def close(self) -> None:
        pass

    def why_ended(self, *, greeted: bool) -> HotspareError:
        del greeted
        return _lost()


def _lost() -> StorageError:
    return StorageError(
        "The connection to the control host was lost",
        meaning="What was begun here is given up and cleaned up",
        hint="Run the command again",
    )


class _Relay(io.TextIOBase):
    """A text stream whose lines are sent to the control host. Thread-safe."""

    encoding = "utf-8"

    def __init__(self, control: ControlHost, stream: int) -> None:
        self._control = control
        self._message = Said(stream)
        self._lock = threading.Lock()
        self._kept = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            whole, end, self._kept = (self._kept + text).rpartition("\n")
            self._send(whole + end)
        return len(text)

    def finish(self) -> None:
        """Send what no end of a line came after."""
        with self._lock:
            self._send(self._kept)
            self._kept = ""

    def _send(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        for start in range(0, len(data), BODY_MAX):
            self._control.send(self._message, data[start : start + BODY_MAX])


def serve_control(source: int, sink: int, command: Command) -> None:
    """Run the command that the control host sends; the main thread's work.

    Raises:
        StorageError: what came is not of the protocol.
    """
    control = ControlHost(source, sink)
    frames = control.frames()
    try:
        start = _be_told(control, frames)
    except ProtocolError as error:
        raise StorageError(
            f"The control host does not keep to the protocol: {error}",
            meaning="Nothing was done",
            hint="This command is started over SSH, by hotspare with --platform qemu+ssh://HOST/system",
        ) from error
    if start is None:
        return
    out, errors = _Relay(control, 1), _Relay(control, 2)
    with redirect_stdout(out), redirect_stderr(errors):
        status = _run_interruptibly(lambda: command(start, control), lambda: control.listen(frames))
    out.finish()
    errors.finish()
    control.send(Ended(status))


def _be_told(control: ControlHost, frames: Iterator[Frame[Message]]) -> Start | None:
    """Greet, and give the command; None when the control host thinks better of it."""
    hello = next(frames, None)
    if hello is None:
        return None
    if not isinstance(hello.message, Hello):
        raise ProtocolError("the first message is no greeting")
    control.send(Hello(VERSION, __version__))
    frame = next(frames, None)
    if frame is None:
        return None
    if not isinstance(frame.message, Start):
        raise ProtocolError("there is no command")
    return frame.message


def _run_interruptibly(command: Callable[[], int], listen: Callable[[], None]) -> int:
    """Run the command while somebody listens; every signal that asks us to end does as Ctrl-C does."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        signal.signal(number, signal.default_int_handler)
    listener = threading.Thread(target=listen, name="mover", daemon=True)
    try:
        listener.start()
        status = command()
    except KeyboardInterrupt:
        status = Interrupted.exit_status
    finally:
        # What comes now comes too late: the command has ended, and how is still to be said.
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
    return status
