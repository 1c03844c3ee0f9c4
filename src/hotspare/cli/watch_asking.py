"""Asking what may never answer: a platform whose daemon hangs, a store that swallows every packet."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from hotspare.errors import HotspareError, NotKnown

Answer = TypeVar("Answer")


class Asker:
    """Puts questions, each in a thread of its own, and does not wait for ever.

    A question that was not answered is not put again while it is still open, so threads do not pile up.
    """

    def __init__(self, patience: float) -> None:
        """``patience`` is how many seconds all questions of one round have together."""
        self._patience = patience
        self._open: dict[str, _Question[object]] = {}

    def ask_all(
        self, questions: Mapping[str, Callable[[], Answer]]
    ) -> tuple[dict[str, Answer], dict[str, HotspareError]]:
        """Put all at once; gives the answers, and of the others why there is none, each by its key."""
        answers: dict[str, Answer] = {}
        errors: dict[str, HotspareError] = {}
        put: dict[str, _Question[Answer]] = {}
        for key, question in questions.items():
            before = self._open.get(key)
            if before is not None and before.is_alive():
                errors[key] = _silent(time.monotonic() - before.began)
            else:
                put[key] = _Question(question)
                put[key].start()
        deadline = time.monotonic() + self._patience
        for key, asked in put.items():
            asked.join(max(0.0, deadline - time.monotonic()))
            if asked.is_alive():
                self._open[key] = asked  # type: ignore[assignment]  # of whatever it is, only the end counts
                errors[key] = _silent(self._patience)
            elif asked.error is not None:
                errors[key] = asked.error
            else:
                answers[key] = asked.answers[0]
        return answers, errors


class _Question(threading.Thread, Generic[Answer]):
    def __init__(self, question: Callable[[], Answer]) -> None:
        super().__init__(name="question", daemon=True)
        self.began = time.monotonic()
        self.answers: list[Answer] = []
        self.error: HotspareError | None = None
        self._question = question

    def run(self) -> None:
        try:
            self.answers.append(self._question())
        except HotspareError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - what cannot be asked is not known, whatever the reason
            self.error = NotKnown(f"Asking failed: {type(error).__name__}: {error}")


def _silent(seconds: float) -> HotspareError:
    return NotKnown(
        f"No answer within {seconds:.0f} seconds",
        meaning="It is not known how machines there are protected",
        hint="See whether the host, its libvirt or the store hangs",
    )
