"""Packages of the host's distribution, downloaded and unpacked without installing them."""

import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.programs import run

# Names for "the newest kernel for virtual machines"; the second is Ubuntu's, which is not tested.
_KERNELS = ("linux-image-cloud-amd64", "linux-image-virtual")
_NOT_WANTED = ("libc6", "libllvm", "libelogind")
_PROGRAMS = ("busybox-static", "grub-common", "grub-pc-bin", "qemu-guest-agent")


@dataclass(frozen=True, slots=True)
class Package:
    """One package in the version that the host's package lists offer."""

    name: str
    version: str
    depends: str

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


def guest_packages() -> list[Package]:
    """Find what the guest is made of: a kernel, the guest agent, busybox and a boot loader.

    Raises:
        LabError: the package lists of the host lack one of them.
    """
    kernels = _known(_KERNELS)
    if not kernels:
        run("apt-get", "--quiet", "update")
        kernels = _known(_KERNELS)
    images = [word for kernel in kernels for word in re.findall(r"linux-image-[0-9]\S*", kernel.depends)]
    if not images:
        raise LabError(f"The package lists of this host lack a kernel ({' or '.join(_KERNELS)})")
    found = _candidates([images[0], *_PROGRAMS])
    # Ubuntu has the kernel's modules in a package of their own.
    modules = [word for package in found for word in re.findall(r"linux-modules-[0-9]\S*", package.depends)]
    return [*found, *_candidates(modules[:1])]


def named_packages(names: Sequence[str]) -> list[Package]:
    """Find packages by their names alone.

    Raises:
        LabError: the package lists of the host lack one of them.
    """
    return _candidates(names)


def packages_with_libraries(names: Sequence[str]) -> list[Package]:
    """Find packages and the libraries that they need, directly or not; the C library is the host's own.

    Raises:
        LabError: the package lists of the host lack one of them.
    """
    found: dict[str, Package] = {}
    wanted = list(names)
    while wanted:
        found |= {package.name: package for package in _candidates(wanted)}
        needed = re.findall(r"\blib[a-z0-9+.-]+", " ".join(found[name].depends for name in wanted))
        # LLVM is large and only makes long queries faster.
        wanted = [
            name for name in dict.fromkeys(needed) if name not in found and not name.startswith(_NOT_WANTED)
        ]
    return list(found.values())


def unpack(packages: Iterable[Package], folder: Path) -> None:
    """Download the packages and unpack all of them into one tree."""
    with tempfile.TemporaryDirectory() as scratch:
        downloads = Path(scratch)
        # apt drops its privileges to download and then needs to write there.
        downloads.chmod(0o755)
        if os.geteuid() == 0 and "_apt" in (user.pw_name for user in pwd.getpwall()):
            shutil.chown(downloads, "_apt")
        _download([str(package) for package in packages], downloads)
        for archive in sorted(downloads.glob("*.deb")):
            run("dpkg-deb", "--extract", archive, folder)


def _download(names: Sequence[str], folder: Path) -> None:
    try:
        run("apt-get", "--quiet", "download", *names, cwd=folder)
    except LabError:
        # A list that is some days old names versions that the archive has dropped since.
        run("apt-get", "--quiet", "update")
        run("apt-get", "--quiet", "download", *(name.partition("=")[0] for name in names), cwd=folder)


def _candidates(names: Sequence[str]) -> list[Package]:
    if not names:
        return []
    found = _known(names)
    if len(found) < len(names):
        run("apt-get", "--quiet", "update")
        found = _known(names)
    if missing := set(names) - {package.name for package in found}:
        raise LabError(f"The package lists of this host lack {', '.join(sorted(missing))}")
    return found


def _known(names: Sequence[str]) -> list[Package]:
    """Look names up in the package lists; those that are unknown are left out."""
    try:
        # apt needs half a second however few names it is asked for.
        stanzas = run("apt-cache", "show", "--no-all-versions", *names).split("\n\n")
    except LabError:
        return []  # not one of them is known
    fields = [dict(re.findall(r"^([A-Z][\w-]*): (.*)$", stanza, re.MULTILINE)) for stanza in stanzas]
    return [Package(each["Package"], each["Version"], each.get("Depends", "")) for each in fields if each]
