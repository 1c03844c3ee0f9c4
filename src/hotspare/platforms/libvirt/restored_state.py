"""Files of a domain being restored that are no disks: UEFI variables and the memory of a TPM."""

import os
import shutil
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath

from hotspare.errors import TargetExists
from hotspare.platforms.libvirt.definition import NewState
from hotspare.platforms.libvirt.state import NVRAM, TPM_PREFIX, StateFolders
from hotspare.platforms.platform import Machine, StateFile


class RestoredState:
    """Writes such files, and removes them again unless ``keep`` is called.

    The UEFI variables lie beside the disks, under a name that is made for this machine: libvirt's own place
    may hold a file of an earlier machine of the same name, which it would take. libvirt gives all of them the
    owner that QEMU and swtpm need when it starts the machine.

    Args:
        uri: of the platform.
        machine: as it was backed up.
        nvram: path for the UEFI variables, without a suffix.
        kept_uuid: of the domain to be; None for a new one, where it matters.
        in_place: what is there is of an earlier time of this very machine, and is replaced.
    """

    def __init__(
        self, uri: str, machine: Machine, nvram: Path, *, kept_uuid: str | None = None, in_place: bool = False
    ) -> None:
        self._folders = StateFolders.of(uri)
        self._nvram = nvram
        self._kept_uuid = kept_uuid
        self._in_place = in_place
        self._definition = _definition_of(machine)
        self._made: list[Path] = []
        self.placed = NewState()

    def add(self, state: StateFile) -> str | None:
        """Write one piece of state; says why that is not possible, None when it is done.

        Raises:
            TargetExists: there is a file in its place.
        """
        try:
            if state.name == NVRAM and self._definition is not None:
                self._add_nvram(state.content, self._definition)
                return None
            if state.name.startswith(TPM_PREFIX) and self._definition is not None:
                self._add_tpm_file(PurePosixPath(state.name).name, state.content, self._definition)
                return None
        except FileExistsError as error:
            raise TargetExists(
                f"{error.filename} exists already",
                meaning="Nothing was written there, and it was left alone",
                hint="Choose another name with --to, or another folder",
            ) from error
        except OSError as error:
            return f"{state.name} was not restored: {error.filename}: {error.strerror}"
        return f"{state.name} was not restored: libvirt has no place for it"

    def _add_nvram(self, content: bytes, definition: ET.Element) -> None:
        element = definition.find("os/nvram")
        qcow2 = element is not None and element.get("format") == "qcow2"
        path = self._nvram.with_name(f"{self._nvram.name}.{'qcow2' if qcow2 else 'fd'}")
        self._write(path, content)
        self.placed = self.placed._replace(nvram=path)

    def _add_tpm_file(self, name: str, content: bytes, definition: ET.Element) -> None:
        new_uuid = self.placed.uuid or self._kept_uuid or str(uuid.uuid4())
        backend = definition.find("devices/tpm/backend[@type='emulator']")
        folder = self._folders.tpm_of(new_uuid, "2.0" if backend is None else backend.get("version", "2.0"))
        if self.placed.uuid is None:
            for part, mode in ((self._folders.tpm, 0o711), (folder.parent, 0o711), (folder, 0o700)):
                if not part.is_dir():
                    part.mkdir(mode=mode, parents=True)
                    part.chmod(mode)
            if self._in_place:
                _empty(folder)
            else:
                self._made.append(folder.parent)
        self._write(folder / name, content)
        # Only now: a folder that is there without its files would keep libvirt from making a fresh TPM.
        self.placed = self.placed._replace(uuid=new_uuid)

    def _write(self, path: Path, content: bytes) -> None:
        if self._in_place:
            path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._made.append(path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def keep(self) -> None:
        """Leave all files where they are."""
        self._made.clear()

    def discard(self) -> None:
        """Remove what was made and not kept."""
        while self._made:
            path = self._made.pop()
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    """Remove the files of another time of a TPM: swtpm would take those that the newer one lacks, too."""
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


def _definition_of(machine: Machine) -> ET.Element | None:
    if not machine.native.lstrip().startswith("<domain"):
        return None
    return ET.fromstring(machine.native)  # noqa: S314 - XML that libvirt gave us
