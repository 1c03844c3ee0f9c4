"""Definitions as YAML: read with the line of each mistake, written so that they read back the same.

This is YAML 1.2's core schema: ``22:00``, ``no`` and dates are texts. (YAML 1.1, which most programs speak,
takes ``22:00`` for the number 1320.)
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

import msgspec
import yaml

from hotspare.errors import ConfigError
from hotspare.policy.limits import Limits, Link, checked_limits
from hotspare.policy.policy import Misfit, Policy, checked
from hotspare.policy.receiver import Receiver, checked_receiver
from hotspare.policy.yaml_text import Located, compose, dump, parse_error

VERSION = 1
_KEYS = ("version", "limits", "notices", "policies")
Kind = TypeVar("Kind", bound=msgspec.Struct)


class Configuration(msgspec.Struct, frozen=True):
    """All that ``config export`` writes."""

    policies: tuple[Policy, ...] = ()
    limits: Limits | None = None
    """None where the document does not speak of them."""
    receivers: tuple[Receiver, ...] | None = None
    """All of them; None where the document does not speak of them."""


def read_policy(text: str, name: str, source: str) -> Policy:
    """Read one policy's own file.

    Args:
        text: YAML with the fields of ``Policy``, without the name.
        name: what the policy is called.
        source: what the text is called in errors: a path.

    Raises:
        ConfigError: it is not YAML, or no policy; names the line.
    """
    return _policy(_Document(text, source), (), name)


def read_limits(text: str, source: str) -> Limits:
    """Read the limits' own file. Raises as ``read_policy``."""
    return _limits(_Document(text, source), ())


def read_receivers(text: str, source: str) -> tuple[Receiver, ...]:
    """Read the receivers' own file: by name what each is. Raises as ``read_policy``."""
    return _receivers(_Document(text, source), ())


def read_configuration(text: str, source: str) -> Configuration:
    """Read what ``write_configuration`` writes, or people do. Raises as ``read_policy``."""
    document = _Document(text, source)
    top = document.mapping(())
    for key in top:
        if key not in _KEYS:
            document.refuse((key,), f'there is no "{key}" here', _near(key, list(_KEYS)))
    if top.get("version", VERSION) != VERSION:
        document.refuse(
            ("version",), f"this is version {top['version']!r}", f"This Hotspare reads version {VERSION}"
        )
    policies = document.mapping(("policies",)) if top.get("policies") is not None else {}
    return Configuration(
        tuple(_policy(document, ("policies", name), name) for name in policies),
        _limits(document, ("limits",)) if top.get("limits") is not None else None,
        _receivers(document, ("notices",)) if top.get("notices") is not None else None,
    )


def write_policy(policy: Policy) -> str:
    """Give a policy's own file."""
    return dump(policy_fields(policy))


def write_limits(limits: Limits) -> str:
    """Give the limits' own file."""
    return dump(msgspec.to_builtins(limits))


def write_receivers(receivers: Mapping[str, Receiver]) -> str:
    """Give the receivers' own file, in the order of names."""
    return dump(_receivers_fields(receivers))


def write_configuration(
    policies: Mapping[str, Policy], limits: Limits, receivers: Mapping[str, Receiver]
) -> str:
    """Give one document with everything, in the order of names."""
    return dump(
        {
            "version": VERSION,
            "limits": msgspec.to_builtins(limits),
            "notices": _receivers_fields(receivers),
            "policies": {name: policy_fields(policies[name]) for name in sorted(policies)},
        }
    )


def all_fields(part: msgspec.Struct) -> dict[str, Any]:
    """Give everything that a part of a definition says, defaults too, as plain values."""
    fields: dict[str, Any] = msgspec.structs.asdict(part)
    return {key: _plain(value) for key, value in fields.items()}


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return all_fields(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def policy_fields(policy: Policy | Receiver) -> dict[str, Any]:
    """Give what a policy or receiver says beyond the defaults, as plain values, without its name."""
    fields: dict[str, Any] = msgspec.to_builtins(policy)
    del fields["name"]
    return {key: value for key, value in fields.items() if value != {}}


def _receivers_fields(receivers: Mapping[str, Receiver]) -> dict[str, Any]:
    return {name: policy_fields(receivers[name]) for name in sorted(receivers)}


class _Document:
    """A text that was understood as YAML, and where in it everything stands."""

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        try:
            self._located: Located = compose(text)
        except yaml.YAMLError as error:
            line, problem = parse_error(error)
            self._fail(line, problem, "The file has to be YAML: indented with spaces, texts with : in quotes")

    def value(self, path: tuple[str | int, ...]) -> object:
        """Give what stands at a path."""
        found: Any = self._located.value
        for key in path:
            found = found[key]
        return found

    def mapping(self, path: tuple[str | int, ...]) -> dict[str, Any]:
        """Give a mapping with texts as keys."""
        found = self.value(path)
        if found is None and not path:
            return {}
        if not isinstance(found, dict):
            self.refuse(path, "keys with values are wanted here", "Write it like 'when: hourly'")
        for key in found:
            if not isinstance(key, str):
                self.refuse((*path, key), f"the key {key!r} is no text", "Put it in quotes")
        return found

    def refuse(self, path: tuple[str | int, ...], problem: str, hint: str) -> NoReturn:
        """Raise a ``ConfigError`` for what stands at a path."""
        self._fail(self._located.line(path), problem, hint)

    def _fail(self, line: int, problem: str, hint: str) -> NoReturn:
        raise ConfigError(f"{self._source}, line {line}: {problem}", meaning="Nothing was changed", hint=hint)


def _policy(document: _Document, path: tuple[str | int, ...], name: str) -> Policy:
    policy = _converted(document, path, Policy, {"name": name})
    try:
        return checked(policy)
    except Misfit as misfit:
        document.refuse((*path, *misfit.path), misfit.what, misfit.hint)


def _limits(document: _Document, path: tuple[str | int, ...]) -> Limits:
    fields = document.mapping(path) if document.value(path) is not None else {}
    for name in document.mapping((*path, "links")) if fields.get("links") is not None else ():
        _converted(document, (*path, "links", name), Link)  # each by itself: a mistake has its line
    limits = _converted(document, path, Limits)
    try:
        return checked_limits(limits)
    except Misfit as misfit:
        document.refuse((*path, *misfit.path), misfit.what, misfit.hint)


def _receivers(document: _Document, path: tuple[str | int, ...]) -> tuple[Receiver, ...]:
    found = []
    for name in document.mapping(path):
        inner = (*path, name)
        try:
            found.append(checked_receiver(_converted(document, inner, Receiver, {"name": name})))
        except Misfit as misfit:
            document.refuse((*inner, *misfit.path), misfit.what, misfit.hint)
    return tuple(found)


def _converted(
    document: _Document,
    path: tuple[str | int, ...],
    kind: type[Kind],
    more: Mapping[str, object] | None = None,
) -> Kind:
    fields = document.mapping(path) if document.value(path) is not None else {}
    if more and (clash := set(more) & set(fields)):
        document.refuse(
            (*path, *clash), f'"{clash.pop()}" is given by the key or file already', "Leave it out"
        )
    try:
        return msgspec.convert({**fields, **(more or {})}, kind)
    except msgspec.ValidationError as error:
        _explain(document, path, kind, str(error))


def _explain(
    document: _Document, path: tuple[str | int, ...], kind: type[msgspec.Struct], text: str
) -> NoReturn:
    """Say what msgspec says, at its line and with what could be meant."""
    problem, _, where = text.partition(" - at `$")
    inner = _steps(where.rstrip("`"))
    if problem.startswith("Object contains unknown field"):
        key = problem.split("`")[1]
        known = [name for name in _fields_at(kind, inner) if name != "name"]
        document.refuse((*path, *inner, key), f'there is no "{key}" here', _near(key, known))
    key = next((step for step in reversed(inner) if isinstance(step, str)), "this")
    said = {"array": "a list", "int": "a number", "str": "a text", "bool": "true or false", "object": "keys"}
    for name, words in said.items():
        problem = problem.replace(f"`{name}`", words).replace(f"`{name} | null`", words)
    document.refuse((*path, *inner), f"{key}: {problem[:1].lower()}{problem[1:]}", _example(key))


def _steps(where: str) -> tuple[str | int, ...]:
    steps: list[str | int] = []
    for part in where.replace("[", ".[").split("."):
        if part.startswith("["):
            steps += [int(part[1:-1])] if part[1:-1].isdigit() else []
        elif part:
            steps.append(part)
    return tuple(steps)


def _fields_at(kind: type[msgspec.Struct], steps: tuple[str | int, ...]) -> list[str]:
    for step in steps:
        types = {field.name: field.type for field in msgspec.structs.fields(kind)}
        inner = types.get(str(step))
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            kind = inner
    return [field.name for field in msgspec.structs.fields(kind)]


def _near(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, n=1)
    return f'Did you mean "{near[0]}"?' if near else f"What there can be is {', '.join(known)}"


_EXAMPLES = {
    "names": "['web*', db1]",
    "exclude": "['*-test']",
    "tags": "[prod]",
    "platforms": "['qemu:///system']",
    "when": "['Mon..Fri 22:00']",
    "windows": "['22:00-06:00']",
    "blackouts": "['2026-12-24..2026-12-26']",
    "rpo": "26h",
    "tested_within": "30d",
    "events": "[run-failed, rpo-broken]; all of them are in docs/notices.md",
    "severity": "info, warning or error",
    "machines": "['web*']",
    "policies": "[nightly]",
    "delivery": "immediate or digest",
    "digest_at": "'07:00'",
    "hooks": "[postgresql]",
    "consistency": "crash, filesystem or application",
    "low_peak": "ignore, propose or use",
    "read_limit": "100MiB/s",
    "hosts": "['qemu+ssh://root@branch*/system']",
    "repositories": "['s3:https://offsite.example.com/*']",
    "bandwidth": "50MiB/s",
}


def _example(key: str) -> str:
    return f"Write it like {key}: {_EXAMPLES[key]}" if key in _EXAMPLES else "See docs/policies.md"
