"""What became of a writer that nobody hears of any more, decided so that it stays decided."""

from hotspare.repository.format import EXPELLED, SESSIONS
from hotspare.repository.gc.state import put_settled
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository


def settle_abandoned(repository: Repository, machine_id: str, session: str) -> RestorePoint | None:
    """Give the restore point that a session has published; without one, see to it that none will count.

    The writer may be suspended between two of its steps, so it is expelled when there is nothing yet: it
    looks for that after it has put its point, and a point that arrives later does not count (see
    docs/repository-format.md, "Sessions"). What it had stored is stored again then.

    Args:
        repository: where it wrote.
        machine_id: of the machine that it backed up.
        session: its id.

    Raises:
        StorageError, PermissionRefused: the store cannot be asked or written.
    """
    for point in repository.machine_points(machine_id, lambda _name, _error: None):
        if point.session == session:
            return point
    repository.backend.put(EXPELLED + session, [b"\n"])
    put_settled(repository.backend, repository.keyring, session, session, [])
    repository.backend.delete(SESSIONS + session)
    return None
