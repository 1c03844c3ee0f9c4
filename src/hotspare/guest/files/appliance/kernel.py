"""The kernel that the micro-VM boots: one of the host's, with its modules in loading order.

Each module names what it needs in its ``.modinfo`` section as ``depends=a,b``; see "modinfo" in the kernel's
Documentation/kbuild/modules.rst. Distributions compress modules in several ways.
"""

import gzip
import lzma
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import zstandard

from hotspare.errors import PlatformUnavailable

IMAGE_VARIABLE = "HOTSPARE_APPLIANCE_KERNEL"
MODULES_VARIABLE = "HOTSPARE_APPLIANCE_MODULES"
INSTALL_HINT = (
    "Install a kernel (Debian: apt-get install linux-image-cloud-amd64), "
    f"or name one with {IMAGE_VARIABLE} and the folder of its modules with {MODULES_VARIABLE}"
)
QUICK = (
    "mitigations=off audit=0 cryptomgr.notests"
    " initcall_blacklist=init_kprobe_trace,load_system_certificate_list"
)
"""Arguments of a kernel that boots for one purpose: an emulated processor takes a second for tests of
ciphers, probes and signed certificates, which nobody needs there."""
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True)
class Kernel:
    """A bootable kernel and the folder of its modules, ``/lib/modules/6.1.0-13-amd64``."""

    image: Path
    modules: Path
    _contents: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def in_order(self, wanted: Iterable[str]) -> dict[str, bytes]:
        """Read modules and all that they need, in loading order; what this kernel lacks is left out.

        Raises:
            PlatformUnavailable: a module cannot be read.
        """
        loaded: dict[str, bytes] = {}
        for module in wanted:
            self._load(module, loaded, set())
        return loaded

    def has(self, module: str) -> bool:
        """Tell whether a driver is built in or a module."""
        return module in self._builtin or module in self._files

    def _load(self, module: str, loaded: dict[str, bytes], begun: set[str]) -> None:
        if module in loaded or module in begun or module in self._builtin or module not in self._files:
            return
        begun.add(module)
        content = self._contents.get(module) or _uncompressed(self._files[module])
        self._contents[module] = content
        needs = _DEPENDS.search(content)
        for other in needs[1].decode().split(",") if needs and needs[1] else ():
            self._load(other.replace("-", "_"), loaded, begun)
        loaded[module] = content

    @cached_property
    def _files(self) -> dict[str, Path]:
        return {_name(path): path for path in self.modules.rglob("*.ko*")}

    @cached_property
    def _builtin(self) -> set[str]:
        try:
            lines = (self.modules / "modules.builtin").read_text().splitlines()
        except OSError:
            return set()
        return {_name(Path(line)) for line in lines}


def find_kernel(environment: Mapping[str, str], root: Path = Path("/")) -> Kernel:
    """Give the kernel that the environment names, or else the newest that is installed here.

    Raises:
        PlatformUnavailable: there is none.
    """
    if named := environment.get(IMAGE_VARIABLE):
        kernel = Kernel(Path(named), Path(environment.get(MODULES_VARIABLE, "/nowhere")))
        if kernel.image.is_file() and kernel.modules.is_dir():
            return kernel
        raise PlatformUnavailable(
            f"{IMAGE_VARIABLE} or {MODULES_VARIABLE} names something that is not there",
            meaning="The micro-VM that reads this file system cannot be started",
            hint="Name a kernel image and the folder of its modules, or unset both",
        )
    folders = [folder for parent in ("lib/modules", "usr/lib/modules") for folder in root.glob(f"{parent}/*")]
    for modules in sorted(folders, key=lambda folder: _version(folder.name), reverse=True):
        for image in (root / f"boot/vmlinuz-{modules.name}", modules / "vmlinuz"):
            if image.is_file():
                return Kernel(image, modules)
    raise PlatformUnavailable(
        "This host has no kernel that a micro-VM could boot",
        meaning="The files of this file system cannot be read, and nothing was changed",
        hint=INSTALL_HINT,
    )


def _version(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", name)))


def _name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _uncompressed(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        match path.suffix:
            case ".xz":
                return lzma.decompress(content)
            case ".gz":
                return gzip.decompress(content)
            case ".zst":
                return zstandard.ZstdDecompressor().decompressobj().decompress(content)
            case _:
                return content
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as error:
        raise PlatformUnavailable(
            f"The kernel module {path} cannot be read: {error}",
            meaning="The micro-VM that reads this file system cannot be started",
            hint=INSTALL_HINT,
        ) from error
