"""YAML as plain values, each with the line it stands on; and back to text."""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]


class _CoreLoader(yaml.SafeLoader):
    """YAML 1.2's core schema in place of 1.1's, which knows times, dates and a ``yes`` of its own."""


class _QuotingDumper(yaml.SafeDumper):
    """Puts into quotes what either version would take for something else than a text."""


_CoreLoader.yaml_implicit_resolvers = {}
_RESOLVERS = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
)
for _tag, _pattern, _first in _RESOLVERS:
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
    _QuotingDumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


@dataclass(frozen=True, slots=True)
class Located:
    """A document's value, and the lines of its parts."""

    value: Any
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """Give the line, from 1, of what stands at a path; else of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def compose(text: str) -> Located:
    """Read one document. Raises ``yaml.YAMLError``, also for a key that is there twice, and for aliases."""
    loader = _CoreLoader(text)
    try:
        node = loader.get_single_node()
        lines: dict[Path, int] = {}
        value = _value(loader, node, (), lines, set()) if node is not None else None
    finally:
        loader.dispose()
    return Located(value, lines)


def _value(
    loader: _CoreLoader, node: yaml.Node, path: Path, lines: dict[Path, int], seen: set[int]
) -> object:
    lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in seen:
        raise yaml.constructor.ConstructorError(None, None, "aliases are not read here", node.start_mark)
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, one, (*path, at), lines, seen) for at, one in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    found: dict[Hashable, object] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, Hashable) or key in found:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is there twice, or none", key_node.start_mark
            )
        inner = (*path, key if isinstance(key, int) else str(key))
        lines[inner] = key_node.start_mark.line + 1
        found[key] = _value(loader, value_node, inner, lines, seen)
    return found


def dump(fields: dict[str, Any]) -> str:
    """Write plain values, in their order, so that every program reads the same."""
    if not fields:
        return "{}\n"
    return yaml.dump(fields, Dumper=_QuotingDumper, sort_keys=False, allow_unicode=True, width=110)


def parse_error(error: yaml.YAMLError) -> tuple[int, str]:
    """Give the line, from 1, and the words of an error."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return (mark.line + 1 if mark else 1), problem
