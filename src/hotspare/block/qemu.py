"""Disk images in QEMU's formats, by the programs qemu-img and qemu-nbd.

An image comes from a machine that nobody has to trust. Its header may name other files of this host (a
backing file, an external data file, extents of a VMDK), which QEMU would open for it; and a raw disk may
begin with such a header. So images are served with an explicit format, never a guessed one, and images that
refer to other files are refused unless the caller allows them.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hotspare.block.nbd.client import NbdClient
from hotspare.block.nbd.protocol import BASE_ALLOCATION
from hotspare.errors import (
    HotspareError,
    NoSpace,
    PermissionRefused,
    PlatformUnavailable,
    SourceLost,
    TargetExists,
    UsageError,
)

FORMATS = ("raw", "qcow2", "vmdk", "vhdx", "vpc", "vdi")
"""The formats that we read and write; QEMU knows more."""

CONNECTIONS = 64
"""How many connections one ``QemuNbd`` takes at a time. More than one also makes it offer multi-conn."""

_TOOL_TIMEOUT = 60.0
_STOP_TIMEOUT = 60.0
"""Seconds: a server that is told to stop still has to write out what it holds."""

_DIRTY_BITMAP = "qemu:dirty-bitmap:"


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image's header says.

    Attributes:
        format: one of ``FORMATS``.
        virtual_size: bytes of the disk inside.
        actual_size: bytes that the image takes up.
        references: other files that the image names, as they are written in it.
        bitmaps: names of the persistent dirty bitmaps that are usable.
    """

    format: str
    virtual_size: int
    actual_size: int
    references: tuple[str, ...] = ()
    bitmaps: tuple[str, ...] = ()


def image_info(
    path: Path,
    format: str | None = None,  # noqa: A002 - QEMU's word
    *,
    allow_references: bool = False,
) -> ImageInfo:
    """Read an image's header, also while a machine uses it.

    Args:
        path: the image.
        format: its format; None to guess. Do not guess for a raw disk that somebody else has written.
        allow_references: accept an image that names other files.

    Raises:
        UsageError: the format is unknown or not that of the image.
        PermissionRefused: the image names other files, or we may not read it.
        SourceLost: it is not there or damaged.
        PlatformUnavailable: qemu-img is missing.
    """
    if format is not None:
        _check_format(format)
    if not allow_references:
        _refuse_qcow2_references(path, format)
    choice = ["-f", format] if format else []
    output = run_tool(["qemu-img", "info", "-U", "--output=json", *choice, str(path.absolute())], path)
    info = _parse_info(json.loads(output), path)
    if info.references and not allow_references:
        raise _references_refused(path, info.references)
    return info


def create_image(path: Path, format: str, size: int) -> None:  # noqa: A002 - QEMU's word
    """Create an empty image for a disk of ``size`` bytes, readable by its owner only.

    Raises:
        TargetExists: something is at ``path`` already; it is left alone.
        NoSpace, PermissionRefused, SourceLost, UsageError: it cannot be created.
        PlatformUnavailable: qemu-img is missing.
    """
    _check_format(format)
    try:
        # qemu-img would overwrite what is there.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise TargetExists(
            f"{path} exists already", meaning="It was left alone", hint="Choose another name or remove it"
        ) from None
    except OSError as error:
        raise _explain(f"Cannot create {path}: {error.strerror}", path) from error
    try:
        run_tool(["qemu-img", "create", "-q", "-f", format, str(path.absolute()), str(size)], path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


class QemuNbd:
    """Serves one image over a private unix socket for the time of a ``with`` block.

    The program runs without ``--persistent`` and one idle connection is kept open: so it also ends by itself
    when our process is killed and the kernel closes that connection.

    Args:
        image: the image.
        format: its format, one of ``FORMATS``.
        read_only: open it for reading only.
        bitmap: name of a persistent dirty bitmap to serve beside the data.
        cache: QEMU's cache mode: ``writeback``, ``none``, ``writethrough``, ``directsync`` or ``unsafe``.
        allow_references: accept an image that names other files, such as an overlay.
        force_share: do not lock the image, so that whoever else wants it (a machine being started) gets it;
            needs ``read_only``, and what is read is good only if nobody wrote meanwhile.
        timeout: seconds that the server may take to start, and any wait for it later.
    """

    def __init__(
        self,
        image: Path,
        format: str,  # noqa: A002 - QEMU's word
        *,
        read_only: bool = True,
        bitmap: str | None = None,
        cache: str = "writeback",
        allow_references: bool = False,
        force_share: bool = False,
        timeout: float = 60.0,
    ) -> None:
        if force_share and not read_only:
            raise ValueError("an image that is not locked can only be read")
        self.image = image
        self.format = format
        self.read_only = read_only
        self.bitmap = bitmap
        self.cache = cache
        self.allow_references = allow_references
        self.force_share = force_share
        self.timeout = timeout

    @property
    def socket(self) -> Path:
        """Where it listens, while the ``with`` block runs."""
        return Path(self._directory.name) / "nbd.sock"

    @property
    def contexts(self) -> tuple[str, ...]:
        """The meta contexts that it serves."""
        return (BASE_ALLOCATION, f"{_DIRTY_BITMAP}{self.bitmap}") if self.bitmap else (BASE_ALLOCATION,)

    def connect(self) -> NbdClient:
        """Give a new connection that has negotiated all ``contexts``.

        Raises:
            SourceLost: the server has gone.
        """
        return NbdClient.connect(self.socket, contexts=self.contexts, timeout=self.timeout)

    def __enter__(self) -> Self:
        """Start the server.

        Raises:
            UsageError: the format is unknown or not that of the image.
            PermissionRefused: somebody else uses the image, it names other files, or we may not read it.
            SourceLost: image or bitmap are not there or damaged.
            PlatformUnavailable: qemu-nbd is missing.
        """
        image_info(self.image, self.format, allow_references=self.allow_references)
        self._directory = tempfile.TemporaryDirectory(prefix="hotspare-nbd-")
        try:
            self._start()
        except BaseException:
            self._directory.cleanup()
            raise
        try:
            self._keep_alive = self._wait_until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_exception: object) -> None:
        """Stop the server and remove its socket.

        Raises:
            SourceLost: it did not end properly, so an image that was written may be damaged.
        """
        status = self._stop()
        self._keep_alive.close()
        if status != 0 and not self.read_only and kind is None:
            raise SourceLost(
                f"qemu-nbd ended with status {status} while serving {self.image}",
                meaning="What was written to the image may be incomplete",
                hint="Check the image with qemu-img check and write it again",
            )

    def _command(self) -> list[str]:
        options = ["-k", str(self.socket), "-e", str(CONNECTIONS), f"--cache={self.cache}"]
        options += ["-r"] if self.read_only else ["--discard=unmap", "--detect-zeroes=off"]
        options += ["-B", self.bitmap] if self.bitmap else []
        return ["qemu-nbd", *options, *(self._unlocked_image() if self.force_share else self._image())]

    def _image(self) -> list[str]:
        return ["-f", self.format, str(self.image.absolute())]

    def _unlocked_image(self) -> list[str]:
        driver = "host_device" if self.image.is_block_device() else "file"
        # A comma in a value of QEMU's option lists is written twice.
        name = str(self.image.absolute()).replace(",", ",,")
        options = (
            f"driver={self.format}",
            f"file.driver={driver}",
            f"file.filename={name}",
            "force-share=on",
        )
        return ["--image-opts", ",".join(options)]

    def _start(self) -> None:
        with self._log.open("wb") as log:
            try:
                # A process group of its own: Ctrl-C in a terminal is for us and must not kill it halfway.
                self._process = subprocess.Popen(
                    self._command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(),
                    process_group=0,
                )
            except FileNotFoundError:
                raise _program_missing("qemu-nbd") from None

    @property
    def _log(self) -> Path:
        return Path(self._directory.name) / "log"

    def _wait_until_ready(self) -> NbdClient:
        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise _explain(self._log.read_text(errors="replace"), self.image)
            if self.socket.exists():
                try:
                    return self.connect()
                except SourceLost:
                    # The socket exists a moment before it is listened on; anything worse ends the process.
                    pass
            time.sleep(0.01)
        raise SourceLost(f"qemu-nbd did not open {self.image} within {self.timeout:g} seconds")

    def _stop(self) -> int:
        """End the process, at the latest by force; return its exit status."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
            return self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            return -1
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._directory.cleanup()


def _check_format(name: str) -> None:
    if name not in FORMATS:
        raise UsageError(f"Unknown image format {name!r}", hint=f"Known are {', '.join(FORMATS)}")


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def run_tool(command: Sequence[str], path: Path, *, timeout: float | None = _TOOL_TIMEOUT) -> str:
    """Run one of QEMU's programs on an image and give what it printed.

    Args:
        command: the program and its arguments.
        path: the image, for messages.
        timeout: seconds; None to wait as long as it takes.

    Raises:
        PlatformUnavailable: the program is missing.
        PermissionRefused: we may not use the image, or somebody else does.
        NoSpace, UsageError, SourceLost: what the program complains about.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=_environment(),
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise _program_missing(command[0]) from None
    except subprocess.TimeoutExpired:
        raise SourceLost(f"{command[0]} did not finish with {path} in {timeout:g} seconds") from None
    if done.returncode:
        raise _explain(done.stderr, path)
    return done.stdout


def _parse_info(raw: dict[str, Any], path: Path) -> ImageInfo:
    _check_format(raw["format"])
    specific = raw.get("format-specific", {}).get("data", {})
    references = [raw.get("full-backing-filename") or raw.get("backing-filename"), specific.get("data-file")]
    own = {str(path), str(path.absolute())}
    references += [
        extent["filename"] for extent in specific.get("extents", ()) if extent["filename"] not in own
    ]
    return ImageInfo(
        format=raw["format"],
        virtual_size=raw["virtual-size"],
        actual_size=raw.get("actual-size", 0),
        references=tuple(name for name in references if name),
        bitmaps=tuple(
            bitmap["name"] for bitmap in specific.get("bitmaps", ()) if "in-use" not in bitmap["flags"]
        ),
    )


def _refuse_qcow2_references(path: Path, format: str | None) -> None:  # noqa: A002 - QEMU's word
    """Look for other files in a qcow2 header before QEMU does, as it has opened them while only asking.

    Source: QEMU's docs/interop/qcow2.txt, section "Header".
    """
    if format not in (None, "qcow2"):
        return
    try:
        with path.open("rb") as image:
            header = image.read(80)
    except OSError as error:
        raise _explain(f"Could not open {path}: {error.strerror}", path) from error
    if len(header) < 80 or header[:4] != b"QFI\xfb":
        return
    version = int.from_bytes(header[4:8], "big")
    external_data = version >= 3 and int.from_bytes(header[72:80], "big") & 0b100
    if int.from_bytes(header[8:16], "big") or external_data:
        raise _references_refused(path, ("named in its header",))


def _references_refused(path: Path, references: Sequence[str]) -> HotspareError:
    return PermissionRefused(
        f"{path} refers to other files ({', '.join(references)})",
        meaning="It was not opened, as its header could name any file of this host",
        hint="Flatten it with qemu-img convert, if you trust where it comes from",
    )


def _program_missing(program: str) -> HotspareError:
    return PlatformUnavailable(
        f"The program {program} is missing", hint="Install QEMU's tools (package qemu-utils or qemu-img)"
    )


def _explain(said: str, path: Path) -> HotspareError:
    """Turn what a QEMU tool wrote to stderr into our error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    what = f"QEMU cannot use {path}: {lines[-1] if lines else 'it does not say why'}"
    if "lock" in said and "Failed to get" in said:
        return PermissionRefused(
            f"{path} is in use by another program, probably a running machine",
            hint="Back it up through its platform, or shut it down first",
        )
    if "Permission denied" in said or "Read-only file system" in said:
        return PermissionRefused(what, hint="Run as a user who may")
    if "No space left" in said:
        return NoSpace(what, hint="Make room in its file system, or choose another place")
    if ("not in" in said and "format" in said) or "invalid VMDK image descriptor" in said:
        return UsageError(what, hint="Check its format with qemu-img info")
    return SourceLost(what, hint="Check the path, and the image with qemu-img check")
