"""Passwords by Argon2id, and one-time codes of an authenticator app (TOTP, RFC 6238)."""

import hmac
import time
from functools import cache

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from hotspare.errors import UsageError

LENGTH_MIN = 12
_LENGTH_MAX = 1024
_STEP_SECONDS = 30
_HASHER = PasswordHasher(time_cost=2, memory_cost=64 * 1024, parallelism=1)


def hash_password(password: str) -> str:
    """Give what is kept of a password. Raises ``UsageError`` for one that is too short or too long."""
    if not LENGTH_MIN <= len(password) <= _LENGTH_MAX:
        raise UsageError(
            f"The password has {len(password)} characters",
            meaning="Nothing was changed",
            hint=f"Take at least {LENGTH_MIN}; some words at random are fine",
        )
    return _HASHER.hash(password)


def is_password(kept: str | None, password: str) -> bool:
    """Tell whether it is the one; takes as long when there is none, so that nobody learns who has one."""
    try:
        _HASHER.verify(kept or _nobodys(), password[:_LENGTH_MAX])
    except (VerificationError, InvalidHashError):
        return False
    return bool(kept)


@cache
def _nobodys() -> str:
    return _HASHER.hash("nobody has this password")


def new_totp_secret() -> str:
    """Give a secret for an authenticator app, in base 32."""
    return pyotp.random_base32()


def totp_uri(secret: str, user: str) -> str:
    """Give what an authenticator app reads from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=user, issuer_name="Hotspare")


def totp_step(secret: str, code: str, after: int, now: float | None = None) -> int | None:
    """Give the number of the 30 seconds that a code is of; None when it is wrong or was used.

    Args:
        secret: in base 32.
        code: six digits.
        after: the step of the last code that was accepted; it and older ones are not taken again.
        now: seconds since 1970; None for the present.
    """
    current = int((time.time() if now is None else now) // _STEP_SECONDS)
    totp = pyotp.TOTP(secret)
    for step in (current - 1, current, current + 1):
        right = hmac.compare_digest(totp.generate_otp(step).encode(), code.encode())
        if right and step > after:
            return step
    return None
