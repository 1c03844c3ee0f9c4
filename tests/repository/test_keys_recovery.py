"""A recovery key on paper: written, read back, and every likely typing error found out and told where."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.errors import ConfigError
from hotspare.repository.keys.recovery import (
    format_recovery_key,
    looks_like_recovery_key,
    parse_recovery_key,
)

KEYS = st.binary(min_size=32, max_size=32)
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def groups_of(key: bytes) -> list[str]:
    return format_recovery_key(key).split("-")


@given(KEYS)
def test_what_is_written_reads_back(key: bytes) -> None:
    text = format_recovery_key(key)
    assert parse_recovery_key(text) == key
    assert re.fullmatch(r"HSRK1(-[0-9A-Z]{5}){14}", text)


@given(KEYS, st.sampled_from([" ", "", "\n", " - "]), st.booleans())
def test_spaces_dashes_and_small_letters_do_not_matter(key: bytes, between: str, small: bool) -> None:
    text = between.join(groups_of(key))
    text = text.lower() if small else text
    assert looks_like_recovery_key(text)
    assert parse_recovery_key(f" {text}\n") == key


@given(KEYS)
def test_letters_that_look_like_others_are_taken_for_them(key: bytes) -> None:
    text = "-".join(groups_of(key)[1:]).replace("0", "O").replace("1", "l")
    assert parse_recovery_key("HSRK1-" + text) == key


@given(KEYS, st.integers(0, 13), st.integers(0, 4), st.sampled_from(LETTERS))
def test_one_wrong_letter_is_found_and_its_group_named(key: bytes, group: int, at: int, letter: str) -> None:
    groups = groups_of(key)
    right = groups[group + 1]
    if right[at] == letter:
        return
    groups[group + 1] = right[:at] + letter + right[at + 1 :]
    with pytest.raises(ConfigError, match=rf"group {group + 1} \({groups[group + 1]}\)"):
        parse_recovery_key("-".join(groups))


@given(KEYS, st.integers(0, 13), st.integers(0, 3))
def test_two_letters_that_changed_places_are_found(key: bytes, group: int, at: int) -> None:
    groups = groups_of(key)
    right = groups[group + 1]
    if right[at] == right[at + 1]:
        return
    groups[group + 1] = right[:at] + right[at + 1] + right[at] + right[at + 2 :]
    with pytest.raises(ConfigError, match=f"group {group + 1} "):
        parse_recovery_key("-".join(groups))


@given(KEYS, st.integers(1, 14), st.integers(1, 14))
def test_groups_that_changed_places_are_found(key: bytes, first: int, second: int) -> None:
    groups = groups_of(key)
    if first == second:
        return
    groups[first], groups[second] = groups[second], groups[first]
    with pytest.raises(ConfigError, match="is not right"):
        parse_recovery_key("-".join(groups))


@given(KEYS, st.integers(1, 14))
def test_a_group_left_out_is_told_with_the_place(key: bytes, group: int) -> None:
    groups = groups_of(key)
    del groups[group]
    with pytest.raises(ConfigError, match="65 letters after HSRK1 where 70 belong"):
        parse_recovery_key("-".join(groups))


def test_the_place_where_a_letter_is_missing_is_told() -> None:
    groups = groups_of(bytes(range(32)))
    groups[5] = groups[5][1:]
    with pytest.raises(ConfigError, match="from group 5 on"):
        parse_recovery_key("-".join(groups))


@given(st.text(max_size=120))
def test_any_text_is_read_or_refused_with_words(text: str) -> None:
    with pytest.raises(ConfigError, match="mistyped"):
        parse_recovery_key("HSRK1" + text)


@given(st.text(alphabet=LETTERS, min_size=70, max_size=70))
def test_random_letters_do_not_pass_for_a_key(text: str) -> None:
    with pytest.raises(ConfigError, match="mistyped"):
        parse_recovery_key("HSRK1" + text)


def test_a_passphrase_is_not_taken_for_one() -> None:
    assert not looks_like_recovery_key("correct horse battery staple")
    with pytest.raises(ConfigError, match="begin with HSRK1"):
        parse_recovery_key("correct horse")
