"""Object lock of S3 in compliance mode, for ``S3Backend``.

Retention: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html. The bucket must have been
created with object lock enabled. Compliance mode means that nobody, the account's owner included, can
delete a locked version or shorten its retention.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, SSLError
from typing_extensions import Buffer

from hotspare.errors import HotspareError, ObjectNotFound, StorageError
from hotspare.storage.backend import ObjectVersion
from hotspare.storage.s3_errors import s3_error, untrusted_certificate
from hotspare.storage.s3_settings import S3Settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import (
        DeleteMarkerEntryTypeDef,
        ObjectLockRetentionTypeDef,
        ObjectVersionTypeDef,
    )

CONNECTIONS_MAX = 32
_NO_RETENTION = {"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"}
_CLOCKS_APART_MAX = timedelta(minutes=15)
"""As much as the protocol's signatures allow."""


class S3Locks:
    """The locks of one bucket's objects."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._client_made: S3Client | None = None
        self._making = threading.Lock()

    def put_locked(self, name: str, parts: Sequence[Buffer], until: datetime) -> str:
        """See ``ObjectLocks.put_locked``."""
        with self._errors_named(name):
            answer = self._client.put_object(
                Bucket=self._settings.bucket,
                Key=self._key(name),
                Body=b"".join(parts),
                ChecksumAlgorithm="SHA256",
                ObjectLockMode="COMPLIANCE",
                ObjectLockRetainUntilDate=_whole_seconds(until),
            )
        version = answer.get("VersionId")
        if not version or version == "null":
            raise StorageError(
                f"{self._settings.url} keeps no versions, so it cannot lock objects",
                hint="Create the bucket with object lock enabled",
            )
        self._require_locked(name, version, _whole_seconds(until))
        return version

    def _require_locked(self, name: str, version: str, until: datetime) -> None:
        """Raise ``StorageError`` unless a version is there, locked, and was stored about now."""
        with self._errors_named(name):
            shown = self._client.head_object(
                Bucket=self._settings.bucket, Key=self._key(name), VersionId=version
            )
        kept = shown.get("ObjectLockMode") == "COMPLIANCE" and shown.get("ObjectLockRetainUntilDate")
        if not kept or kept < until:
            raise StorageError(
                f"{self._settings.url} took {name}, and does not show that it is locked",
                meaning="It is stored, and can be deleted by anybody who may write there",
                hint="See the bucket's object lock settings, and the server's log",
            )
        apart = abs(shown["LastModified"] - datetime.now(UTC))
        if apart > _CLOCKS_APART_MAX:
            raise StorageError(
                f"The clocks of this host and of {self._settings.url} are {apart} apart",
                meaning="Objects would be locked for too short a time, or much too long",
                hint="Set the clock, with NTP",
            )

    def extend(self, name: str, until: datetime, version: str | None = None) -> None:
        """See ``ObjectLocks.extend``."""
        with self._errors_named(name):
            if version is None:
                self._client.put_object_retention(
                    Bucket=self._settings.bucket, Key=self._key(name), Retention=_retention(until)
                )
            else:
                self._client.put_object_retention(
                    Bucket=self._settings.bucket,
                    Key=self._key(name),
                    VersionId=version,
                    Retention=_retention(until),
                )

    def locked_until(self, name: str, version: str | None = None) -> datetime | None:
        """See ``ObjectLocks.locked_until``; a lock in governance mode counts as none."""
        try:
            with self._errors_named(name):
                if version is None:
                    answer = self._client.get_object_retention(
                        Bucket=self._settings.bucket, Key=self._key(name)
                    )
                else:
                    answer = self._client.get_object_retention(
                        Bucket=self._settings.bucket, Key=self._key(name), VersionId=version
                    )
        except _NoRetentionError:
            return None
        retention = answer.get("Retention", {})
        return retention.get("RetainUntilDate") if retention.get("Mode") == "COMPLIANCE" else None

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """See ``ObjectLocks.versions``; the whole listing is held in memory, and is not larger than one."""
        found: list[ObjectVersion] = []
        with self._errors_named(prefix):
            pages = self._client.get_paginator("list_object_versions").paginate(
                Bucket=self._settings.bucket, Prefix=self._key(prefix)
            )
            for page in pages:
                found += (self._version(one, one["Size"]) for one in page.get("Versions", []))
                found += (self._version(one, None) for one in page.get("DeleteMarkers", []))
        # Each page gives versions and markers apart. Times have seconds: what is newest is said by the flag.
        found.sort(key=attrgetter("newest", "modified"), reverse=True)
        return iter(sorted(found, key=attrgetter("name")))

    def _version(
        self, one: "ObjectVersionTypeDef | DeleteMarkerEntryTypeDef", size: int | None
    ) -> ObjectVersion:
        return ObjectVersion(
            name=one["Key"][len(self._key("")) :],
            version=one["VersionId"],
            size=size or 0,
            modified=one["LastModified"],
            newest=one["IsLatest"],
            marker=size is None,
        )

    def get_version(self, name: str, version: str) -> bytes:
        """See ``ObjectLocks.get_version``."""
        with self._errors_named(name):
            answer = self._client.get_object(
                Bucket=self._settings.bucket, Key=self._key(name), VersionId=version
            )
            data = answer["Body"].read()
        if len(data) != answer["ContentLength"]:
            raise StorageError(f"{name} in {self._settings.url} was cut short", may_pass=True)
        return data

    def delete_version(self, name: str, version: str) -> None:
        """See ``ObjectLocks.delete_version``."""
        with self._errors_named(name):
            self._client.delete_object(Bucket=self._settings.bucket, Key=self._key(name), VersionId=version)

    def has_version(self, name: str, version: str) -> bool:
        """See ``ObjectLocks.has_version``."""
        try:
            with self._errors_named(name):
                self._client.head_object(Bucket=self._settings.bucket, Key=self._key(name), VersionId=version)
        except ObjectNotFound:
            return False
        return True

    @property
    def _client(self) -> "S3Client":
        with self._making:
            if self._client_made is None:
                settings = self._settings
                self._client_made = boto3.session.Session().client(
                    "s3",
                    endpoint_url=settings.endpoint,
                    region_name=settings.region,
                    aws_access_key_id=settings.access_key_id,
                    aws_secret_access_key=settings.secret_access_key,
                    aws_session_token=settings.session_token,
                    verify=str(settings.ca_bundle) if settings.ca_bundle else True,
                    config=Config(
                        connect_timeout=10,
                        max_pool_connections=CONNECTIONS_MAX,
                        read_timeout=settings.timeout,
                        retries={"total_max_attempts": 2},
                        s3={"addressing_style": "path"},
                        request_checksum_calculation="when_required",
                    ),
                )
            return self._client_made

    def _key(self, name: str) -> str:
        return f"{self._settings.prefix}/{name}" if self._settings.prefix else name

    @contextmanager
    def _errors_named(self, name: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._translate(error, name) from error
        except SSLError as error:
            raise untrusted_certificate(str(error), self._settings.url) from error
        except BotoCoreError as error:
            raise s3_error(None, "", str(error), name, self._settings.url) from error

    def _translate(self, error: ClientError, name: str) -> HotspareError:
        answer = error.response
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code, message = answer["Error"].get("Code", ""), answer["Error"].get("Message", "")
        if code in _NO_RETENTION:
            return _NoRetentionError(f"{name} in {self._settings.url} is not locked")
        # An answer to HEAD has no body, and boto3 then puts the status for the code.
        code = "" if code.isdecimal() else code
        return s3_error(status, code, f"{code}: {message}", name, self._settings.url)


class _NoRetentionError(StorageError):
    """The object has no lock."""


def _retention(until: datetime) -> "ObjectLockRetentionTypeDef":
    return {"Mode": "COMPLIANCE", "RetainUntilDate": _whole_seconds(until)}


def _whole_seconds(until: datetime) -> datetime:
    return until.astimezone(UTC).replace(microsecond=0)
