"""What comes before a repository is open: its place, its config, its key slots."""

from hotspare.errors import ObjectNotFound, RepositoryDamaged, RepositoryExists, RepositoryNotFound
from hotspare.repository.format import CONFIG, KEYS, RECORD_SIZE_MAX, RepositoryConfig, decode_config
from hotspare.repository.keys.keychest import Keychest
from hotspare.repository.keys.slot import Credential
from hotspare.repository.object_lock.store import with_locks
from hotspare.storage.backend import Backend


def open_keys(backend: Backend, credential: Credential) -> tuple[RepositoryConfig, Keychest]:
    """Open a repository's key slots. Raises what ``Repository.open`` does."""
    line, mac = read_config_lines(backend)
    config = decode_config(line, backend.url)
    backend = with_locks(backend, config)
    return config, Keychest.open(backend, config.id, line, mac, credential)


def read_config_lines(backend: Backend) -> tuple[bytes, bytes]:
    """Give the first line of ``config`` and its MAC, unchecked. Raises ``RepositoryNotFound``."""
    try:
        data = get_record(backend, CONFIG)
    except ObjectNotFound as error:
        raise RepositoryNotFound(
            f"There is no repository at {backend.url}",
            meaning="Nothing was read or written",
            hint=f"Create one with 'hotspare repo create {backend.url}', or correct HOTSPARE_REPOSITORY",
        ) from error
    line, _, mac = data.partition(b"\n")
    return line, mac.strip()


def get_record(backend: Backend, name: str) -> bytes:
    """Read a small object. Raises ``RepositoryDamaged`` when it is none."""
    size = backend.size(name)
    if size > RECORD_SIZE_MAX:
        raise RepositoryDamaged(f"The object {name} has {size} bytes, far more than it can need")
    return backend.get(name)


def refuse_occupied(backend: Backend) -> None:
    """Raise ``RepositoryExists`` unless a repository can be made in the store."""
    for item in backend.list(""):
        # Key slots alone are what a creation that was cut short leaves.
        if not item.name.startswith(KEYS):
            raise RepositoryExists(
                f"{backend.url} is not empty: it holds '{item.name}'",
                meaning="Nothing was written",
                hint="Choose an empty place, or use the repository that is there",
            )
