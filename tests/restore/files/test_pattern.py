"""Patterns of names: what they fit, one by one and in a text of many names, and how long that takes."""

import fnmatch
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import UsageError
from hotspare.restore.files.pattern import parse_pattern


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.conf", "/etc/nginx/nginx.conf", True),
        ("*.conf", "/a.conf/b", False),
        ("*.conf", "/x.CONF", False),
        ("nginx.conf", "/etc/nginx/nginx.conf", True),
        ("ginx.conf", "/etc/nginx/nginx.conf", False),
        ("nginx/*.conf", "/etc/nginx/nginx.conf", True),
        ("nginx/*.conf", "/etc/nginx/sub/nginx.conf", False),
        ("inx/*.conf", "/etc/nginx/nginx.conf", False),
        ("/etc/*.conf", "/etc/a.conf", True),
        ("/etc/*.conf", "/srv/etc/a.conf", False),
        ("/etc/**/*.conf", "/etc/a.conf", True),
        ("/etc/**/*.conf", "/etc/b/c/a.conf", True),
        ("/etc/**/*.conf", "/etcetera/a.conf", False),
        ("/*", "/top", True),
        ("/*", "/top/below", False),
        ("vdb1:/**/x", "vdb1:/a/x", False),
        ("[ab]?.t[!x]t", "/a1.txt", False),
        ("[ab]?.t[!x]t", "/b1.tyt", True),
        ("[", "/[", True),
        ("[]]", "/]", True),
        ("[!]]", "/a", True),
        ("[a-c^&~|\\]", "/|", True),
        ("a+b.c", "/a+b.c", True),
        ("a+b.c", "/aab_c", False),
        ("Ä*", "/Äpfel", True),
        ("*\udcff*", "/a\udcffb", True),
    ],
)
def test_what_fits(pattern: str, path: str, fits: bool) -> None:
    folder, _, name = path.rpartition("/")
    assert parse_pattern(pattern).matches(folder, name) is fits


def test_small_and_capital_letters() -> None:
    assert parse_pattern("*.CONF", ignore_case=True).matches("", "a.Conf")


@pytest.mark.parametrize("pattern", ["", "/", "etc/", "a\0b", "**", "/etc/**", "[z-a]"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(UsageError):
        parse_pattern(pattern)


@given(
    glob=st.text("ab*?", min_size=1, max_size=8).filter(lambda glob: glob != "**"),
    names=st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, max_size=8),
)
@settings(deadline=None)
def test_as_others_understand_them(glob: str, names: list[str]) -> None:
    pattern = parse_pattern(glob)
    expected = [name for name in names if fnmatch.fnmatchcase(name, glob)]
    assert [name for name in names if pattern.matches("", name)] == expected
    text = "\0" + "".join(f"{name}\0" for name in names)
    assert [match[0][1:] for match in pattern.name_finder.finditer(text)] == expected


def test_hostile_names_do_not_take_for_ever() -> None:
    pattern = parse_pattern("*a*a*a*a*a*a*a*a*b")
    began = time.process_time()
    assert not pattern.matches("", "a" * 255)
    assert not list(pattern.name_finder.finditer("\0" + ("a" * 255 + "\0") * 20))
    assert time.process_time() - began < 5
