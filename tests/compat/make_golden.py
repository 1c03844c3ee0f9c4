"""Make tests/compat/golden-v1: ``python -m tests.compat.make_golden``, once, when the format is fixed."""

from pathlib import Path

from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from tests.compat.content import CHUNK, PASSPHRASE, first_disk, second_disk
from tests.repository.conftest import store

GOLDEN = Path(__file__).parent / "golden-v1"


def main() -> None:
    """Write the repository; refuses when it is there."""
    repository = Repository.create(LocalBackend(GOLDEN), PASSPHRASE, chunk_size=CHUNK)
    first = store(repository, "golden", first_disk(), b"\xff" * 512)
    store(repository, "golden", second_disk(), parent=first)


if __name__ == "__main__":
    main()
