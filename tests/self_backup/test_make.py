"""Self-backups are restore points, in repositories of every age."""

import shutil
from pathlib import Path

import pytest

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.errors import RepositoryDamaged, RepositoryTooNew
from hotspare.repository.gc.collect import prune
from hotspare.repository.point import RestorePoint
from hotspare.repository.repository import Repository
from hotspare.self_backup.make import Beside, last_self_backup, make_self_backup
from hotspare.self_backup.manifest import Places, manifest_of
from hotspare.storage.local import LocalBackend
from tests.compat.content import PASSPHRASE
from tests.compat.independent_reader import IndependentReader

GOLDEN = sorted((Path(__file__).parents[1] / "compat").glob("golden-v*"))
POLICY = b"# nobody but us knows\nselect: {names: [web*]}\n"


def places_in(folder: Path) -> Places:
    places = Places(folder / "etc" / "hotspare.toml", folder / "etc" / "policies", folder / "state")
    places.policies.mkdir(parents=True)
    (places.policies / "nightly.yaml").write_bytes(POLICY)
    return places


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda folder: folder.name)
def test_a_repository_of_the_first_days_takes_one(golden: Path, tmp_path: Path) -> None:
    """Its features promise nothing of state and extras. Who reads by the specification finds the files."""
    folder = tmp_path / "repository"
    shutil.copytree(golden, folder)
    repository = Repository.open(LocalBackend(folder), PASSPHRASE)
    made = make_self_backup(repository, places_in(tmp_path), Beside(host="backup1"))
    for point in repository.points():
        if not point.is_self_backup:
            repository.forget(point)
    prune(repository, events.ignore, Cancellation())

    reader = IndependentReader(folder, PASSPHRASE)
    (read,) = reader.points()
    assert read["platform"] == "hotspare:self"
    (policy,) = (disk for disk in read["disks"] if disk["name"] == "policies/nightly.yaml")
    assert reader.disk(policy) == POLICY
    assert [file.disk for file in made.manifest.files] == ["policies/nightly.yaml", "state/access.sqlite"]


def test_the_newest_of_this_installation_is_known(tmp_path: Path) -> None:
    repository = Repository.create(LocalBackend(tmp_path / "repository"), PASSPHRASE)
    mine, other = places_in(tmp_path / "mine"), places_in(tmp_path / "other")
    assert last_self_backup(repository, mine) is None
    made = make_self_backup(repository, mine, Beside(host="backup1"))
    make_self_backup(repository, other, Beside(host="backup1"))
    newest = last_self_backup(repository, mine)
    assert newest is not None
    assert newest.id == made.point.id


@pytest.mark.parametrize(
    ("manifest", "error"),
    [
        ("", RepositoryDamaged),
        ('{"version": 2}', RepositoryTooNew),
        ('{"version": 1}', RepositoryDamaged),
        (
            '{"version": 1, "installation": "a", "host": "h", "program": "1", "fingerprint": "f", "files":'
            ' [{"place": "policies", "path": "../../root/.ssh/authorized_keys", "size": 1, "mode": 384,'
            ' "digest": "d"}]}',
            RepositoryDamaged,
        ),
    ],
)
def test_a_list_that_cannot_be_trusted(manifest: str, error: type[Exception], tmp_path: Path) -> None:
    repository = Repository.create(LocalBackend(tmp_path / "repository"), PASSPHRASE)
    made = make_self_backup(repository, places_in(tmp_path), Beside(host="backup1")).point
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    told = RestorePoint(**fields | {"machine": {**made.machine, "native": manifest}})
    with pytest.raises(error):
        manifest_of(told)
