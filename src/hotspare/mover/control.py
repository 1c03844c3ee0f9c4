"""The end where the user is: has a command done by the mover on another host, and shows what it says."""

import os
import select
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from typing_extensions import Buffer

from hotspare import __version__
from hotspare.backup.claim import UNDISPUTED, Claim
from hotspare.cancellation import Cancellation
from hotspare.errors import HotspareError, Interrupted, PlatformUnavailable, UsageError
from hotspare.mover.wire import (
    ALIVE_SECONDS,
    MAGIC,
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
from hotspare.storage.served.access import FULL
from hotspare.storage.served.frames import BODY_MAX, Frame, ProtocolError, encode_head
from hotspare.storage.served.server import serve_folder
from hotspare.storage.served.ssh import SshHost, remote_command
from hotspare.storage.served.transport import READ_SIZE, ProgramTransport

_LOOK_INTERVAL = 0.2
"""Seconds between two looks at whether the user wants to stop."""
REMOTE_SCHEME = "qemu+ssh"
REPOSITORY_ON_HOST = "HOTSPARE_REPOSITORY_ON_HOST"
"""The variable that says what other hosts call the repository that is set."""


def parse_remote_platform(uri: str) -> tuple[SshHost, str] | None:
    """Take apart ``qemu+ssh://[user@]host[:port]/system``; gives the host and the URI of the platform there.

    None for a platform of this host. Raises ``UsageError``.
    """
    parts = urlsplit(uri)
    if parts.scheme != REMOTE_SCHEME:
        return None
    example = "Write qemu+ssh://[USER@]HOST[:PORT]/system; how to log in there belongs into ~/.ssh/config"
    try:
        port, host, user = parts.port, parts.hostname or "", parts.username
    except ValueError as error:
        raise UsageError(f"{uri!r} cannot be read", meaning="Nothing was done", hint=example) from error
    odd = any(word.startswith("-") or not word.isprintable() for word in (host, user or ""))
    if not host or odd or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(f"{uri!r} names no host", meaning="Nothing was done", hint=example)
    if parts.path not in {"/system", "/session"}:
        raise UsageError(
            f"{uri!r} is neither the system's libvirt nor the user's",
            meaning="Nothing was done",
            hint=example,
        )
    return SshHost(host, port, user), f"qemu://{parts.path}"


class Mover:
    """A mover on another host. A context manager: leaving it ends the connection."""

    def __init__(self, uri: str, host: SshHost, environment: Mapping[str, str]) -> None:
        """Start it. Raises ``PlatformUnavailable``, ``PermissionRefused``, ``ConfigError``."""
        self._uri = uri
        self._transport = ProgramTransport(uri, remote_command(host, ["mover"], environment))
        self._sending = threading.Lock()
        self._inlets: dict[int, int] = {}
        """By number of a stream: the descriptor that leads to the thread which serves it."""
        self._servers: list[threading.Thread] = []
        self._greeted = False
        self._left = threading.Event()
        self._heart = threading.Thread(target=self._keep_alive, name="mover-alive", daemon=True)

    def __enter__(self) -> "Mover":
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        with self._sending:
            self._transport.close_sending()
        for inlet in self._inlets.values():
            os.close(inlet)
        self._inlets.clear()
        self._transport.wait()
        for server in self._servers:
            server.join()
        self._transport.close()

    def run(
        self,
        start: Start,
        secret: Callable[[], Secret],
        said: Callable[[int, str], None],
        cancellation: Cancellation,
        claim: Claim = UNDISPUTED,
    ) -> int:
        """Run a command there, and give its exit status.

        Args:
            start: the command.
            secret: asked when the repository is to be opened.
            said: told what the command says: the stream (1 or 2), and whole lines but for the last.
            cancellation: passed on once it is requested; the command ends then in its own way.
            claim: asked whether a backup may begin, and whether it may publish its restore point.

        Raises:
            PlatformUnavailable: there is no mover, or the connection to it was lost.
            PermissionRefused: the host does not let us in.
            Interrupted: ``cancellation`` was requested before there was a connection.
        """
        self._send_bytes(MAGIC)
        self._send(Hello(VERSION, __version__))
        told = False
        try:
            for frame in self._frames():
                if frame is None:
                    if cancellation.requested and not told:
                        self._refuse_before_greeted()
                        told = True
                        self._send(Cancel())
                    continue
                match frame.message:
                    case Ask():
                        self._send(_had(secret))
                    case Begun():
                        self._send(_judged(partial(claim.begun, frame.message.session)))
                    case Committing():
                        self._send(_judged(claim.before_commit))
                    case Said():
                        said(frame.message.stream, frame.body.decode(errors="replace"))
                    case Ended():
                        return frame.message.status
                    case _:
                        self._take(frame, start)
        except ProtocolError as error:
            raise PlatformUnavailable(
                f"What answers at {self._uri} is not 'hotspare mover': {error}",
                meaning="Nothing was done",
                hint="Log in there with ssh and see that the shell's start-up files print nothing",
            ) from error
        raise self._why_ended()

    def _frames(self) -> Iterator[Frame[Message] | None]:
        """Yield what comes, and None again and again while nothing does."""
        decoder = frame_decoder()
        while True:
            yield None
            if select.select([self._transport.descriptor], [], [], _LOOK_INTERVAL)[0]:
                data = self._transport.read()
                if not data:
                    return
                yield from decoder.feed(data)

    def _refuse_before_greeted(self) -> None:
        """End a connection that was not even made when it is not wanted any more."""
        if not self._greeted:
            self._transport.abort()
            raise Interrupted(
                f"Interrupted while {self._uri} was connected to", meaning="Nothing was begun there"
            )

    def _take(self, frame: Frame[Message], start: Start) -> None:
        match frame.message:
            case Hello():
                if self._greeted:
                    raise ProtocolError("a second greeting")
                self._check_version(frame.message)
                self._greeted = True
                self._send(start)
                self._heart.start()
            case Stream():
                self._serve(frame.message.id, frame.body, start.served)
            case _:
                raise ProtocolError("a message that only the control host sends")

    def _keep_alive(self) -> None:
        while not self._left.wait(ALIVE_SECONDS):
            self._send(Alive())

    def _check_version(self, hello: Hello) -> None:
        if hello.version != VERSION:
            raise PlatformUnavailable(
                f"{self._uri} has Hotspare {hello.program}, whose mover speaks version {hello.version} of the"
                f" protocol; this is Hotspare {__version__}, which speaks version {VERSION}",
                meaning="Nothing was done, and no secret was sent",
                hint="Install the same version of Hotspare on both hosts",
            )

    def _why_ended(self) -> HotspareError:
        error = self._transport.why_ended(greeted=self._greeted)
        if not self._greeted:
            return error
        return PlatformUnavailable(
            error.what,
            meaning="The command there is given up: unless it had come to its end, what it made on the host"
            " is removed, and there is no new restore point",
            hint="See whether the host can be reached with ssh, and run the command again",
        )

    def _serve(self, number: int, body: bytes, folder: str | None) -> None:
        """Hand bytes to the thread that serves a conversation; a number that is new begins one."""
        if folder is None:
            raise ProtocolError("nothing is served here")
        if number not in self._inlets:
            if not body:
                return
            source, inlet = os.pipe()
            outlet, sink = os.pipe()
            self._inlets[number] = inlet
            for work in (
                lambda: self._serve_stream(Path(folder), source, sink),
                lambda: self._send_on(number, outlet),
            ):
                thread = threading.Thread(target=work, name="served-stream", daemon=True)
                thread.start()
                self._servers.append(thread)
        if not body:
            os.close(self._inlets.pop(number))
            return
        view = memoryview(body)
        with suppress(BrokenPipeError):  # the server has hung up, and what it said is on its way
            while view:
                view = view[os.write(self._inlets[number], view) :]

    def _serve_stream(self, folder: Path, source: int, sink: int) -> None:
        try:
            with suppress(HotspareError):
                serve_folder(folder, FULL, source, sink)
        finally:
            os.close(source)
            os.close(sink)

    def _send_on(self, number: int, outlet: int) -> None:
        """Send what a server answers, to the end, also when nobody takes it any more."""
        try:
            while data := os.read(outlet, min(READ_SIZE, BODY_MAX)):
                with suppress(HotspareError):
                    self._send(Stream(number), data)
            with suppress(HotspareError):
                self._send(Stream(number))
        finally:
            os.close(outlet)

    def _send(self, message: Message, body: Buffer = b"") -> None:
        self._send_bytes(encode_head(message, memoryview(body).nbytes), body)

    def _send_bytes(self, *parts: Buffer) -> None:
        # Whether the other side is gone, who reads finds out.
        with self._sending, suppress(OSError):
            for part in parts:
                self._transport.write(part)


def _judged(ask: Callable[[], None]) -> Verdict:
    try:
        ask()
    except HotspareError as error:
        return Verdict(error.what)
    return Verdict()


def _had(secret: Callable[[], Secret]) -> Secret:
    """Give the secret, or why there is none: whether the command can go on without it, it knows itself."""
    try:
        return secret()
    except HotspareError as error:
        return Secret("", error.what.encode())
