"""The first and only program inside the micro-VM: answers questions about the files of volumes."""

import errno
import mmap
import os
import sys
import time
from collections.abc import Iterator

from hotspare.guest.files.appliance.inside.system import load_for, mount, power_off, text
from hotspare.guest.files.appliance.inside.volumes import (
    Refused,
    Volume,
    activate_logical_volumes,
    disk_device,
    find_device,
    mount_volume,
    read_ahead,
    scan_btrfs,
)
from hotspare.guest.files.appliance.inside.wire import (
    ANSWER,
    INLINE_MAX,
    LENGTH,
    MORE,
    PORT,
    READ_MAX,
    WINDOW,
    WINDOW_SIZE,
    pack,
    unpack_request,
)

_BATCH_BYTES = 512 * 1024
_LISTINGS_MAX = 64


class Agent:
    """Answers one question after the other."""

    def __init__(self) -> None:
        self.volumes: dict[int, Volume] = {}
        self.listings: dict[int, Iterator[bytes]] = {}
        self.counter = 0
        self.logical = False
        # Whole pages, as O_DIRECT wants them.
        self.buffer = mmap.mmap(-1, WINDOW_SIZE)
        self.window = -1

    def answer(self, fields: list[bytes]) -> object:
        """Give an answer; that of bytes which are in the buffer already is their number."""
        question, rest = fields[0].decode(), fields[1:]
        return getattr(self, f"_{question}")(*rest)

    def _hello(self) -> list[object]:
        self.window = os.open(f"/dev/{disk_device(WINDOW)}", os.O_RDWR | os.O_DIRECT)
        read_ahead()
        system = os.uname()
        return [system.release, sys.version.split()[0]]

    def _mount(
        self, serial: bytes, partition: bytes, logical: bytes, kinds: bytes, size: bytes
    ) -> list[object]:
        if not self.logical and logical:
            activate_logical_volumes()
            self.logical = True
        device, found = find_device(serial.decode(), int(partition), os.fsdecode(logical))
        if size and int(size) != found:
            raise Refused(errno.EINVAL, f"it has {found} bytes here and should have {int(size)}")
        if b"btrfs" in kinds.split():
            scan_btrfs()
        self.counter += 1
        volume = mount_volume(self.counter, device, kinds.decode().split())
        self.volumes[self.counter] = volume
        return [self.counter, volume.kind]

    def _unmount(self, volume: bytes) -> None:
        self.volumes.pop(int(volume)).close()

    def _entry(self, volume: bytes, path: bytes) -> bytes:
        return self.volumes[int(volume)].entry(path)

    def _list(self, volume: bytes, folder: bytes, whole_tree: bytes) -> bytes:
        while len(self.listings) >= _LISTINGS_MAX:
            del self.listings[min(self.listings)]
        self.counter += 1
        self.listings[self.counter] = self.volumes[int(volume)].listing(folder, whole_tree == b"1")
        return self._more(b"%d" % self.counter)

    def _more(self, listing: bytes) -> bytes:
        number = int(listing)
        if number not in self.listings:
            raise Refused(errno.ESTALE, "too many folders are being listed at the same time")
        found: list[bytes] = []
        room = _BATCH_BYTES
        for record in self.listings[number]:
            found.append(record)
            room -= len(record)
            if room < 0:
                return MORE.pack(number) + b"".join(found)
        del self.listings[number]
        return MORE.pack(0) + b"".join(found)

    def _drop(self, listing: bytes) -> None:
        self.listings.pop(int(listing), None)

    def _read(self, volume: bytes, path: bytes, offset: bytes, length: bytes) -> bytes | int:
        fd = self.volumes[int(volume)].file(path)
        wanted = min(int(length), READ_MAX)
        if wanted <= INLINE_MAX:
            return os.pread(fd, wanted, int(offset))
        with memoryview(self.buffer) as view, view[:wanted] as part:
            return os.preadv(fd, [part], int(offset))

    def _attributes(self, volume: bytes, path: bytes) -> list[object]:
        return self.volumes[int(volume)].attributes(path)

    def _holes(self, volume: bytes, path: bytes, start: bytes) -> list[object]:
        return self.volumes[int(volume)].holes(path, int(start))


class Port:
    """The serial port to the host, and the window."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.spoken = False

    def receive(self) -> list[bytes]:
        """Wait for the next request; an empty list when the host is gone."""
        (length,) = LENGTH.unpack(self._exactly(4) or bytes(4))
        request = self._exactly(length)
        return unpack_request(request)

    def _exactly(self, length: int) -> bytes:
        parts = []
        while length:
            part = os.read(self.fd, length)
            if part:
                self.spoken = True
            elif self.spoken:
                return b""
            else:
                time.sleep(0.01)  # the host has not been noticed yet
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def send(self, number: int, answer: object, agent: Agent) -> None:
        """Answer a request."""
        if isinstance(answer, int):
            length = answer
        else:
            content = answer if isinstance(answer, bytes) else pack(answer)
            length = len(content)
            if length <= INLINE_MAX:
                self._write(ANSWER.pack(number, length, 0) + content)
                return
            if length > WINDOW_SIZE:
                text = b"the answer is too large"
                self._write(ANSWER.pack(errno.E2BIG, len(text), 0) + text)
                return
            agent.buffer[:length] = content
        with memoryview(agent.buffer) as view, view[: -(-length // 4096) * 4096] as part:
            done = 0
            while done < len(part):
                done += os.pwrite(agent.window, part[done:], done)
        self._write(ANSWER.pack(number, length, 1))

    def _write(self, content: bytes) -> None:
        while content:
            content = content[os.write(self.fd, content) :]


def serve(port: Port, agent: Agent) -> None:
    """Answer until the host is gone."""
    while fields := port.receive():
        number = 0
        answer: object
        try:
            answer = agent.answer(fields)
        except Refused as error:
            number, answer = error.number, str(error).encode()
        except OSError as error:
            number, answer = error.errno or errno.EIO, (error.strerror or str(error)).encode()
        except Exception as error:  # noqa: BLE001  # whatever it is, the host is waiting
            number, answer = errno.EPROTO, repr(error).encode()
        port.send(number, answer, agent)


def _open_port() -> Port:
    for _ in range(3000):
        for name in os.listdir("/sys/class/virtio-ports"):  # noqa: PTH208
            if text(f"/sys/class/virtio-ports/{name}/name") == PORT:
                return Port(os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC))
        time.sleep(0.01)
    raise OSError(errno.ENODEV, "the serial port did not appear")


def main() -> None:
    """Be the init of the micro-VM."""
    for source, folder, kind in (
        (b"dev", b"/dev", b"devtmpfs"),
        (b"proc", b"/proc", b"proc"),
        (b"sys", b"/sys", b"sysfs"),
    ):
        mount(source, folder, kind, 0, b"")
    load_for("start")
    try:
        serve(_open_port(), Agent())
    finally:
        power_off()
