"""Run many histories: ``python -m tests.simulation --seeds 100000 --from 0``."""

import argparse
import sys
import time
import traceback
from collections import Counter

from tests.simulation.history import run_history


def main() -> int:
    """Give the exit status: 1 when a seed fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--trace", action="store_true", help="print what happened in a failing history")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failing seed")
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    failed = 0
    begun = time.monotonic()
    for seed in range(given.first, given.first + given.seeds):
        try:
            world = run_history(seed)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed is what is to be told
            failed += 1
            if given.trace:
                print("\n".join(error.world.scheduler.trace))  # type: ignore[attr-defined]  # set by run_history
                traceback.print_exception(error)
            print(f"seed {seed}: {error!r}")
            if not given.keep_going:
                return 1
            continue
        counts.update(world.counts)
        failures.update(failure.partition(" ")[0] for failure in world.failures)
    seconds = time.monotonic() - begun
    print(f"{given.seeds} histories in {seconds:.0f} s, {failed} failed; {dict(counts)}; {dict(failures)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
