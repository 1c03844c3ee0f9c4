"""What URLs and variables of the S3 store mean."""

from pathlib import Path

import pytest

from hotspare.errors import ConfigError, UsageError
from hotspare.storage.s3_settings import read_s3_settings

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.mark.parametrize(
    ("url", "endpoint", "bucket", "prefix"),
    [
        ("s3:https://host/bucket", "https://host", "bucket", ""),
        ("s3:https://host:9000/bucket/a/b/", "https://host:9000", "bucket", "a/b"),
        ("s3:https://[::1]:9000/bucket/a", "https://[::1]:9000", "bucket", "a"),
        ("s3:http://127.0.0.1:8333/bucket", "http://127.0.0.1:8333", "bucket", ""),
        ("s3:http://localhost/bucket", "http://localhost", "bucket", ""),
        ("s3://bucket", None, "bucket", ""),
        ("s3://my.bucket-1/a/b", None, "my.bucket-1", "a/b"),
    ],
)
def test_urls(url: str, endpoint: str | None, bucket: str, prefix: str) -> None:
    settings = read_s3_settings(url, KEYS)

    assert (settings.endpoint, settings.bucket, settings.prefix) == (endpoint, bucket, prefix)
    assert settings.url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "s3:",
        "s3://",
        "s3:https://host",
        "s3:https://host/",
        "s3:ftp://host/bucket",
        "s3:bucket/prefix",
        "s3:https:///bucket",
        "s3://bucket/a/../b",
        "s3://bucket/a b",
        "s3:https://host/bucket?x=1",
        "s3:https://host/bucket#x",
    ],
)
def test_urls_that_mean_nothing(url: str) -> None:
    with pytest.raises(UsageError):
        read_s3_settings(url, KEYS)


@pytest.mark.parametrize(
    "url", ["s3:https://id:hushhush@host/bucket", "s3://id:hushhush@bucket/x", "s3:ftp://id:hushhush@host/b"]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_s3_settings(url, KEYS)
    assert "hushhush" not in str(caught.value)


def test_plain_http_has_to_be_asked_for() -> None:
    with pytest.raises(UsageError, match="without encryption"):
        read_s3_settings("s3:http://storage.example/bucket", KEYS)
    with pytest.raises(UsageError, match="without encryption"):
        read_s3_settings("s3://bucket", {**KEYS, "AWS_ENDPOINT_URL": "http://192.0.2.1"})

    allowed = read_s3_settings("s3:http://storage.example/bucket", {**KEYS, "HOTSPARE_S3_ALLOW_HTTP": "1"})
    assert allowed.allow_http


def test_secrets_come_from_files_first_and_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("file-id\n")
    (tmp_path / "secret").write_text("file-secret\n")
    files = {
        "HOTSPARE_S3_ACCESS_KEY_ID_FILE": str(tmp_path / "id"),
        "HOTSPARE_S3_SECRET_ACCESS_KEY_FILE": str(tmp_path / "secret"),
    }
    settings = read_s3_settings("s3://bucket", {**KEYS, **files, "AWS_SESSION_TOKEN": "token"})

    assert (settings.access_key_id, settings.secret_access_key) == ("file-id", "file-secret")
    assert settings.session_token == "token"
    assert "file-secret" not in repr(settings)
    assert "token'" not in repr(settings)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"AWS_ACCESS_KEY_ID": "id"},
        {"AWS_SECRET_ACCESS_KEY": "secret"},
        {**KEYS, "HOTSPARE_S3_SECRET_ACCESS_KEY_FILE": "/nonexistent"},
        {**KEYS, "HOTSPARE_S3_SECRET_ACCESS_KEY_FILE": "/dev/null"},
        {**KEYS, "HOTSPARE_CA_BUNDLE": "/nonexistent"},
        {**KEYS, "HOTSPARE_S3_TIMEOUT": "soon"},
        {**KEYS, "HOTSPARE_S3_TIMEOUT": "0"},
        {**KEYS, "HOTSPARE_S3_CHECKSUM": "md5"},
    ],
)
def test_environments_that_cannot_be_used(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        read_s3_settings("s3:https://host/bucket", environment)


def test_an_endpoint_that_is_none() -> None:
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL"):
        read_s3_settings("s3://bucket", {**KEYS, "AWS_ENDPOINT_URL": "host:80"})


def test_a_role_of_the_host_is_enough_on_amazon() -> None:
    assert read_s3_settings("s3://bucket", {}).access_key_id is None


def test_what_may_be_set() -> None:
    environment = {
        **KEYS,
        "AWS_REGION": "eu-west-1",
        "HOTSPARE_S3_TIMEOUT": "60",
        "HOTSPARE_S3_CHECKSUM": "none",
    }
    settings = read_s3_settings("s3://bucket", environment)

    assert (settings.region, settings.timeout, settings.checksum) == ("eu-west-1", 60, None)
