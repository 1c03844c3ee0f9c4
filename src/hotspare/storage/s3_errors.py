"""What an S3 server's refusals mean, in our errors.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; other servers use the same.
"""

from hotspare.errors import HotspareError, NoSpace, ObjectNotFound, PermissionRefused, StorageError

_FULL = {
    "InsufficientCapacity",
    "InsufficientStorage",
    "QuotaExceeded",
    "StorageFull",
    "StorageQuotaExceeded",
    "XMinioStorageFull",
}
_PASSING = {
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
}
_PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_MISSING = {"NoSuchKey", "NoSuchVersion"}
_ELSEWHERE = {
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "TemporaryRedirect",
    "IllegalLocationConstraintException",
}


def s3_error(status: int | None, code: str, said: str, name: str, url: str) -> HotspareError:
    """Give the error for an answer of the server.

    Args:
        status: of HTTP; None when there was no answer.
        code: the ``Code`` of the answer's XML; empty when it had none.
        said: what the server or the client library said, for the user.
        name: the object, or the prefix of a listing.
        url: the store's.
    """
    if known := _by_code(code, said, url):
        return known
    what = f"{name} in {url}" if name else url
    if status == 507:
        return _full(said, url)
    if code in _PASSING or status is None or status in _PASSING_STATUSES:
        hint = "See whether the server runs and can be reached, and try again"
        return StorageError(f"{what}: {said}", hint=hint, may_pass=True)
    if code in _MISSING or (status == 404 and not code):
        return ObjectNotFound(f"{what} is not there")
    if status in {401, 403}:
        return PermissionRefused(
            f"{what}: the store refused access: {said}",
            hint="Look at the key in AWS_ACCESS_KEY_ID, and at what it may do in this bucket",
        )
    return StorageError(f"{what}: {said}", hint="See the server's log")


def _by_code(code: str, said: str, url: str) -> HotspareError | None:
    if code in _FULL:
        return _full(said, url)
    if code == "NoSuchBucket":
        return StorageError(f"{url}: there is no such bucket", hint="Create the bucket, or mend the URL")
    if code == "RequestTimeTooSkewed":
        return PermissionRefused(
            f"{url} says that this host's clock is wrong", hint="Set the clock, with NTP"
        )
    if code in _ELSEWHERE:
        return StorageError(f"{url}: the bucket is elsewhere: {said}", hint="Set AWS_REGION to its region")
    return None


def _full(said: str, url: str) -> NoSpace:
    return NoSpace(
        f"{url} is full: {said}",
        meaning="What was being stored is not; earlier restore points are whole",
        hint="Free space there, or raise the bucket's quota, and run the command again",
    )


def untrusted_certificate(said: str, url: str) -> StorageError:
    """Give the error for a server whose certificate nobody vouches for."""
    return StorageError(
        f"{url}: the server's certificate is not trusted: {said}",
        meaning="Nothing was sent",
        hint="If the server has a certificate of your own, name its CA's PEM file in HOTSPARE_CA_BUNDLE",
    )
