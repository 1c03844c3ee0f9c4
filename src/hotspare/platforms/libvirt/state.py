"""What a domain keeps outside of its disks: UEFI variables (NVRAM) and the memory of an emulated TPM.

Both are small files of this host. QEMU writes the variables in place, as a guest sets them, in the order in
which the firmware keeps them whole over a power cut; so a file that is the same in two readings one after the
other is as good as one after a power cut. swtpm (0.5 and later) writes a new file and renames it.
"""

import os
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import libvirt

from hotspare.platforms.libvirt.connection import message_of
from hotspare.platforms.platform import StateFile
from hotspare.units import MIB, format_bytes

NVRAM = "nvram"
TPM_PREFIX = "tpm/"
_SIZE_MAX = 256 * MIB
_ATTEMPTS = 10
_PAUSE_SECONDS = 0.02
_VERSION_FOLDERS = {"1.2": "tpm1.2", "2.0": "tpm2"}
_NOT_STATE = (".", "TMP")
"""swtpm's lock, and files that it has not renamed yet."""


class StateFolders(NamedTuple):
    """Where libvirt keeps such files unless a definition says otherwise."""

    nvram: Path
    tpm: Path

    @classmethod
    def of(cls, uri: str) -> "StateFolders":
        """Give the folders of ``qemu:///system`` or of this user's ``qemu:///session``."""
        if urlsplit(uri).path != "/session":
            return cls(Path("/var/lib/libvirt/qemu/nvram"), Path("/var/lib/libvirt/swtpm"))
        configured = os.environ.get("XDG_CONFIG_HOME")
        base = (Path(configured) if configured else Path.home() / ".config") / "libvirt" / "qemu"
        return cls(base / "nvram", base / "swtpm")

    def tpm_of(self, uuid: str, version: str) -> Path:
        """Give the folder with the files of a domain's TPM."""
        return self.tpm / uuid / _VERSION_FOLDERS.get(version, "tpm2")


class StateRead(NamedTuple):
    """What was read, and what could not be."""

    files: tuple[StateFile, ...]
    warnings: tuple[str, ...]


def read_state(domain: libvirt.virDomain, uri: str) -> StateRead:
    """Read all state of a domain, running or not. What cannot be read becomes a warning, never an error."""
    files: list[StateFile] = []
    warnings: list[str] = []
    try:
        # The definition of the running instance has paths that libvirt filled in.
        definition = ET.fromstring(domain.XMLDesc(0))  # noqa: S314 - libvirt's own XML
    except libvirt.libvirtError as error:
        return StateRead((), (f"UEFI variables and TPM state are not backed up: {message_of(error)}",))
    folders = StateFolders.of(uri)
    for name, path, what in (
        *_nvram_files(definition, folders, domain.name()),
        *_tpm_files(definition, folders, domain.UUIDString()),
    ):
        try:
            content, stable = _read_twice(path)
        except OSError as error:
            warnings.append(f"{what} cannot be read ({path}: {error.strerror}), so not backed up")
            continue
        if not stable:
            warnings.append(f"{what} changed while being read: the copy may be torn, as after a power cut")
        if len(content) > _SIZE_MAX:
            warnings.append(f"{what} ({format_bytes(len(content))}) is too large, so not backed up")
        elif content:
            files.append(StateFile(name=name, content=content))
    return StateRead(tuple(files), (*warnings, *_not_kept(definition)))


_Found = tuple[str, Path, str]
"""Name of the piece of state, its file, and what to call it."""


def _nvram_files(definition: ET.Element, folders: StateFolders, name: str) -> Iterator[_Found]:
    system = definition.find("os")
    if system is None:
        return
    element = system.find("nvram")
    path = None
    if element is not None:
        source = element.find("source")
        path = source.get("file") if source is not None else (element.text or "").strip()
    what = "the UEFI variables"
    if path:
        if Path(path).exists() or definition.get("id"):  # before the first start there is no file
            yield NVRAM, Path(path), what
    elif system.get("firmware") == "efi":
        for suffix in ("fd", "qcow2"):
            usual = folders.nvram / f"{name}_VARS.{suffix}"
            if os.path.lexists(usual):
                yield NVRAM, usual, what
                return


def _tpm_files(definition: ET.Element, folders: StateFolders, uuid: str) -> Iterator[_Found]:
    for backend in definition.iterfind("devices/tpm/backend[@type='emulator']"):
        folder = folders.tpm_of(uuid, backend.get("version", "2.0"))
        source = backend.find("source")
        if source is not None:
            if source.get("type") != "dir":
                continue
            folder = Path(source.get("path", ""))
        what = "the TPM's state"
        try:
            names = sorted(path.name for path in folder.iterdir() if path.is_file())
        except FileNotFoundError:
            continue  # the machine was never started
        except OSError:
            yield TPM_PREFIX, folder, what
            continue
        for name in names:
            if not name.startswith(_NOT_STATE):
                yield TPM_PREFIX + name, folder / name, what


def _not_kept(definition: ET.Element) -> Iterator[str]:
    for backend in definition.iterfind("devices/tpm/backend"):
        kind = backend.get("type")
        source = backend.find("source")
        if kind != "emulator":
            yield f"the TPM's secrets are not backed up: it is a {kind} TPM, not one that libvirt emulates"
        elif source is not None and source.get("type") != "dir":
            yield "the TPM's state is in a single file or device, which is not supported: it is not backed up"
        if backend.find("encryption") is not None:
            yield "the TPM's state is encrypted with a secret of libvirt's, which is not backed up: keep it"


def _read_twice(path: Path) -> tuple[bytes, bool]:
    """Read a file until two readings are alike; gives the last one, and whether they were."""
    before = _read(path)
    for _ in range(_ATTEMPTS):
        content = _read(path)
        if content == before:
            return content, True
        before = content
        time.sleep(_PAUSE_SECONDS)
    return before, False


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_SIZE_MAX + 1)
