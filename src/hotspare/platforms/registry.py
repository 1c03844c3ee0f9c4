"""Which platform a URI means. Adding a platform takes one line in ``_OPENERS`` and one package."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from hotspare.errors import UsageError
from hotspare.platforms.platform import Machine, Platform


def open_platform(uri: str, *, scratch_folder: Path | None = None) -> Platform:
    """Connect to the platform that a URI names.

    Args:
        uri: ``qemu:///system``, ``qemu:///session``, ``images:///folder`` or just the path of a folder, or
            ``replica:///folder`` for the replicas on a standby.
        scratch_folder: where a running machine's overwritten blocks wait; None for the platform's default.

    Raises:
        UsageError: no platform has such URIs.
        PlatformUnavailable: nothing answers there.
        PermissionRefused: we may not go there.
    """
    scheme = urlsplit(uri).scheme or "images"
    opener = _OPENERS.get(scheme)
    if opener is None:
        raise UsageError(
            f"{uri!r} is not a platform that Hotspare knows",
            meaning="Nothing was done",
            hint="Use qemu:///system, qemu:///session, or images:///FOLDER for a folder of disk images",
        )
    return opener(uri, scratch_folder)


def plain_uri(uri: str) -> str:
    """Give the one way to write the URI of a platform, without connecting: that of ``Platform.uri``."""
    parts = urlsplit(uri)
    if parts.scheme not in {"", "images"} or parts.netloc:
        return uri
    folder = Path(unquote(parts.path)) if parts.scheme else Path(uri)
    return f"images://{quote(str(folder.absolute()))}"


def without_secrets(machine: Machine) -> str:
    """Give a machine's native definition without passwords; empty when it has none."""
    if not machine.native.lstrip().startswith("<domain"):
        return machine.native
    from hotspare.platforms.libvirt.definition import without_secrets as of_domain  # noqa: PLC0415 - see below

    return of_domain(machine.native)


def networks_of(machine: Machine) -> tuple[tuple[str, str], ...]:
    """Give what a machine's network cards are plugged into: ``network`` or ``bridge``, and its name."""
    if not machine.native.lstrip().startswith("<domain"):
        return ()
    from hotspare.platforms.libvirt.mapping import networks_of as of_domain  # noqa: PLC0415 - see below

    return of_domain(machine.native)


# A platform's package is imported only when it is opened: a host without libvirt can use all others.


def _open_libvirt(uri: str, scratch_folder: Path | None) -> Platform:
    if urlsplit(uri).netloc:
        _refuse_remote(uri, "")
    from hotspare.platforms.libvirt.platform import LibvirtPlatform  # noqa: PLC0415 - see above

    return LibvirtPlatform(uri, scratch_folder=scratch_folder)


def _open_images(uri: str, _scratch_folder: Path | None) -> Platform:
    from hotspare.platforms.images.platform import ImagesPlatform  # noqa: PLC0415 - see above

    parts = urlsplit(uri)
    if parts.netloc:
        raise UsageError(
            f"{uri!r} names the host {parts.netloc!r}, but images are read from local folders only",
            meaning="Nothing was done",
            hint=f"Write three slashes before the folder: images:///{parts.netloc}{parts.path}",
        )
    return ImagesPlatform(Path(unquote(parts.path)) if parts.scheme else Path(uri))


def _open_replica(uri: str, _scratch_folder: Path | None) -> Platform:
    from hotspare.platforms.replica.platform import ReplicaPlatform  # noqa: PLC0415 - see above

    parts = urlsplit(uri)
    if parts.netloc:
        raise UsageError(
            f"{uri!r} names the host {parts.netloc!r}, but replicas are read on their standby only",
            meaning="Nothing was done",
            hint=f"Write three slashes before the folder: replica:///{parts.netloc}{parts.path}",
        )
    return ReplicaPlatform(Path(unquote(parts.path)))


def _refuse_remote(uri: str, _unused: object) -> Platform:
    raise UsageError(
        f"{uri!r} is on another host, and this can be done on the host of the machines only",
        meaning="Nothing was done",
        hint="Run it there with qemu:///system; backups and restores can be run from here, with"
        " qemu+ssh://HOST/system",
    )


_OPENERS: dict[str, Callable[[str, Path | None], Platform]] = {
    "qemu": _open_libvirt,
    "qemu+ssh": _refuse_remote,
    "images": _open_images,
    "replica": _open_replica,
}
