"""Saying what a benchmark is at."""

import time
from collections.abc import Callable

from rich.console import Console


def narrator(console: Console) -> Callable[[str], None]:
    """Give what prints a message with the seconds that have passed since now."""
    started = time.monotonic()
    return lambda message: console.print(f"[dim]{time.monotonic() - started:5.0f} s[/]  {message}")
