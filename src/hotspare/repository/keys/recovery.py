"""A recovery key as people print it, read it and type it.

    HSRK1 0000C 0000C ... : "HSRK1", 13 groups of 20 bits, and one group that checks the whole

Letters are Crockford's base 32, where no two look alike. A group is four letters and a check letter,
computed in GF(32) with another weight for each place and another start for each group. One letter that is
wrong, two that changed places, and groups that changed places are always found out, and the group is named.
"""

import re

from blake3 import blake3

from hotspare.errors import ConfigError
from hotspare.repository.keys.keyring import KEY_SIZE

PREFIX = "HSRK1"
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ALIKE = str.maketrans("OIL", "011")
_GROUP_BITS = 20
_GROUPS = 13
_SIZE = 5
_CONTEXT = b"hotspare recovery key"


def _powers() -> tuple[int, ...]:
    """Give the powers of x in GF(32), modulo x^5 + x^2 + 1."""
    found = [1]
    while len(found) < 31:
        doubled = found[-1] << 1
        found.append(doubled ^ 0b100101 if doubled & 32 else doubled)
    return tuple(found)


_POWERS = _powers()
_LOGS = {power: exponent for exponent, power in enumerate(_POWERS)}


def format_recovery_key(key: bytes) -> str:
    """Write a key of 32 bytes: ``HSRK1-0AB3C-...``, 15 groups of five."""
    values = [*_split(int.from_bytes(key, "big")), _whole_check(key)]
    return "-".join([PREFIX, *(_group(number, value) for number, value in enumerate(values))])


def looks_like_recovery_key(text: str) -> bool:
    """Tell whether somebody means a recovery key by this text, right or mistyped."""
    return _squeezed(text).startswith(PREFIX)


def parse_recovery_key(text: str) -> bytes:
    """Read a key back; spaces, dashes and line ends are passed over, letters may be small.

    Raises:
        ConfigError: it is mistyped; says in which groups.
    """
    letters = _squeezed(text)
    if not letters.startswith(PREFIX):
        raise _mistyped(f"it does not begin with {PREFIX}")
    letters = letters[len(PREFIX) :].translate(_ALIKE)
    groups = [letters[at : at + _SIZE] for at in range(0, len(letters), _SIZE)]
    wrong = [number for number, group in enumerate(groups[: _GROUPS + 1]) if not _is_good(number, group)]
    if len(letters) != (_GROUPS + 1) * _SIZE:
        where = f", from group {wrong[0] + 1} on" if wrong else ""
        raise _mistyped(
            f"it has {len(letters)} letters after {PREFIX} where {(_GROUPS + 1) * _SIZE} belong{where}"
        )
    if wrong:
        named = ", ".join(f"{number + 1} ({groups[number]})" for number in wrong)
        raise _mistyped(f"group {named} after {PREFIX} is not right")
    values = [_value(group) for group in groups]
    whole = 0
    for value in values[:_GROUPS]:
        whole = whole << _GROUP_BITS | value
    if whole >> KEY_SIZE * 8 or _whole_check(whole.to_bytes(KEY_SIZE, "big")) != values[_GROUPS]:
        raise _mistyped("several letters in it are not right")
    return whole.to_bytes(KEY_SIZE, "big")


def _mistyped(how: str) -> ConfigError:
    return ConfigError(
        f"The recovery key is mistyped: {how}",
        meaning="Nothing was done",
        hint="Compare it with the paper, group by group; there is no letter I, L, O or U in it",
    )


def _squeezed(text: str) -> str:
    return re.sub(r"[\s\-_.:]+", "", text).upper()


def _split(number: int) -> list[int]:
    shifts = range((_GROUPS - 1) * _GROUP_BITS, -1, -_GROUP_BITS)
    return [number >> shift & (1 << _GROUP_BITS) - 1 for shift in shifts]


def _whole_check(key: bytes) -> int:
    return int.from_bytes(blake3(_CONTEXT + key).digest(3), "big") >> 24 - _GROUP_BITS


def _group(number: int, value: int) -> str:
    digits = [value >> shift & 31 for shift in (15, 10, 5, 0)]
    return "".join(_LETTERS[digit] for digit in (*digits, _check_digit(number, digits)))


def _check_digit(number: int, digits: list[int]) -> int:
    check = _POWERS[number]
    for place, digit in enumerate(digits, start=1):
        if digit:
            check ^= _POWERS[(_LOGS[digit] + place) % 31]
    return check


def _is_good(number: int, group: str) -> bool:
    if len(group) != _SIZE or any(letter not in _LETTERS for letter in group):
        return False
    digits = [_LETTERS.index(letter) for letter in group]
    return _check_digit(number, digits[:-1]) == digits[-1]


def _value(group: str) -> int:
    value = 0
    for letter in group[:-1]:
        value = value << 5 | _LETTERS.index(letter)
    return value
