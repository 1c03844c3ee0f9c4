"""Having a command done on the host of the machines: ``--platform qemu+ssh://HOST/system``.

The same command runs there, by ``hotspare mover``, with the platform that is local there. What it says is
shown here, and its exit status is that of the command.
"""

import sys

from hotspare.cancellation import cancelled_by_signals
from hotspare.cli import output
from hotspare.cli.directing import Errand, run_errand
from hotspare.cli.elsewhere import Elsewhere
from hotspare.cli.passphrase import existing_credential
from hotspare.cli.progress import shown_progress
from hotspare.documents.progress import event_of
from hotspare.events import Listener


def run_elsewhere(elsewhere: Elsewhere, words: list[str]) -> int:
    """Run a command line on the host of its platform, and give its exit status."""
    settings, options = elsewhere.settings, elsewhere.options
    with_bars = options.progress_form == "auto" and sys.stderr.isatty()
    with (
        cancelled_by_signals() as cancellation,
        shown_progress("auto" if with_bars else "none", cancellation) as listener,
    ):
        errand = Errand(
            platform=settings.platform,
            words=words,
            repository=settings.repository,
            credential=lambda: existing_credential(settings, settings.repository or ""),
            said=_Shown(listener if with_bars else None),
            progress="jsonl" if with_bars else options.progress_form,
        )
        return run_errand(errand, settings, cancellation)


class _Shown:
    """Shows what the command says there."""

    def __init__(self, listener: Listener | None) -> None:
        """``listener`` is told the events that come as lines of JSON; without one, they are lines."""
        self._listener = listener

    def __call__(self, stream: int, text: str) -> None:
        for line in text.removesuffix("\n").split("\n"):
            event = event_of(line) if stream == 2 and self._listener else None
            if event is not None and self._listener:
                self._listener(event)
            elif stream == 1:
                output.print_text(line)
            else:
                output.note(line)
