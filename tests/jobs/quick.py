"""The program with a quick heart: what it waits for when others are silent would take a test too long.

``REAL_HEARTBEATS=1`` has the tests use the program as it is.
"""

import sys

from hotspare.cli.main import main
from hotspare.jobs import mover, movers

vars(mover)["BEAT_SECONDS"] = 0.5
movers.SILENT_SECONDS = 10.0

if __name__ == "__main__":
    sys.exit(main())
