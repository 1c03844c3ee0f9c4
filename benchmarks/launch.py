"""Runs a program and prints its seconds of wall and CPU time and its peak memory in KiB, as JSON.

Linux counts the memory of the process that starts a program for that program too. So a large one, as the
benchmark is, must not start it itself: this file is run by a bare interpreter, which takes about 10 MiB.
"""

import json
import os
import sys
import time


def _launch(result: str, command: list[str]) -> int:
    started = time.monotonic()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, used = os.wait4(process, 0)
    wall = time.monotonic() - started
    with open(result, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib would take more memory
        json.dump({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "memory_kib": used.ru_maxrss}, file)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(_launch(sys.argv[1], sys.argv[2:]))
