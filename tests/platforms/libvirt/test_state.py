"""UEFI variables and TPM files of a domain: what is read, what is warned of, and where it is put back."""

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt
import pytest

from hotspare.errors import TargetExists
from hotspare.platforms.libvirt import state as state_module
from hotspare.platforms.libvirt.platform import LibvirtPlatform
from hotspare.platforms.libvirt.restored_state import RestoredState
from hotspare.platforms.libvirt.state import read_state
from hotspare.platforms.platform import Machine, PowerState, StateFile, TargetRequest
from lab import connection, domain_name

pytestmark = pytest.mark.lab

URI = "qemu:///system"
SWTPM = Path("/var/lib/libvirt/swtpm")
EMULATED = "<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>"

Define = Callable[..., libvirt.virDomain]


@pytest.fixture
def define(lab_host: None, tmp_path: Path) -> Iterator[Define]:
    """Define a machine that is never started, with its variables at ``vars.fd``."""
    made: list[libvirt.virDomain] = []

    def make(tpm: str = "", nvram: Path = tmp_path / "vars.fd") -> libvirt.virDomain:
        domain = connection().defineXML(
            f"<domain type='qemu'><name>{domain_name('state-of')}</name><memory unit='MiB'>32</memory>"
            "<os><type arch='x86_64' machine='q35'>hvm</type>"
            "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"
            f"<nvram>{nvram}</nvram></os><features><acpi/></features><devices>{tpm}</devices></domain>"
        )
        made.append(domain)
        return domain

    yield make
    for domain in made:
        shutil.rmtree(SWTPM / domain.UUIDString(), ignore_errors=True)
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)


@contextmanager
def tpm_files(domain: libvirt.virDomain, **files: bytes) -> Iterator[None]:
    folder = SWTPM / domain.UUIDString() / "tpm2"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    yield


def test_what_is_there_is_read(define: Define, tmp_path: Path) -> None:
    (tmp_path / "vars.fd").write_bytes(b"variables")
    domain = define(EMULATED)
    with tpm_files(domain, tpm2permall=b"secrets", _lock=b"", TMP2permall=b"half", tpm2empty=b""):
        read = read_state(domain, URI)

    assert {one.name: one.content for one in read.files} == {
        "nvram": b"variables",
        "tpm/tpm2permall": b"secrets",
    }
    assert read.warnings == ()


def test_a_machine_that_was_never_started_has_none(define: Define) -> None:
    assert read_state(define(EMULATED), URI) == ((), ())


@pytest.mark.parametrize(
    ("tpm", "warning"),
    [
        ("<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>", "passthrough TPM"),
        (
            "<tpm><backend type='emulator' version='2.0'>"
            "<encryption secret='6a1f0c5e-8a52-4d53-9d5c-0b6f9f0c3c11'/></backend></tpm>",
            "encrypted with a secret",
        ),
    ],
)
def test_what_a_restore_will_lack_is_said(define: Define, tpm: str, warning: str) -> None:
    (said,) = read_state(define(tpm), URI).warnings
    assert warning in said


def test_what_cannot_be_read_is_said(define: Define, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    read = read_state(define(nvram=tmp_path / "folder"), URI)
    assert read.files == ()
    assert "the UEFI variables cannot be read" in read.warnings[0]


def test_a_file_that_keeps_changing_is_said_to_be_torn(
    define: Define, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vars.fd").write_bytes(b"variables")
    readings = iter(range(1000))
    monkeypatch.setattr(state_module, "_read", lambda _path: b"%d" % next(readings))
    monkeypatch.setattr(state_module, "_PAUSE_SECONDS", 0)
    read = read_state(define(), URI)
    assert "may be torn" in read.warnings[0]
    assert len(read.files) == 1


def machine_of(domain: libvirt.virDomain) -> Machine:
    return Machine(id="x", name="x", platform=URI, state=PowerState.OFF, native=domain.XMLDesc(0))


def test_files_of_a_restore_that_failed_are_removed(define: Define, tmp_path: Path) -> None:
    state = RestoredState(URI, machine_of(define(EMULATED)), tmp_path / "new-nvram")
    assert state.add(StateFile(name="nvram", content=b"variables")) is None
    assert state.add(StateFile(name="tpm/tpm2-00.permall", content=b"secrets")) is None
    assert state.placed.uuid is not None
    folder = SWTPM / state.placed.uuid / "tpm2"
    assert [path.name for path in folder.iterdir()] == ["tpm2-00.permall"]
    assert (tmp_path / "new-nvram.fd").read_bytes() == b"variables"

    state.discard()

    assert not folder.parent.exists()
    assert not (tmp_path / "new-nvram.fd").exists()


def test_a_machine_that_comes_back_replaces_what_is_there_of_an_earlier_time(
    define: Define, tmp_path: Path
) -> None:
    """Files that the newer TPM lacks go, or swtpm would take them for its own."""
    domain = define(EMULATED)
    (tmp_path / "new-nvram.fd").write_bytes(b"older variables")
    with tpm_files(domain, permall=b"older", volatile=b"older"):
        state = RestoredState(
            URI, machine_of(domain), tmp_path / "new-nvram", kept_uuid=domain.UUIDString(), in_place=True
        )
        assert state.add(StateFile(name="nvram", content=b"variables")) is None
        assert state.add(StateFile(name="tpm/permall", content=b"secrets")) is None
        assert state.add(StateFile(name="tpm/..", content=b"x")) is not None
        folder = SWTPM / domain.UUIDString() / "tpm2"
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"permall": b"secrets"}
    assert (tmp_path / "new-nvram.fd").read_bytes() == b"variables"


def test_names_from_a_repository_lead_nowhere_else(define: Define, tmp_path: Path) -> None:
    state = RestoredState(URI, machine_of(define(EMULATED)), tmp_path / "new-nvram")
    assert state.add(StateFile(name="tpm/../../../escape", content=b"x")) is None
    assert state.placed.uuid is not None
    assert (SWTPM / state.placed.uuid / "tpm2" / "escape").exists()
    state.discard()
    assert state.add(StateFile(name="tpm/..", content=b"x")) is not None
    state.discard()


def test_variables_are_never_written_over_a_file(
    platform: LibvirtPlatform, define: Define, tmp_path: Path
) -> None:
    taken = tmp_path / f"{domain_name('again')}-nvram.fd"
    taken.write_bytes(b"somebody's")
    target = platform.create_target(
        machine_of(define()), TargetRequest(name=domain_name("again"), folder=tmp_path)
    )
    with pytest.raises(TargetExists, match="exists already"):
        target.add_state(StateFile(name="nvram", content=b"x"))
    target.discard()
    assert taken.read_bytes() == b"somebody's"


def test_the_definition_names_what_was_placed(
    platform: LibvirtPlatform, define: Define, tmp_path: Path
) -> None:
    name = domain_name("placed")
    target = platform.create_target(machine_of(define(EMULATED)), TargetRequest(name=name, folder=tmp_path))
    target.add_state(StateFile(name="nvram", content=b"x"))
    target.add_state(StateFile(name="tpm/tpm2-00.permall", content=b"y"))
    try:
        made = target.finalize()
        target.discard()
        definition = ET.fromstring(made.native)
        assert definition.findtext("os/nvram") == str(tmp_path / f"{name}-nvram.fd")
        assert (SWTPM / made.id / "tpm2" / "tpm2-00.permall").read_bytes() == b"y"
        again = read_state(connection().lookupByName(name), URI)
        assert {one.name: one.content for one in again.files} == {"nvram": b"x", "tpm/tpm2-00.permall": b"y"}
    finally:
        connection().lookupByName(name).undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
