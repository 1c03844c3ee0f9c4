"""One SSH connection with one SFTP channel, kept by an event loop in a thread of its own.

Keys, agent, proxies and ciphers are those of the user's ``~/.ssh/config``; the host's key must be among the
known hosts, whatever the configuration says. A connection that was lost is made anew by the next call.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import asyncssh

from hotspare.errors import ConfigError, HotspareError, PermissionRefused, StorageError, UsageError

Answer = TypeVar("Answer")

_CONNECT_TIMEOUT = 15
_LOGIN_TIMEOUT = 30
_KEEPALIVE = 15
"""Seconds of silence after which the server is asked for a sign of life; three without end the connection."""
_CALLS_MAX = 16
_EXAMPLE = "sftp://user@host/path, or sftp://user@host/~/path for a folder in the home folder"


@dataclass(frozen=True, slots=True)
class SftpTarget:
    """Where a repository is on an SFTP server."""

    url: str
    host: str
    """A name, an address, or a ``Host`` of the SSH configuration."""
    port: int | None
    """None for the SSH configuration's, else 22."""
    user: str | None
    """None for the SSH configuration's, else the user who runs us."""
    folder: str
    """Absolute, or relative to the user's home folder there."""


class Extensions(NamedTuple):
    """What the server can do beyond version 3 of the protocol."""

    fsync: bool
    """``fsync@openssh.com`` of files."""
    folder_fsync: bool
    """The same of folders."""
    posix_rename: bool
    """``posix-rename@openssh.com``, which replaces in one step."""

    @property
    def all(self) -> bool:
        """Whether a crash of the server can lose nothing that was put."""
        return self.fsync and self.folder_fsync and self.posix_rename


class Channel(NamedTuple):
    """An open connection and what it can do."""

    connection: asyncssh.SSHClientConnection
    client: asyncssh.SFTPClient
    extensions: Extensions


def parse_sftp_url(url: str) -> SftpTarget:
    """Take apart ``sftp://[user@]host[:port]/path``. Raises ``UsageError``."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError("The SFTP store's URL cannot be read", hint=f"Write {_EXAMPLE}") from error
    if parts.password is not None:
        raise UsageError(
            "The URL of the SFTP store holds a password",
            meaning="It was not used, because URLs end up in logs",
            hint="Use a key: name it in ~/.ssh/config, or load it into the SSH agent",
        )
    path = unquote(parts.path)
    folder = path.removeprefix("/~/").strip("/") if path.startswith("/~/") else path.rstrip("/")
    if not parts.hostname or parts.query or parts.fragment or not folder:
        raise UsageError(f"'{url}' names no folder on an SFTP server", hint=f"Write {_EXAMPLE}")
    user = unquote(parts.username) if parts.username else None
    return SftpTarget(url, parts.hostname, port, user, folder)


class SftpConnection:
    """Runs coroutines that need the channel, for callers in any thread."""

    def __init__(self, target: SftpTarget) -> None:
        self._target = target
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._channel: Channel | None = None
        # Both belong to the loop that first waits for them, so each loop gets its own.
        self._connecting = asyncio.Lock()
        self._calls = asyncio.Semaphore(_CALLS_MAX)

    def run(self, operation: Callable[[Channel], Awaitable[Answer]], *, timeout: float) -> Answer:
        """Run one operation to its end.

        Args:
            operation: gets the open channel.
            timeout: seconds that it may take once it is connected.

        Raises:
            StorageError: there is no connection, or it was lost, or the time is over (``may_pass``).
            PermissionRefused: the server lets nobody in with our keys.
            asyncssh.SFTPError: as the operation raised it.
        """
        future = self._submit(self._run(operation, timeout))
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the connection and the thread; a second call does nothing."""
        with self._starting:
            loop, thread = self._loop, self._thread
            if loop is None or thread is None:
                return
            self._loop = self._thread = None
        asyncio.run_coroutine_threadsafe(self._hang_up(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _submit(self, work: Coroutine[None, None, Answer]) -> Future[Answer]:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._connecting, self._calls = asyncio.Lock(), asyncio.Semaphore(_CALLS_MAX)
                self._thread = threading.Thread(target=self._loop.run_forever, name="sftp", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _run(self, operation: Callable[[Channel], Awaitable[Answer]], timeout: float) -> Answer:
        async with self._calls:
            channel = await self._connected()
            try:
                async with asyncio.timeout(timeout):
                    return await operation(channel)
            except TimeoutError as error:
                self._drop(channel)
                raise StorageError(
                    f"{self._target.url} did not answer within {timeout:.0f} s",
                    hint="See whether the server is overloaded or the network slow",
                    may_pass=True,
                ) from error
            except (
                asyncssh.DisconnectError,
                asyncssh.SFTPConnectionLost,
                asyncssh.SFTPNoConnection,
            ) as error:
                self._drop(channel)
                raise _lost(self._target.url, error) from error
            except OSError as error:
                self._drop(channel)
                raise _lost(self._target.url, error) from error

    async def _connected(self) -> Channel:
        async with self._connecting:
            if self._channel is None or self._channel.connection.is_closed():
                self._channel = await _open_channel(self._target)
            return self._channel

    def _drop(self, channel: Channel) -> None:
        if self._channel is channel:
            self._channel = None
        channel.connection.abort()

    async def _hang_up(self) -> None:
        if self._channel:
            self._channel.client.exit()
            self._channel.connection.close()
            with suppress(OSError, asyncssh.Error, TimeoutError):
                async with asyncio.timeout(5):
                    await self._channel.connection.wait_closed()
            self._channel.connection.abort()
            self._channel = None
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def _open_channel(target: SftpTarget) -> Channel:
    try:
        await _require_host_keys(target)
        connection = await asyncssh.connect(
            target.host,
            target.port if target.port is not None else (),
            username=target.user if target.user is not None else (),
            connect_timeout=_CONNECT_TIMEOUT,
            login_timeout=_LOGIN_TIMEOUT,
            keepalive_interval=_KEEPALIVE,
            keepalive_count_max=3,
        )
    except (asyncssh.Error, OSError, ValueError, TimeoutError) as error:
        raise _no_connection(target, error) from error
    try:
        client = await connection.start_sftp_client()
        return Channel(connection, client, await _probe(client))
    except (asyncssh.Error, OSError) as error:
        connection.abort()
        raise StorageError(
            f"{target.url}: the server offers no SFTP: {error}",
            hint="The SSH server needs 'Subsystem sftp', and the account must be allowed to use it",
        ) from error
    except BaseException:
        connection.abort()
        raise


async def _require_host_keys(target: SftpTarget) -> None:
    """Refuse a configuration that makes the library believe any host."""
    options = await asyncssh.SSHClientConnectionOptions.construct(
        config=(), host=target.host, port=target.port if target.port is not None else ()
    )
    if options.known_hosts is None:
        raise ConfigError(
            f"The SSH configuration turns off the check of {target.host}'s host key",
            meaning="Nothing was sent",
            hint="Take 'UserKnownHostsFile none' out of it, and add the host's key to ~/.ssh/known_hosts",
        )


async def _probe(client: asyncssh.SFTPClient) -> Extensions:
    """Find out by asking; where the library knows that the server lacks an extension, nothing is sent."""
    posix_rename = True
    try:
        await client.posix_rename(".hotspare-none", ".hotspare-none-either")
    except asyncssh.SFTPOpUnsupported:
        posix_rename = False
    except asyncssh.SFTPError:
        pass
    try:
        folder = await client.open(".", "rb")
    except asyncssh.SFTPError:
        # Only a file could tell whether files can be synced; without folders it is best effort anyway.
        return Extensions(fsync=False, folder_fsync=False, posix_rename=posix_rename)
    async with folder:
        try:
            await folder.fsync()
        except asyncssh.SFTPOpUnsupported:
            return Extensions(fsync=False, folder_fsync=False, posix_rename=posix_rename)
        except asyncssh.SFTPError:
            return Extensions(fsync=True, folder_fsync=False, posix_rename=posix_rename)
    return Extensions(fsync=True, folder_fsync=True, posix_rename=posix_rename)


def _no_connection(target: SftpTarget, error: Exception) -> HotspareError:
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return StorageError(
                f"{target.url}: the host's key is not among the known hosts: {error}",
                meaning="Nothing was sent",
                hint=f"Log in once with ssh to {target.host}, compare the fingerprint, and accept the key",
            )
        case asyncssh.PermissionDenied():
            return PermissionRefused(
                f"{target.url}: the server refused the login: {error}",
                hint="Add the public key to authorized_keys there, and name the private one in ~/.ssh/config",
            )
        case asyncssh.KeyImportError() | asyncssh.ConfigParseError():
            return ConfigError(f"The SSH configuration or a key of it cannot be used: {error}")
        case socket.gaierror(errno=socket.EAI_NONAME):
            return StorageError(
                f"{target.url}: no such host is known", hint="Look for a typing error in the URL"
            )
        case asyncssh.KeyExchangeFailed() | asyncssh.ProtocolNotSupported():
            return StorageError(f"{target.url}: no common ground with the server: {error}")
        case _:
            return _lost(target.url, error)


def _lost(url: str, error: Exception) -> StorageError:
    return StorageError(
        f"No connection to {url}: {str(error) or type(error).__name__}",
        hint="See whether the server runs and can be reached with sftp, and try again",
        may_pass=True,
    )
