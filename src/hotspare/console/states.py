"""How machines, runs and jobs stand, in one word each, with the look of that word.

A state is never shown by colour alone: the word is always there, and a sign before it.
"""

from dataclasses import dataclass
from typing import Literal

Tone = Literal["ok", "warning", "failed", "running", "missed", "never", "disabled", "stale"]


@dataclass(frozen=True, slots=True)
class State:
    """One state."""

    word: str
    tone: Tone
    sign: str
    """One character, for those who see; screen readers leave it out."""


_SIGNS: dict[Tone, str] = {
    "ok": "✓",
    "warning": "!",
    "failed": "✕",
    "running": "▸",
    "missed": "○",
    "never": "-",
    "disabled": "‖",
    "stale": "◷",
}
_TONES: dict[str, tuple[str, Tone]] = {
    "ok": ("ok", "ok"),
    "protected": ("protected", "ok"),
    "passed": ("passed", "ok"),
    "warning": ("warning", "warning"),
    "interrupted": ("interrupted", "warning"),
    "cancelled": ("cancelled", "warning"),
    "suspicious": ("suspicious", "failed"),
    "failed": ("failed", "failed"),
    "lost": ("lost", "failed"),
    "running": ("running", "running"),
    "queued": ("queued", "running"),
    "waiting": ("waiting", "disabled"),
    "missed": ("missed", "missed"),
    "never-run": ("never run", "never"),
    "never-backed-up": ("never run", "never"),
    "disabled": ("disabled", "disabled"),
    "gone": ("gone", "disabled"),
    "stale": ("stale", "stale"),
    "approved": ("approved", "ok"),
    "rejected": ("rejected", "disabled"),
    "expired": ("expired", "disabled"),
}


def state_of(name: str) -> State:
    """Give how a state is shown."""
    word, tone = _TONES[name]
    return State(word, tone, _SIGNS[tone])
