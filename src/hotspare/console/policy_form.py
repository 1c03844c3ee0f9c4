"""A policy as a form, there and back: every field that a policy has can be filled in."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from hotspare.console.form import Form
from hotspare.errors import UsageError
from hotspare.policy.document import all_fields, read_policy
from hotspare.policy.policy import NAME, Manner, Policy, Schedule
from hotspare.policy.retention import Retention

NEW = Policy(
    name="nightly",
    schedule=Schedule(when=("22:00",), rpo="26h"),
    retention=Retention(daily=7, weekly=4, monthly=12),
)
"""What the form for a new one proposes."""

_LISTS = {
    "select": ("platforms", "names", "exclude", "tags"),
    "schedule": ("when", "windows", "blackouts"),
    "backup": ("hooks", "exclude_disks"),
}
_TEXTS = {"schedule": ("time_zone", "low_peak", "rpo"), "backup": ("read_limit",)}
_FLAGS = {
    "schedule": ("break_windows_for_rpo", "stop_at_window_end"),
    "backup": ("require_consistency", "skip_unused", "index_files"),
}
_FRACTIONS = {"latency_factor": Manner().latency_factor, "check_tracking": Manner().check_tracking}
"""Of how machines are backed up, with what is usual."""
KEPT = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def fields_of(given: Policy | Form) -> dict[str, str]:
    """Give what the fields of the form show: texts, lists a line each, "on" for a ticked box."""
    if isinstance(given, Form):
        return given.texts()
    return _flat(all_fields(given))


def body_in(form: Form) -> dict[str, Any]:
    """Give the definition that a form says, as ``PUT /policies/{policy}`` takes it. Raises ``UsageError``."""
    body: dict[str, Any] = {
        "description": form.text("description"),
        "enabled": form.flag("enabled"),
        "priority": _whole(form, "priority"),
        "repository": form.text("repository"),
        "retention": {kind: form.number(f"retention.{kind}") for kind in KEPT},
    }
    for part, names in _LISTS.items():
        body.setdefault(part, {}).update({name: form.lines(f"{part}.{name}") for name in names})
    for part, names in _TEXTS.items():
        body[part].update({name: text for name in names if (text := form.text(f"{part}.{name}"))})
    for part, names in _FLAGS.items():
        body[part].update({name: form.flag(f"{part}.{name}") for name in names})
    for name, usual in _FRACTIONS.items():
        # A fraction that says what is usual is left out, as a policy's file does.
        if (value := _fraction(form, f"backup.{name}", str(usual))) != usual:
            body["backup"][name] = value
    body["backup"]["consistency"] = form.optional("backup.consistency")
    return body


def policy_in(form: Form) -> Policy:
    """Give the policy that a form says.

    Raises:
        UsageError: it has no name that a policy can have.
        ConfigError: something in it cannot be read; says what.
    """
    name = form.text("name")
    if not NAME.fullmatch(name):
        raise UsageError(
            f"A policy cannot be called {name!r}",
            meaning="Nothing was changed",
            hint="Use small letters, digits and . _ - behind the first; 63 at most",
        )
    return read_policy(json.dumps(body_in(form), indent=1), name, "the form")


def _flat(fields: Mapping[str, Any], before: str = "") -> dict[str, str]:
    shown: dict[str, str] = {}
    for key, value in fields.items():
        name = before + key
        if isinstance(value, dict):
            shown |= _flat(value, f"{name}.")
        elif isinstance(value, list):
            shown[name] = "\n".join(value)
        elif isinstance(value, bool):
            shown[name] = "on" if value else ""
        else:
            shown[name] = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return shown


def _whole(form: Form, name: str) -> int:
    return int(_fraction(form, name, "0"))


def _fraction(form: Form, name: str, usual: str) -> float:
    text = form.text(name) or usual
    try:
        return msgspec.convert(text, float, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"'{text}' is no number", meaning="Nothing was changed", hint=f"See '{name}'"
        ) from error
