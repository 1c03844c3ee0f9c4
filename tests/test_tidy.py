"""The house is tidy: sizes, names, dead modules, commands in documents, lock files."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from hotspare.cli.app import app
from tests.long_files import LONG_FILES

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "hotspare"
TESTS = ROOT / "tests"
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
FORBIDDEN_NAMES = re.compile(r"utils?|helpers?|common|managers?|misc", re.IGNORECASE)
FOLDERS = ("src", "tests", "lab", "demo", "benchmarks")
TESTS_OF_THE_WHOLE = {"simulation", "contracts", "compat", "lab", "demo", "benchmarks", "accidents"}
"""Folders of tests that belong to no single folder of the source."""


@cache
def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def words_of(name: str) -> Iterator[str]:
    """Split ``snake_case`` and ``CamelCase`` names into their words."""
    for part in name.split("_"):
        yield from re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", part)


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed(path: Path) -> ast.Module:
    """Parse a file, once: all files take seconds."""
    return ast.parse(path.read_text(encoding="utf-8"))


def test_files_are_short() -> None:
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(*FOLDERS)
    }
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_long_files_are_there() -> None:
    assert [name for name in LONG_FILES if not (TESTS / name).is_file()] == []


def test_functions_are_short() -> None:
    lengths = {
        f"{name_of(path)}: {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in python_files(*FOLDERS)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}


def says_nothing(name: str) -> bool:
    return any(FORBIDDEN_NAMES.fullmatch(word) for word in words_of(name))


def test_names_say_what_is_inside() -> None:
    files = [
        name_of(path)
        for path in python_files(*FOLDERS)
        if any(map(says_nothing, path.relative_to(ROOT).with_suffix("").parts))
    ]
    classes = [
        f"{name_of(path)}: {node.name}"
        for path in python_files(*FOLDERS)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and says_nothing(node.name)
    ]
    assert files + classes == []


@pytest.mark.parametrize("name", ["utils", "disk_utils", "ImageHelper", "misc", "RunManager", "HTTPUtil"])
def test_names_that_say_nothing_are_noticed(name: str) -> None:
    assert says_nothing(name)


@pytest.mark.parametrize("name", ["utilisation", "commonest", "Management", "miscount"])
def test_names_that_only_look_like_it_are_fine(name: str) -> None:
    assert not says_nothing(name)


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name_of(path)
        for path in python_files("src")
        if ast.get_docstring(parsed(path)) in {None, "", "To be described."}
    ]
    assert silent == []


def imported_by(path: Path) -> set[str]:
    """Give the modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def entry_points() -> set[str]:
    """Give the modules that nobody imports and that run all the same: the program, and its commands."""
    script = re.search(r'^hotspare = "([\w.]+):', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert script
    nouns = {f"hotspare.cli.{name}" for name in app if not name.startswith("-")}
    # Commands that are imported when they are used are named in a text.
    sources = [path.read_text(encoding="utf-8") for path in python_files("src")]
    late = {name for source in sources for name in re.findall(r'"(hotspare[\w.]+):\w+"', source)}
    return {script[1], "hotspare.__main__", *nouns, *late}


def test_no_module_is_dead() -> None:
    modules = {module_of(path): path for path in python_files("src") if path.name != "__init__.py"}
    used = entry_points()
    for path in python_files("src"):
        used |= imported_by(path) - {module_of(path)}
    assert sorted(set(modules) - used) == []


def test_every_folder_of_tests_mirrors_the_source() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    homeless = [
        str(folder)
        for folder in folders
        if not (SOURCE / folder).is_dir() and folder.parts[0] not in TESTS_OF_THE_WHOLE
    ]
    assert homeless == []


COMMAND = re.compile(r"(?:\$ )?(?:sudo )?(?:\w+=\S+ )*((?:make|hotspare)(?: .*)?)$")


def shown_commands(document: Path) -> list[list[str]]:
    """Give the words of each line in a document's code that runs ``make`` or ``hotspare``.

    Code is what stands between fences, in a block that is indented after an empty line, or in backticks.
    """
    fenced = indented = False
    commands = []
    before = ""
    for line in document.read_text(encoding="utf-8").splitlines():
        indented = line.startswith("    ") and (indented or not before.strip())
        before = line
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        candidates = [line] if fenced or indented else re.findall(r"`([^`]+)`", line)
        found = [COMMAND.match(candidate.strip()) for candidate in candidates]
        commands += [shlex.split(match[1], comments=True) for match in found if match]
    return commands


def make_targets() -> set[str]:
    makefile = ROOT / "Makefile"
    text = makefile.read_text(encoding="utf-8") if makefile.exists() else ""
    return set(re.findall(r"^([\w-]+):", text, re.MULTILINE))


def exists(words: list[str]) -> bool:
    """Tell whether a command line names a target of the Makefile or a command of the program."""
    if words[0] == "make":
        targets = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return set(targets) <= make_targets()
    command = app
    for word in words[1:]:
        if command.default_command is not None or not word.isalpha() or word.isupper():
            break
        if word not in command:
            return False
        command = command[word]
    return True


DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_in_documents_exist(document: Path) -> None:
    assert [shlex.join(words) for words in shown_commands(document) if not exists(words)] == []


def test_commands_that_do_not_exist_are_noticed(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text(
        "make nothing\n"
        "```sh\nmake no-such-target\nhotspare frobnicate\nsudo hotspare repo check # fine\n```\n"
        "- a point that says\n    make up your mind\n\n"
        "    HOTSPARE_REPOSITORY=/x hotspare repo destroy\n"
        "See `hotspare machine list` and `hotspare machine kill`,\n"
        "`make-believe` and `hotspare COMMAND --help`.\n"
    )
    assert [shlex.join(words) for words in shown_commands(document) if not exists(words)] == [
        "make no-such-target",
        "hotspare frobnicate",
        "hotspare repo destroy",
        "hotspare machine kill",
    ]


def test_lock_files_name_no_package_index() -> None:
    index_address = re.compile(r"://|--(extra-)?index-url|--find-links", re.IGNORECASE)
    hits = [
        f"{name_of(path)}:{number}"
        for path in sorted((ROOT / "requirements").glob("*.txt"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if index_address.search(line)
    ]
    assert hits == []
