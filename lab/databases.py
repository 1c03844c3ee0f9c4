"""Real databases for guests: a disk image with a server of the distribution and a fresh database.

The guest has no package manager, so the image brings the server's programs with all libraries, under /system,
with a script ``start`` that returns when the server answers, and a script ``load`` that writes for ever and
tells what was acknowledged (``LabGuest.acked``). It is built once per version of its parts and then copied.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lab.disks import MIB
from lab.errors import LabError
from lab.image import CACHE, one_builder, remove_old_versions
from lab.packages import packages_with_libraries, unpack
from lab.programs import run

Server = Literal["postgresql", "mariadb"]

SIZE = 256 * MIB
_SCRIPTS = Path(__file__).parent / "database_scripts"
_OWNER = "nobody"
"""Owns the database: the programs refuse to run as root, and every host has this user."""
_PACKAGES = {
    "postgresql": ("postgresql-{version}", "postgresql-client-{version}"),
    "mariadb": ("mariadb-server-core", "mariadb-client-core"),
}
_PROGRAMS = {
    "postgresql": ("usr/lib/postgresql/{version}/bin/postgres", "usr/lib/postgresql/{version}/bin/psql"),
    "mariadb": ("usr/sbin/mariadbd", "usr/bin/mariadb"),
}
_DATA = {
    "postgresql": (
        "usr/share/postgresql/{version}",
        "usr/lib/postgresql/{version}/lib/plpgsql.so",
        "usr/lib/postgresql/{version}/lib/dict_snowball.so",
    ),
    "mariadb": ("usr/share/mysql/english", "usr/share/mysql/charsets"),
}


def database_disk(server: Server) -> Path:
    """Give a raw image of ``SIZE`` bytes, to be copied: an ext4 file system with server and database.

    Raises:
        LabError: the host's package lists lack the server, or the database cannot be made.
    """
    version = _version(server)
    packages = packages_with_libraries([name.format(version=version) for name in _PACKAGES[server]])
    recipe = hashlib.sha256("\n".join(str(package) for package in packages).encode())
    for source in (Path(__file__), _SCRIPTS / f"start-{server}", _SCRIPTS / f"load-{server}"):
        recipe.update(source.read_bytes())
    folder = CACHE / f"{server}-{recipe.hexdigest()[:16]}"
    image = folder / "disk.raw"
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with one_builder():
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                Path(scratch).chmod(0o755)  # the database's owner has to get in
                tree, result = Path(scratch, "tree"), Path(scratch, "result")
                unpack(packages, tree)
                result.mkdir(mode=0o755)
                _build(server, version, tree, Path(scratch, "disk"), result / image.name)
                result.rename(folder)
            remove_old_versions(folder)
    return image


def _version(server: Server) -> str:
    """Give the version in the names of the packages that the distribution has; MariaDB's have none."""
    if server == "mariadb":
        return ""
    (newest,) = packages_with_libraries(["postgresql"])
    found = re.search(r"\bpostgresql-([0-9]+)", newest.depends)
    if found is None:
        raise LabError(f"The package postgresql of this host depends on no version of it: {newest.depends}")
    return found[1]


def _build(server: Server, version: str, tree: Path, root: Path, image: Path) -> None:
    system = root / "system"
    libraries = system / "lib"
    libraries.mkdir(parents=True)
    path = _library_path(tree)
    for name in (*_PROGRAMS[server], *_DATA[server]):
        place = name.format(version=version)
        _copy(tree / place, system / place)
    for program in [file for file in system.rglob("*") if file.is_file() and _is_binary(file)]:
        for library in _libraries(program, path):
            shutil.copyfile(library, libraries / library.name)
    for script in ("start", "load"):
        shutil.copyfile(_SCRIPTS / f"{script}-{server}", system / script)
        (system / script).chmod(0o755)
    _make_database(server, version, tree, path, root / server)
    with image.open("wb") as disk:
        disk.truncate(SIZE)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", root, image)
    image.chmod(0o444)


def _make_database(server: Server, version: str, tree: Path, library_path: str, folder: Path) -> None:
    folder.mkdir()
    shutil.chown(folder, _OWNER)
    # The guest knows no other time zone.
    environment = ["env", "TZ=GMT", f"LD_LIBRARY_PATH={library_path}", "LC_ALL=C"]
    if server == "postgresql":
        initdb = tree / f"usr/lib/postgresql/{version}/bin/initdb"
        options = [
            "-U",
            "postgres",
            "-A",
            "peer",
            "--data-checksums",
            "--no-sync",
            "--locale=C",
            "-E",
            "UTF8",
        ]
        as_owner = ["setpriv", f"--reuid={_OWNER}", "--clear-groups"]
        run(*as_owner, *environment, initdb, *options, "-D", folder, cwd=tree)
        return
    install = tree / "usr/bin/mariadb-install-db"
    options = ["--no-defaults", f"--basedir={tree / 'usr'}", f"--datadir={folder}", f"--user={_OWNER}"]
    options += ["--skip-name-resolve", "--skip-test-db", "--cross-bootstrap", "--innodb-log-file-size=8M"]
    run(*environment, install, *options, cwd=tree)


def _library_path(tree: Path) -> str:
    folders = {path.parent for path in tree.rglob("*.so*") if "lib/postgresql" not in str(path)}
    return ":".join(sorted(str(folder) for folder in folders))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _libraries(program: Path, library_path: str) -> Sequence[Path]:
    listing = run("env", f"LD_LIBRARY_PATH={library_path}", "ldd", program)
    if missing := re.findall(r"(\S+) => not found", listing):
        raise LabError(f"{program.name} needs {', '.join(missing)}, which no package gave")
    return [Path(path) for path in re.findall(r"=> (/\S+) \(0x", listing)]
