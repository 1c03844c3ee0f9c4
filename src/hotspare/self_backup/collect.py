"""What belongs into a self-backup, read so that it fits together while everything is in use."""

import mmap
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from blake3 import blake3

from hotspare.access.database import FILE_NAME as ACCESS
from hotspare.access.database import AccessDatabase
from hotspare.catalog.catalog import FILE_NAME as CATALOG
from hotspare.errors import HotspareError, PermissionRefused
from hotspare.self_backup.manifest import KeptFile, Place, Places

DATABASES = (CATALOG, ACCESS)
"""Of the state folder. The job database is left out: what runs is over when the host is gone, and the
calendar is asked anew; what somebody asked for is in ``Manifest.orders``."""
CERTIFICATE = ("server/certificate.pem", "server/key.pem")
_BUSY_SECONDS = 30.0
_YAML = frozenset({".yaml", ".yml"})

Content = bytes | mmap.mmap


class Item(NamedTuple):
    """A file that is to be kept."""

    file: KeptFile
    content: Content

    @classmethod
    def of(cls, place: Place, path: str, content: Content, mode: int = 0o600) -> "Item":
        """Describe some content."""
        digest = blake3(content).hexdigest()
        return cls(KeptFile(place=place, path=path, size=len(content), mode=mode, digest=digest), content)


def configuration_items(places: Places) -> Iterator[Item]:
    """Read what people have written or had written: settings, YAML, policies, the server's certificate."""
    named = [(Place.SETTINGS, places.settings.name)]
    named += [(Place.CONFIGURATION, name) for name in _yaml_in(places.settings.parent)]
    if places.policies != places.settings.parent:
        named += [(Place.POLICIES, name) for name in _yaml_in(places.policies)]
    named += [(Place.STATE, name) for name in CERTIFICATE]
    for place, name in named:
        path = places.path(place, name)
        try:
            content, mode = path.read_bytes(), path.stat().st_mode & 0o777
        except FileNotFoundError:
            continue
        except OSError as error:
            raise PermissionRefused(
                f"{path} cannot be read: {error.strerror}", meaning="There is no new self-backup"
            ) from error
        yield Item.of(place, name, content, mode)


def database_items(places: Places, staging: Path) -> Iterator[Item]:
    """Copy the databases as they are at one moment each, however they are written to meanwhile."""
    for name in DATABASES:
        if (places.state / name).exists():
            copy = staging / name
            copy_database(places.state / name, copy)
            with copy.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            yield Item.of(Place.STATE, name, content)


def copy_database(source: Path, target: Path) -> None:
    """Copy an SQLite database page by page, which keeps unchanged pages in their place.

    Raises:
        HotspareError: it cannot be read, or what was copied is damaged.
    """
    target.unlink(missing_ok=True)
    uri = f"file:{quote(str(source))}?mode=rw"
    try:
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            if (found := copy.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(found)
        target.chmod(0o600)
    except (sqlite3.Error, OSError) as error:
        raise HotspareError(
            f"{source} cannot be copied: {error}",
            meaning="There is no new self-backup; those that there are stay",
            hint="If the file is damaged, put it back from a self-backup: see docs/self-backup.md",
        ) from error


def fingerprint(configuration: Iterable[Item], access: AccessDatabase) -> str:
    """Give what changes when somebody changes something: configuration, users, tokens; not history."""
    hasher = blake3()
    for item in configuration:
        hasher.update(f"{item.file.disk}\0{item.file.digest}\0".encode())
    for query in (
        "SELECT name, password, totp, totp_confirmed, grants, disabled FROM users ORDER BY name",
        "SELECT * FROM tokens WHERE kind = 'token' ORDER BY id",
        "SELECT * FROM settings ORDER BY key",
    ):
        hasher.update(repr([tuple(row) for row in access.rows(query)]).encode())
    return hasher.hexdigest()


def _yaml_in(folder: Path) -> list[str]:
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise PermissionRefused(
            f"{folder} cannot be read: {error.strerror}", meaning="There is no new self-backup"
        ) from error
    return sorted(name for name in names if Path(name).suffix in _YAML and name.isprintable())
