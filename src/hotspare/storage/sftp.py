"""Objects as files on an SSH server, by SFTP (draft-ietf-secsh-filexfer-02, OpenSSH's PROTOCOL).

An object is written to a temporary file in the store's top folder, synced, and renamed into place, and the
folder is synced: three extensions of OpenSSH's server, all of which it must have for ``durability`` to be
``fsync``. Temporary files lie in one place so that those of crashed writers can be found without listing
the packs.
"""

import asyncio
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress

import asyncssh
from typing_extensions import Buffer

from hotspare.errors import HotspareError, NoSpace, ObjectNotFound, PermissionRefused, StorageError
from hotspare.storage.backend import Capabilities, Durability, ObjectInfo, Space
from hotspare.storage.sftp_connection import Answer, Channel, Extensions, SftpConnection, parse_sftp_url
from hotspare.storage.temporaries import is_stale, is_temporary, new_temporary_name

_PATIENCE = 120.0
"""Seconds that a call may take beside the transfer of its bytes."""
_SLOWEST = 50_000
"""Bytes per second below which a transfer is given up."""
_FOLDERS_AT_ONCE = 32
_READ_ONLY = 0x1
"""``SSH_FXE_STATVFS_ST_RDONLY`` of statvfs@openssh.com."""
_PRIVATE_FOLDER = asyncssh.SFTPAttrs(permissions=0o700)
_PRIVATE_FILE = asyncssh.SFTPAttrs(permissions=0o600)
_NEW_FILE = "xb"


class SftpBackend:
    """A store in a folder of an SFTP server."""

    def __init__(self, url: str) -> None:
        target = parse_sftp_url(url)
        self.capabilities = Capabilities(space=self._space)
        self.url = target.url
        self._folder = target.folder
        self._connection = SftpConnection(target)
        self._swept = False

    @property
    def durability(self) -> Durability:
        """See ``Backend.durability``; connects to ask the server."""
        return "fsync" if self._run("", _extensions).all else "best-effort"

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """See ``Backend.put``; without posix-rename, replacing an object takes two steps."""
        views = [memoryview(part).cast("B") for part in parts]
        size = sum(map(len, views))
        self._run(name, lambda channel: self._put(channel, name, views, size), size=size)

    def get(self, name: str) -> bytes:
        """See ``Backend.get``."""
        size = self.size(name)
        return self._run(name, lambda channel: self._read(channel, name, 0, size), size=size)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """See ``Backend.get_range``."""
        return self._run(name, lambda channel: self._read(channel, name, offset, length), size=length)

    def size(self, name: str) -> int:
        """See ``Backend.size``."""

        async def ask(channel: Channel) -> int:
            return (await channel.client.stat(self._path(name))).size or 0

        return self._run(name, ask)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``Backend.list``; the whole listing is held in memory, several folders are read at once."""
        above = prefix.rpartition("/")[0]

        async def walk(channel: Channel) -> list[ObjectInfo]:
            return await _Walk(channel.client, self._folder).below(above)

        found = self._run(prefix, walk, size=_SLOWEST * 3600)
        return iter(sorted(item for item in found if item.name.startswith(prefix)))

    def delete(self, name: str) -> None:
        """See ``Backend.delete``."""

        async def remove(channel: Channel) -> None:
            path = self._path(name)
            await channel.client.remove(path)
            await _sync_folder(channel, path.rpartition("/")[0])

        with suppress(ObjectNotFound):
            self._run(name, remove)

    def close(self) -> None:
        """See ``Backend.close``."""
        self._connection.close()

    def _space(self) -> Space | None:
        """Ask by ``statvfs@openssh.com``, which not every server knows or allows."""

        async def ask(channel: Channel) -> Space | None:
            try:
                status = await channel.client.statvfs(self._folder)
            except asyncssh.SFTPOpUnsupported:
                return None
            return Space(status.bavail * status.frsize, status.blocks * status.frsize)

        return self._run("", ask)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}" if name else self._folder

    def _run(self, name: str, operation: Callable[[Channel], Awaitable[Answer]], *, size: int = 0) -> Answer:
        async def named(channel: Channel) -> Answer:
            try:
                return await operation(channel)
            except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection):
                raise
            except asyncssh.SFTPError as error:
                raise await self._translate(channel, error, name, size) from error

        return self._connection.run(named, timeout=_PATIENCE + size / _SLOWEST)

    async def _put(self, channel: Channel, name: str, views: Sequence[memoryview], size: int) -> None:
        client = channel.client
        temporary = self._path(new_temporary_name())
        try:
            file = await client.open(temporary, _NEW_FILE, _PRIVATE_FILE)
        except asyncssh.SFTPNoSuchFile:
            await self._make_folder(channel, self._folder)
            file = await client.open(temporary, _NEW_FILE, _PRIVATE_FILE)
        try:
            async with file:
                written = 0
                for view in views:
                    await file.write(view, written)  # type: ignore[type-var]  # any buffer will do
                    written += len(view)
                if channel.extensions.fsync:
                    await file.fsync()
                status = await file.stat()
            self._require_whole(name, size, status.size)
            await self._sweep(channel, now=status.mtime or 0)
            await self._rename(channel, temporary, self._path(name))
        except BaseException:
            with suppress(asyncssh.Error, OSError):
                await client.remove(temporary)
            raise

    def _require_whole(self, name: str, size: int, stored: int | None) -> None:
        if stored != size:
            raise StorageError(f"{self.url} stored {stored} of {size} bytes of {name}", may_pass=True)

    async def _rename(self, channel: Channel, temporary: str, path: str) -> None:
        folder = path.rpartition("/")[0]
        try:
            await _replace(channel, temporary, path)
        except asyncssh.SFTPNoSuchFile:
            await self._make_folder(channel, folder)
            await _replace(channel, temporary, path)
        await _sync_folder(channel, folder)

    async def _make_folder(self, channel: Channel, folder: str) -> None:
        if not folder or await channel.client.isdir(folder):
            return
        above = folder.rpartition("/")[0]
        await self._make_folder(channel, above)
        try:
            await channel.client.mkdir(folder, _PRIVATE_FOLDER)
        except asyncssh.SFTPError:
            # Another call may have made it meanwhile; the protocol has no error of its own for that.
            if not await channel.client.isdir(folder):
                raise
        await _sync_folder(channel, above or ("/" if folder.startswith("/") else "."))

    async def _sweep(self, channel: Channel, *, now: float) -> None:
        """Remove what crashed writers left, once; ``now`` is the server's clock, from a file just written."""
        if self._swept:
            return
        self._swept = True
        for entry in await channel.client.readdir(self._folder):
            modified = entry.attrs.mtime
            if modified is not None and is_stale(str(entry.filename), modified=modified, now=now):
                with suppress(asyncssh.SFTPError):
                    await channel.client.remove(self._path(str(entry.filename)))

    async def _read(self, channel: Channel, name: str, offset: int, length: int) -> bytes:
        data = bytearray(length)
        got = 0
        async with await channel.client.open(self._path(name), "rb") as file:
            async for at, block in await file.read_parallel(length, offset):
                data[at - offset : at - offset + len(block)] = block
                got += len(block)
        if got != length:
            raise StorageError(f"{name} in {self.url} ends before byte {offset + length}")
        return bytes(data)

    async def _translate(
        self, channel: Channel, error: asyncssh.SFTPError, name: str, size: int
    ) -> HotspareError:
        what = f"{name or 'The folder'} in {self.url}"
        match error:
            case asyncssh.SFTPNoSuchFile() | asyncssh.SFTPNoSuchPath() | asyncssh.SFTPNotADirectory():
                return ObjectNotFound(f"{what} is not there")
            case asyncssh.SFTPPermissionDenied() | asyncssh.SFTPWriteProtect():
                return self._refused(what, error.reason)
            case asyncssh.SFTPNoSpaceOnFilesystem() | asyncssh.SFTPQuotaExceeded():
                return self._full()
            case asyncssh.SFTPFailure():
                return await self._explain(channel, what, size)
            case _:
                return StorageError(f"{what} failed: {error.reason}", hint="See the server's log")

    async def _explain(self, channel: Channel, what: str, size: int) -> HotspareError:
        """Find out what a bare "Failure" was: version 3 of the protocol knows neither full nor read-only."""
        with suppress(asyncssh.SFTPError):
            status = await channel.client.statvfs(self._folder)
            if status.flags & _READ_ONLY:
                return self._refused(what, "the file system is read-only")
            if status.bavail * status.frsize < max(size, status.frsize):
                return self._full()
        return StorageError(
            f"{what} failed, and the server does not say why",
            hint="See the log of the SSH server, and whether a quota is used up",
        )

    def _refused(self, what: str, why: str) -> PermissionRefused:
        return PermissionRefused(
            f"{what} cannot be accessed: {why}",
            hint="Use an account that may read and write there, or mend the folder's owner and mode",
        )

    def _full(self) -> NoSpace:
        return NoSpace(
            f"The file system of {self.url} is full",
            meaning="What was being stored is not; earlier restore points are whole",
            hint="Free space there, or enlarge it, and run the command again",
        )


class _Walk:
    """Lists a tree of folders, several at once."""

    def __init__(self, client: asyncssh.SFTPClient, root: str) -> None:
        self._client = client
        self._root = root
        self._slots = asyncio.Semaphore(_FOLDERS_AT_ONCE)

    async def below(self, above: str) -> list[ObjectInfo]:
        """Give the objects below a folder, in any order; what vanishes meanwhile is left out."""
        try:
            async with self._slots:
                entries = await self._client.readdir(f"{self._root}/{above}" if above else self._root)
        except asyncssh.SFTPNoSuchFile:
            return []
        found, folders = [], []
        for entry in entries:
            base, mode = str(entry.filename), entry.attrs.permissions or 0
            name = f"{above}/{base}" if above else base
            if stat.S_ISDIR(mode) and base not in {".", ".."}:
                folders.append(name)
            elif stat.S_ISREG(mode) and not is_temporary(base):
                found.append(ObjectInfo(name, entry.attrs.size or 0))
        for more in await asyncio.gather(*map(self.below, folders)):
            found += more
        return found


async def _extensions(channel: Channel) -> Extensions:
    return channel.extensions


async def _replace(channel: Channel, temporary: str, path: str) -> None:
    if channel.extensions.posix_rename:
        await channel.client.posix_rename(temporary, path)
        return
    try:
        await channel.client.rename(temporary, path)
    except asyncssh.SFTPFailure:
        # Version 3's rename refuses to replace.
        await channel.client.remove(path)
        await channel.client.rename(temporary, path)


async def _sync_folder(channel: Channel, folder: str) -> None:
    if channel.extensions.folder_fsync:
        async with await channel.client.open(folder, "rb") as handle:
            await handle.fsync()
