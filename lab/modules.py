"""Kernel modules in the order in which they can be loaded.

Packages carry no ``modules.dep`` (it is made on installation), but each module names what it needs in its
``.modinfo`` section as ``depends=a,b``; see "modinfo" in the kernel's Documentation/kbuild/modules.rst.
"""

import gzip
import lzma
import re
from collections.abc import Sequence
from pathlib import Path

import zstandard

from lab.errors import LabError

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def modules_in_order(tree: Path, wanted: Sequence[str]) -> dict[str, bytes]:
    """Read modules and all that they need.

    Args:
        tree: folder of one kernel, ``lib/modules/6.1.0-13-cloud-amd64``.
        wanted: module names; those built into the kernel are left out.

    Returns:
        Module name to its uncompressed file, in loading order.

    Raises:
        LabError: the kernel has no such module.
    """
    files = {_name(path): path for path in tree.rglob("*.ko*")}
    builtin = {_name(Path(line)) for line in (tree / "modules.builtin").read_text().splitlines()}
    loaded: dict[str, bytes] = {}

    def load(module: str) -> None:
        if module in loaded or module in builtin:
            return
        if module not in files:
            raise LabError(f"The kernel in {tree.name} has no module {module}")
        content = _read(files[module])
        needs = _DEPENDS.search(content)
        for other in needs[1].decode().split(",") if needs and needs[1] else ():
            load(other.replace("-", "_"))
        loaded[module] = content

    for module in wanted:
        load(module)
    return loaded


def _name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(content)
        case ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(content)
        case ".gz":
            return gzip.decompress(content)
        case _:
            return content
