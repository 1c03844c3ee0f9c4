"""``hotspare config``: all policies, limits and receivers in one YAML document, to keep in Git and apply."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from cyclopts import Parameter

from hotspare.catalog.policy_files import PolicyFiles
from hotspare.cli import output
from hotspare.cli.confirmation import Yes, confirm
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.cli.outside_approval import outside_approval
from hotspare.cli.policy_checks import check_beyond
from hotspare.cli.session import Session
from hotspare.errors import ConfigError, NoSpace, PermissionRefused
from hotspare.policy.document import (
    Configuration,
    all_fields,
    read_configuration,
    write_configuration,
)
from hotspare.policy.shortening import what_shortens

app = noun("config", "Keep all policies in one YAML document: export, compare, apply.")

File = Annotated[Path, Parameter(allow_leading_hyphen=True)]


@app.command(
    help_epilogue=closing(
        ["hotspare config export > policies.yaml", "hotspare config export -o json"], PermissionRefused
    )
)
def export(*, options: Options = DEFAULTS) -> None:
    """Print all policies, limits and receivers of notices as one YAML document.

    Args:
        options: See below.
    """
    with Session(options) as session:
        files = session.policies()
        policies, limits, receivers = files.all(), files.limits(), files.receivers()
        if session.as_json:
            fields = {
                "policies": [all_fields(policy) for policy in policies.values()],
                "limits": all_fields(limits),
                "notices": [all_fields(receiver) for receiver in receivers.values()],
            }
            output.print_document(output.document("config", **fields))
        else:
            output.print_text(write_configuration(policies, limits, receivers).rstrip())


@app.command(
    help_epilogue=closing(
        ["hotspare config diff policies.yaml", "git show HEAD~:policies.yaml | hotspare config diff -"],
        PermissionRefused,
    )
)
def diff(file: File, /, *, prune: Switch = False, options: Options = DEFAULTS) -> None:
    """Show what "config apply" would change.

    Args:
        file: The YAML document; - is standard input.
        prune: Count policies and receivers of notices that are not in it as removed.
        options: See below.
    """
    with Session(options) as session:
        changes = _changes(session.policies(), _read(file), prune=prune)
        _say(session, changes, applied=False)


@app.command(
    help_epilogue=closing(
        [
            "hotspare config apply policies.yaml",
            "hotspare config apply policies.yaml --prune --yes",
            "hotspare config apply policies.yaml --dry-run",
        ],
        PermissionRefused,
        NoSpace,
    )
)
def apply(
    file: File,
    /,
    *,
    prune: Switch = False,
    yes: Yes = False,
    dry_run: Switch = False,
    options: Options = DEFAULTS,
) -> None:
    """Make the policies of this host what a YAML document says; all is checked before anything is changed.

    Policies and receivers of notices that are not in the document stay, unless --prune is given. Files that
    say the same already are not touched.

    Args:
        file: The YAML document; - is standard input.
        prune: Remove policies and receivers of notices that are not in it; asks first.
        yes: Do not ask.
        dry_run: Only show what would be changed.
        options: See below.
    """
    with Session(options) as session:
        files = session.policies()
        wanted = _read(file)
        changes = _changes(files, wanted, prune=prune)
        removed = [change for change in changes if change.action == "removed"]
        if not dry_run:
            if removed:
                names = ", ".join(change.name for change in removed)
                question = f"Remove {names}, and make all other changes?"
                confirm(question, "Nothing was changed", yes=yes)
            names = ", ".join(change.name for change in changes)
            with outside_approval(session, "config apply", names, _shortened(files, wanted)):
                _apply(files, wanted, removed)
        _say(session, changes, applied=not dry_run)


class Difference(NamedTuple):
    """One field that is different."""

    field: str
    """``retention.daily``."""
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class Change:
    """What is different of one policy or receiver, or of the limits."""

    of: Literal["policy", "limits", "notice"]
    name: str
    action: Literal["added", "changed", "removed"]
    differences: tuple[Difference, ...] = ()
    """Empty unless it is changed."""


def _read(file: Path) -> Configuration:
    source = "standard input" if str(file) == "-" else str(file)
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except PermissionError as error:
        raise PermissionRefused(f"{source} may not be read", meaning="Nothing was changed") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{source} cannot be read: {error}", meaning="Nothing was changed", hint="Check the path"
        ) from error
    wanted = read_configuration(text, source)
    for policy in wanted.policies:
        check_beyond(policy)
    return wanted


def _changes(files: PolicyFiles, wanted: Configuration, *, prune: bool) -> list[Change]:
    found = _changed("policy", files.all(), {one.name: one for one in wanted.policies}, prune=prune)
    limits = files.limits()
    if wanted.limits is not None and wanted.limits != limits:
        found.append(Change("limits", "limits", "changed", _differences(limits, wanted.limits)))
    if wanted.receivers is not None:
        receivers = {one.name: one for one in wanted.receivers}
        found += _changed("notice", files.receivers(), receivers, prune=prune)
    return found


def _changed(
    of: Literal["policy", "notice"],
    before: Mapping[str, msgspec.Struct],
    wanted: Mapping[str, msgspec.Struct],
    *,
    prune: bool,
) -> list[Change]:
    found = []
    for name in sorted(wanted):
        old = before.get(name)
        if old is None:
            found.append(Change(of, name, "added"))
        elif old != wanted[name]:
            found.append(Change(of, name, "changed", _differences(old, wanted[name])))
    gone = sorted(before.keys() - wanted.keys()) if prune else []
    return found + [Change(of, name, "removed") for name in gone]


def _differences(before: msgspec.Struct, after: msgspec.Struct) -> tuple[Difference, ...]:
    old, new = _flat(all_fields(before)), _flat(all_fields(after))
    return tuple(
        Difference(field, old.get(field), new.get(field))
        for field in dict.fromkeys((*old, *new))
        if old.get(field) != new.get(field)
    )


def _shortened(files: PolicyFiles, wanted: Configuration) -> list[str]:
    """Say of all policies what they would keep less of."""
    before = files.all()
    return [
        said
        for policy in wanted.policies
        if policy != before.get(policy.name)
        for said in what_shortens(before.get(policy.name), policy)
    ]


def _apply(files: PolicyFiles, wanted: Configuration, removed: list[Change]) -> None:
    for policy in wanted.policies:
        files.put(policy)
    for change in removed:
        if change.of == "policy":
            files.remove(change.name)
    if wanted.limits is not None:
        files.put_limits(wanted.limits)
    if wanted.receivers is not None:
        receivers = files.receivers() | {one.name: one for one in wanted.receivers}
        gone = {change.name for change in removed if change.of == "notice"}
        files.put_receivers(one for name, one in receivers.items() if name not in gone)


def _say(session: Session, changes: list[Change], *, applied: bool) -> None:
    if session.as_json:
        fields = [
            {
                "of": one.of,
                "name": one.name,
                "action": one.action,
                "differences": [difference._asdict() for difference in one.differences],
            }
            for one in changes
        ]
        output.print_document(output.document("config-changes", applied=applied, changes=fields))
        return
    for change in changes:
        name = f"notice {change.name}" if change.of == "notice" else change.name
        output.print_text(f"{name}: {change.action if applied else f'would be {change.action}'}")
        for one in change.differences:
            output.print_text(f"  {one.field}: {_shown(one.before)} -> {_shown(one.after)}")
    if not changes:
        output.print_text("Nothing is different.")


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _shown(value: object) -> str:
    if value is None or value in ((), [], ""):
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
