"""A server's host with something of everything that a self-backup keeps; and an empty one beside it."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from hotspare.access.access import Access
from hotspare.access.audit import AuditLog
from hotspare.access.database import AccessDatabase
from hotspare.api.certificate import own_certificate
from tests.cli.images import make_image
from tests.cli.program import Program

PASSWORD = "correct horse battery"
SETTINGS = '# Where backups go.\nupload_limit = "500MiB/s"  # the line to the other house\n'
OTHERS = "# Of another program of ours.\nkept: too\n"
POLICY = "# As the auditors want it.\nselect: {names: [web*]}\nretention: {daily: 7}\n"


def furnish(program: Program, *, repository: Path | None = None, lock: int = 0) -> None:
    """Make a repository, policies, a user, a record and a certificate.

    Args:
        program: of the host.
        repository: where to make it; None for where the environment says, which may be a way to it that
            makes none.
        lock: days for which objects are locked; 0 for no locks.
    """
    make_image(program.folder / "images" / "web.raw")
    if repository is not None:
        program.environment["HOTSPARE_REPOSITORY"] = str(repository)
    program.expect("repo", "create", *(["--object-lock", str(lock)] if lock else []))
    (program.folder / "hotspare.toml").write_text(SETTINGS)
    (program.folder / "others.yaml").write_text(OTHERS)
    folder = program.folder / "policies"
    folder.mkdir()
    for number in range(2):
        (folder / f"web-{number}.yaml").write_text(f"{POLICY}# Number {number}\n")
    (folder / "limits.yaml").write_text("mover: 3\n")
    (folder / "notices.yaml").write_text("oncall: {url_file: /etc/hotspare/oncall}\n")
    own_certificate(program.folder / "state" / "server")
    program.expect("user", "add", "anna", "--role", "admin", HOTSPARE_USER_PASSPHRASE=PASSWORD)
    assert log_in(program)


def empty_host(program: Program, name: str = "new") -> Program:
    """Give a host that knows where the repository is and what opens it, and nothing else."""
    folder = program.folder / name
    folder.mkdir()
    new = Program(folder)  # with an empty configuration file, as one that is named has to be there
    places = {key: new.environment[key] for key in ("HOTSPARE_CONFIG", "HOTSPARE_STATE_FOLDER")}
    new.environment = program.environment | places
    return new


def listed(program: Program) -> list[dict[str, Any]]:
    """Give the self-backups in the repository, the oldest first."""
    found: list[dict[str, Any]] = program.expect("self", "list", "-o", "json").document()["self_backups"]
    return found


def log_in(program: Program, name: str = "anna") -> bool:
    """Log a user in, by password, as the server does."""
    with closing(Access(program.folder / "state")) as access:
        return access.log_in(name, PASSWORD, None, "127.0.0.1")[0].user == name


def change_record(program: Program, how: Callable[[AccessDatabase], object]) -> None:
    """Have somebody who may write the file do something to it."""
    with closing(AccessDatabase(program.folder / "state")) as database:
        how(database)


def write_record_anew(database: AccessDatabase) -> None:
    """Make a record whose chain is whole, and in which something is missing."""
    database.change("DELETE FROM audit")
    AuditLog(database).add("nobody", "did nothing", "at all")


def written_by_people(program: Program) -> dict[str, bytes]:
    """Give the content of settings, policies and certificate, by path."""
    folders = (program.folder, program.folder / "policies", program.folder / "state" / "server")
    return {
        str(path.relative_to(program.folder)): path.read_bytes()
        for folder in folders
        for path in folder.glob("*")
        if path.suffix in {".yaml", ".toml", ".pem"}
    }
