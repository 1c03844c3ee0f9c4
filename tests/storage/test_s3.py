"""The S3 store against the contract, on a real SeaweedFS."""

import os
import secrets
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hotspare.errors import PermissionRefused, StorageError
from hotspare.storage import s3
from hotspare.storage.registry import open_backend
from hotspare.storage.s3 import S3Backend
from hotspare.storage.s3_settings import read_s3_settings
from tests.contracts.storage_suite import StorageSuite
from tests.storage.servers import S3Server, Seaweed


def open_s3(server: S3Server, place: str, **environment: str) -> S3Backend:
    return S3Backend(read_s3_settings(server.url(place), {**server.environment, **environment}))


@pytest.fixture
def place() -> str:
    return f"plain/{secrets.token_hex(6)}"


@pytest.fixture
def backend(seaweed: Seaweed, place: str) -> S3Backend:
    return open_s3(seaweed, place)


class TestS3(StorageSuite):
    @pytest.fixture
    def backend(self, backend: S3Backend) -> S3Backend:
        return backend


class TestS3FromTheRegistry(StorageSuite):
    @pytest.fixture
    def backend(self, seaweed: Seaweed, place: str) -> object:
        return open_backend(seaweed.url(place), seaweed.environment)


def test_the_url_without_a_host_takes_it_from_the_environment(seaweed: Seaweed, place: str) -> None:
    open_s3(seaweed, place).put("config", [b"x"])
    endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{seaweed.port}"}
    backend = S3Backend(read_s3_settings(f"s3://{place}", {**seaweed.environment, **endpoint}))

    assert backend.get("config") == b"x"
    assert backend.url == f"s3://{place}"


def test_lists_more_than_one_page_in_order(backend: S3Backend) -> None:
    names = [f"data/{number % 7:02x}/{number:04x}" for number in range(1010)]
    names += ["data/00-x", "data/00.y/z"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: backend.put(name, [b"x"]), names))

    assert [item.name for item in backend.list("data/")] == sorted(names)


def test_prefixes_do_not_see_each_other(seaweed: Seaweed, place: str) -> None:
    for folder in ("a", "ab", "b"):
        open_s3(seaweed, f"{place}/{folder}").put("config", [folder.encode()])

    assert [item.name for item in open_s3(seaweed, f"{place}/a").list("")] == ["config"]
    assert open_s3(seaweed, f"{place}/a").get("config") == b"a"


def test_a_huge_object_goes_in_parts(backend: S3Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_SINGLE_PUT_MAX", 1024)
    monkeypatch.setattr(s3, "_PART_SIZE", 5 * 1024 * 1024)
    data = os.urandom(12 * 1024 * 1024)
    backend.put("data/large", [data[:100], data[100:]])

    assert backend.get("data/large") == data


def test_a_wrong_key_is_refused(seaweed: Seaweed, place: str) -> None:
    backend = open_s3(seaweed, place, AWS_SECRET_ACCESS_KEY="wrong")

    for call in (
        lambda: backend.put("x", [b"x"]),
        lambda: backend.get("x"),
        lambda: backend.size("x"),
        lambda: list(backend.list("")),
        lambda: backend.delete("x"),
    ):
        with pytest.raises(PermissionRefused, match="AWS_ACCESS_KEY_ID") as caught:
            call()
        assert "wrong" not in str(caught.value)


def test_a_server_that_is_not_there_may_come_back() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    backend = S3Backend(read_s3_settings("s3:http://127.0.0.1:1/bucket", environment))

    with pytest.raises(StorageError) as caught:
        backend.put("x", [b"x"])
    assert caught.value.may_pass


def test_a_certificate_must_be_vouched_for(seaweed: Seaweed, place: str) -> None:
    url = f"s3:https://127.0.0.1:{seaweed.https_port}/{place}"
    stranger = S3Backend(read_s3_settings(url, seaweed.environment))
    with pytest.raises(StorageError, match=r"not trusted.*HOTSPARE_CA_BUNDLE") as caught:
        stranger.put("x", [b"x"])
    assert not caught.value.may_pass
    locks = stranger.capabilities.locks
    assert locks
    with pytest.raises(StorageError, match="not trusted"):
        locks.locked_until("x")

    environment = {**seaweed.environment, "HOTSPARE_CA_BUNDLE": str(seaweed.ca_bundle)}
    friend = S3Backend(read_s3_settings(url, environment))
    friend.put("x", [b"x"])
    assert friend.get("x") == b"x"


@pytest.fixture
def own_seaweed(tmp_path: Path) -> Iterator[Seaweed]:
    server = Seaweed(tmp_path / "own")
    server.up()
    yield server
    server.kill()


def test_a_server_killed_in_the_middle_of_a_put(own_seaweed: Seaweed) -> None:
    backend = open_s3(own_seaweed, "plain/here")
    backend.put("data/before", [b"whole"])
    large = os.urandom(8 * 1024 * 1024)
    own_seaweed.send(signal.SIGSTOP)
    killer = threading.Timer(0.3, own_seaweed.kill)
    killer.start()

    with pytest.raises(StorageError) as caught:
        backend.put("data/large", [large])
    killer.join()
    assert caught.value.may_pass

    own_seaweed.up()
    names = [item.name for item in backend.list("data/")]
    assert names in (["data/before"], ["data/before", "data/large"])
    backend.put("data/large", [large])
    assert backend.get("data/large") == large
    assert backend.get("data/before") == b"whole"
