"""What a receiver gets to read: one message for all that is sent to it at once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hotspare.policy.occurrence import SEVERITIES, Occurrence

_SHOWN_MAX = 50
MessageType = Literal["info", "success", "warning", "failure"]
"""As apprise calls them; receivers show them by colour or icon."""
_TYPES: dict[str, MessageType] = {"info": "info", "warning": "warning", "error": "failure"}


@dataclass(frozen=True, slots=True)
class Message:
    """Plain text."""

    title: str
    body: str
    type: MessageType


def compose(occurrences: Sequence[Occurrence], *, host: str, digest: bool) -> Message:
    """Put together what is told: one thing, or several with a count of each.

    Args:
        occurrences: at least one; the oldest first.
        host: where they were seen.
        digest: they are those of a day.
    """
    shown = [_words(one) for one in occurrences[:_SHOWN_MAX]]
    if left := len(occurrences) - len(shown):
        shown.append(f"... and {left} more: hotspare notice log")
    if len(occurrences) == 1 and not digest:
        title = _headline(occurrences[0])
    else:
        counts = Counter(f"{one.kind} mended" if one.state == "mended" else one.kind for one in occurrences)
        which = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        title = f"{'Digest' if digest else f'{len(occurrences)} notices'}: {which}"
    return Message(f"[Hotspare {_plain(host)}] {title}", "\n\n".join(shown), _type_of(occurrences))


def _type_of(occurrences: Sequence[Occurrence]) -> MessageType:
    bad = [one.severity for one in occurrences if one.state != "mended" and one.severity != "info"]
    if bad:
        return _TYPES[max(bad, key=SEVERITIES.index)]
    good = any(one.state == "mended" or one.kind == "run-ok" for one in occurrences)
    return "success" if good else "info"


def _headline(one: Occurrence) -> str:
    return f"{'Mended' if one.state == 'mended' else one.severity.upper()}: {_plain(one.title)}"


def _words(one: Occurrence) -> str:
    facts = [
        f"{one.at.astimezone():%Y-%m-%d %H:%M:%S %Z}",
        *(f"{name} {value}" for name, value in _facts(one) if value),
    ]
    lines = [_headline(one), *([_plain(one.text)] if one.text else []), _plain(", ".join(facts))]
    return "\n".join(lines)


def _facts(one: Occurrence) -> tuple[tuple[str, str], ...]:
    return (("machine", one.machine), ("policy", one.policy), ("platform", one.platform))


def _plain(text: str) -> str:
    """Keep to one line what names from outside may have in them."""
    return "".join(char if char.isprintable() else " " for char in text)
