"""Object lock through the program, against real servers: SeaweedFS keeps locks, rclone only says so.

The attacks are plain S3 calls with the program's own credentials.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from hotspare import events
from hotspare.cancellation import Cancellation
from hotspare.repository.gc.collect import prune
from hotspare.repository.keys.slot import KeyFile
from hotspare.repository.repository import Repository
from hotspare.storage.registry import open_backend
from tests.cli.images import change_image, make_image
from tests.cli.program import Program
from tests.cli.test_json_output import differences, examples, shape
from tests.repository.conftest import CHUNK, store
from tests.storage.servers import KEY, SECRET, Rclone, Seaweed

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

BUCKET = "locked"
DAYS = 2
LOCKED = {"config", "keys", "data", "meta", "points"}


class Attacker:
    """Somebody with the credentials of the host that backs up."""

    def __init__(self, server: Seaweed, prefix: str) -> None:
        self.prefix = prefix
        self.client: S3Client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{server.port}",
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}),
        )

    def names(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def versions(self) -> list[tuple[str, str]]:
        pages = self.client.get_paginator("list_object_versions").paginate(
            Bucket=BUCKET, Prefix=f"{self.prefix}/"
        )
        return [
            (one["Key"], one["VersionId"])
            for page in pages
            for one in (*page.get("Versions", []), *page.get("DeleteMarkers", []))
        ]

    def overwrite(self, key: str, **locked: Any) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=b"encrypted by somebody else", **locked)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=key)

    def remove_for_good(self) -> None:
        """Try to remove every version of every object."""
        for key, version in self.versions():
            with suppress(self.client.exceptions.ClientError):
                self.client.delete_object(Bucket=BUCKET, Key=key, VersionId=version)

    def shorten(self, key: str, version: str) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=5)
        self.client.put_object_retention(
            Bucket=BUCKET,
            Key=key,
            VersionId=version,
            Retention={"Mode": "COMPLIANCE", "RetainUntilDate": soon},
        )


@pytest.fixture
def prefix() -> str:
    return secrets.token_hex(6)


@pytest.fixture
def attacker(seaweed: Seaweed, prefix: str) -> Iterator[Attacker]:
    attacker = Attacker(seaweed, prefix)
    yield attacker
    attacker.client.close()


@pytest.fixture
def program(tmp_path: Path, seaweed: Seaweed, prefix: str) -> Program:
    (tmp_path / "images").mkdir()
    program = Program(tmp_path)
    key_file = tmp_path / "key"  # opens quicker than a passphrase
    key_file.write_bytes(bytes(range(32)))
    key_file.chmod(0o600)
    program.environment |= {
        **seaweed.environment,
        "HOTSPARE_KEY_FILE": str(key_file),
        "HOTSPARE_REPOSITORY": seaweed.url(f"{BUCKET}/{prefix}"),
    }
    return program


def back_up_twice(program: Program) -> dict[str, bytes]:
    """Make a repository with two restore points; gives what they hold, by id."""
    program.expect("repo", "create", "--object-lock", str(DAYS))
    image = program.folder / "images" / "web.raw"
    contents = [make_image(image)]
    program.expect("backup", "web")
    contents.append(change_image(image))
    program.expect("backup", "web")
    points = program.expect("point", "list", "-o", "json").document()["points"]
    return {point["id"]: content for point, content in zip(points, contents, strict=True)}


def assert_restorable(program: Program, points: dict[str, bytes]) -> None:
    for reference, content in points.items():
        out = program.folder / "out.raw"
        program.expect("restore", reference, "--disk", f"disk0={out}", "--force")
        assert out.read_bytes() == content
    assert program.expect("repo", "check", "-o", "json").document()["problems"] == []


def assert_as_documented(document: dict[str, Any]) -> None:
    example = examples()[document["type"]]
    assert differences(shape(example), shape(document), document["type"]) == []


def delete_all(attacker: Attacker) -> None:
    for key in attacker.names():
        attacker.delete(key)


def replace_all(attacker: Attacker) -> None:
    for key in attacker.names():
        attacker.overwrite(key)


def replace_all_with_locks_of_their_own(attacker: Attacker) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    for key in attacker.names():
        attacker.overwrite(key, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)
        attacker.delete(key)


def destroy_all(attacker: Attacker) -> None:
    locked = [(key, version) for key, version in attacker.versions() if key.split("/")[1] in LOCKED]
    assert {key.split("/")[1] for key, _ in locked} == LOCKED
    for key, version in locked:
        with suppress(attacker.client.exceptions.ClientError):
            attacker.shorten(key, version)
    replace_all(attacker)
    delete_all(attacker)
    attacker.remove_for_good()
    delete_all(attacker)
    assert {version for _, version in locked} <= {version for _, version in attacker.versions()}


def test_attacks_with_the_credentials_of_the_host(program: Program, attacker: Attacker) -> None:
    points = back_up_twice(program)
    attacks = (delete_all, replace_all, replace_all_with_locks_of_their_own, destroy_all)
    for attack in attacks:
        attack(attacker)
        assert program.run("restore", "web", "--disk", f"disk0={program.folder}/x.raw").status != 0
        assert program.run("repo", "create", "--object-lock", "1").status == 1, "it would bury the old one"
        report = program.expect("repo", "recover", "-o", "json").document()
        assert_as_documented(report)
        assert sorted(report["points"]) == sorted(points)
        assert report["lost"] == report["problems"] == []
        assert_restorable(program, points)
    image = program.folder / "images" / "web.raw"
    newest = change_image(image, change=b"after the attack")
    program.expect("backup", "web")
    program.expect("repo", "prune")
    assert_restorable(program, {**points, "web": newest})


def test_what_the_program_tells(program: Program) -> None:
    points = back_up_twice(program)
    first = next(iter(points))
    lock = program.expect("repo", "info", "-o", "json").document()["object_lock"]
    assert (lock["days"], lock["promised_days"]) == (DAYS, DAYS / 2)
    assert lock["locked_until"] > datetime.now(UTC).isoformat()
    assert "restore points stay for 1 at any moment" in program.expect("repo", "info").out

    extended = program.expect("repo", "extend-locks", "-o", "json").document()
    assert_as_documented(extended)
    assert (extended["renewed"], extended["dry_run"]) == (0, False)
    assert extended["objects"] > 6
    assert "Locks would be renewed: 0 of" in program.expect("repo", "extend-locks", "--dry-run").out
    forgotten = program.expect("point", "forget", first, "--yes", "-o", "json").document()
    assert forgotten["locked_until"] is not None
    pruned = program.expect("repo", "prune", "--keep-waste", "0", "-o", "json").document()
    assert pruned["bytes_locked"] > 0
    assert pruned["locked_until"] is not None
    assert "Deleted but locked" in program.expect("repo", "prune").out
    assert "brings it back until then" in program.expect("point", "forget", "web", "--yes").out

    assert "brought back: 0" in program.expect("repo", "recover", "--dry-run").out
    program.expect("repo", "recover", "--forgotten")
    assert_restorable(program, points)


def test_deleted_points_are_missed(program: Program, attacker: Attacker) -> None:
    points = back_up_twice(program)
    for key in attacker.names():
        if "/points/" in key:
            attacker.delete(key)

    refused = program.run("repo", "prune", "-o", "json").error()
    assert refused["code"] == "repository-damaged"
    assert "repo recover" in refused["hint"]
    checked = program.run("repo", "check")
    assert checked.status == 14
    assert checked.out.count("not by Hotspare") == len(points)


def test_a_server_that_pretends_gets_no_repository(program: Program, rclone: Rclone) -> None:
    program.environment |= rclone.environment
    refused = program.run("repo", "create", rclone.url(f"{BUCKET}/x"), "--object-lock", "1", "-o", "json")

    assert refused.status == 27
    assert "though it says so" in refused.error()["what"]
    assert list(open_backend(rclone.url(f"{BUCKET}/x"), rclone.environment).list("")) == []


def test_a_bucket_without_locks_and_a_folder_get_none(
    program: Program, seaweed: Seaweed, tmp_path: Path
) -> None:
    for url in (seaweed.url(f"plain/{secrets.token_hex(4)}"), str(tmp_path / "folder")):
        refused = program.run("repo", "create", url, "--object-lock", "1")
        assert refused.status == 27
        assert "does not keep object locks" in refused.err


def test_a_repository_without_locks_has_none_to_extend(program: Program, tmp_path: Path) -> None:
    folder = str(tmp_path / "folder")
    program.expect("repo", "create", folder)
    assert "has no object lock" in program.run("repo", "extend-locks", "-r", folder).err
    assert "keeps no versions" in program.run("repo", "recover", "-r", folder).err
    assert program.expect("repo", "info", "-r", folder, "-o", "json").document()["object_lock"] is None


def test_what_is_not_needed_is_gone_when_its_lock_has_ended(
    seaweed: Seaweed, prefix: str, attacker: Attacker
) -> None:
    """With locks of a few seconds, on a real server: no version and no marker stays."""
    period = timedelta(seconds=10)
    backend = open_backend(seaweed.url(f"{BUCKET}/{prefix}"), seaweed.environment)
    key = KeyFile(bytes(32))
    repository = Repository.create(backend, key, chunk_size=CHUNK, lock=period)
    gone = store(repository, "web", secrets.token_bytes(3 * CHUNK))
    repository.forget(gone)
    ended = datetime.now(UTC) + period + timedelta(seconds=1)
    prune(Repository.open(backend, key), events.ignore, Cancellation())
    time.sleep(max(0.0, (ended - datetime.now(UTC)).total_seconds()))
    last = prune(Repository.open(backend, key), events.ignore, Cancellation())
    assert last.bytes_locked == 0
    kinds = {key.split("/")[1] for key, _ in attacker.versions()}
    assert kinds <= {"config", "keys", "locks", "gc"}
    assert len(attacker.versions()) == len(attacker.names()), "one version of each, and no marker"
