"""What the time of a transfer went into, and which of its stages held it up."""

from typing import Any

import msgspec

_WORDS = {
    "reading": "reading the machine's disks",
    "processing": "hashing and compressing",
    "storing": "storing in the repository",
}


class Stages(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of a transfer, so far, by the stage that the others waited for."""

    reading: float = 0.0
    processing: float = 0.0
    storing: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of the whole transfer."""
        return self.reading + self.processing + self.storing


def stages_fields(stages: Stages | None) -> dict[str, Any] | None:
    """Describe it, with the stage that had the largest share; None before anything was transferred."""
    if stages is None or stages.total <= 0:
        return None
    seconds = {name: getattr(stages, name) for name in _WORDS}
    bottleneck = max(seconds, key=seconds.__getitem__)
    return {
        **{name: round(each, 3) for name, each in seconds.items()},
        "bottleneck": bottleneck,
        "share": round(seconds[bottleneck] / stages.total, 3),
    }


def bottleneck_words(fields: dict[str, Any] | None) -> str | None:
    """Say to people what ``stages_fields`` says to programs; None where nothing is known."""
    if fields is None:
        return None
    return f"{_WORDS[fields['bottleneck']]}: {fields['share']:.0%} of the transfer's time"
