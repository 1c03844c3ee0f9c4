"""Where the command line begins and ends: runs a command and turns errors into words and an exit status."""

import ctypes
import gc
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from traceback import print_exception
from typing import TYPE_CHECKING

from hotspare import __version__
from hotspare.cli.elsewhere import Elsewhere, OnServer
from hotspare.cli.nouns import overview
from hotspare.cli.output import error_document, note, print_text
from hotspare.errors import HotspareError, Interrupted, UsageError
from hotspare.units import MIB

if TYPE_CHECKING:
    from cyclopts import CycloptsError

_UNCOLLECTED_MAX = 50_000
"""Objects that are there more, until Python looks for cycles among them; usually that is 700, and a tenth of
the time of starting goes into looking at what libraries have just made, to stay."""
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
"""Names of mallopt(3), from malloc.h."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit status.

    Args:
        arguments: what follows the program's name; None for those of this process.
    """
    _keep_freed_memory()
    gc.set_threshold(_UNCOLLECTED_MAX)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(_with_server_last(words))
    except HotspareError as error:
        return _report(error, words)
    except KeyboardInterrupt as error:
        return _report(Interrupted("Interrupted", meaning="Nothing half-done was left behind"), words, error)
    except Exception as error:  # noqa: BLE001 - the last line of defence: users never meet a bare traceback
        return _report(_bug(error), words, error)


def _keep_freed_memory() -> None:
    """Let the allocator keep what was freed, up to a bound, for the next chunk.

    It would otherwise give every compressed chunk's memory back to the kernel, and get it again with a page
    fault for each 4 KiB. See mallopt(3); other C libraries than glibc have no such function.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * MIB)
        mallopt(_M_TRIM_THRESHOLD, 64 * MIB)


def _run(words: list[str]) -> int:
    if words in ([], ["--help"], ["-h"]):
        print_text(overview())
        return 0
    if words == ["--version"]:
        print_text(__version__)
        return 0
    from cyclopts import CycloptsError  # noqa: PLC0415 - it takes longer to import than all of the above

    from hotspare.cli.app import app  # noqa: PLC0415 - likewise

    try:
        app(words, exit_on_error=False, print_error=False)
    except Elsewhere as elsewhere:
        from hotspare.cli.run_elsewhere import run_elsewhere  # noqa: PLC0415 - likewise

        return run_elsewhere(elsewhere, words)
    except OnServer as asked:
        from hotspare.cli.on_server import run_on_server  # noqa: PLC0415 - likewise

        return run_on_server(asked.options, words)
    except CycloptsError as error:
        raise _usage_error(error) from error
    return 0


def _with_server_last(words: list[str]) -> list[str]:
    """Let ``--server URL`` stand before the noun as well, where it says to whom all the rest goes."""
    if words[:1] == ["--server"] and len(words) > 2:
        return [*words[2:], *words[:2]]
    if words and words[0].startswith("--server="):
        return [*words[1:], words[0]]
    return words


def _usage_error(error: "CycloptsError") -> UsageError:
    error.verbose = False
    chain = " ".join(("hotspare", *(error.command_chain or ())))
    return UsageError(str(error).strip(), hint=f'See "{chain} --help"')


def _bug(error: Exception) -> HotspareError:
    return HotspareError(
        f"Something went wrong that Hotspare has no words for: {type(error).__name__}: {error}",
        meaning="This is a mistake in Hotspare. Restore points that were made before are not affected",
        hint="Run the command again with --debug and report what it prints, with what hotspare doctor says",
    )


def _report(error: HotspareError, words: Sequence[str], cause: BaseException | None = None) -> int:
    if "--debug" in words:
        print_exception(cause or error)
    if wants_json(words):
        note(json.dumps(error_document(error)))
    else:
        note(f"hotspare: {error}")
    return error.exit_status


def wants_json(words: Sequence[str]) -> bool:
    """Tell whether a command line asks for JSON, even one that could not be understood otherwise."""
    if any(word in {"-ojson", "-o=json", "--output=json"} for word in words):
        return True
    return any(pair in {("-o", "json"), ("--output", "json")} for pair in pairwise(words))
