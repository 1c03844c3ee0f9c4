"""``hotspare repo serve``: the far end of an ``ssh://`` repository."""

import os
import sys

from hotspare.cli.options import DEFAULTS, Options, Switch
from hotspare.errors import UsageError
from hotspare.repository.append_only import APPEND_ONLY
from hotspare.storage.served.access import FULL, READ_ONLY
from hotspare.storage.served.server import resolved, serve_folder


def serve(
    folder: str, /, *, append_only: Switch = False, read_only: Switch = False, options: Options = DEFAULTS
) -> None:
    """Serve a repository's folder to one client, over standard input and output.

    This is what an ssh:// repository runs on its server; it is not for people to call. A line in the
    server's authorized_keys ties a client's key to one folder and says what the client may do:

      command="hotspare repo serve --append-only /srv/backup",restrict ssh-ed25519 AAAA... web01

    No key or passphrase of the repository is needed here: what is served is encrypted.

    Args:
        folder: The folder; nothing outside of it is touched.
        append_only: Let the client add restore points, and change or remove nothing.
        read_only: Let the client read, and nothing else.
        options: See below.
    """
    del options
    if append_only and read_only:
        raise UsageError(
            "--append-only and --read-only exclude each other",
            meaning="Nothing was served",
            hint='See "hotspare repo serve --help"',
        )
    if sys.stdin.isatty() or sys.stdout.isatty():
        raise UsageError(
            "'hotspare repo serve' talks to a program, and this is a terminal",
            meaning="Nothing was served",
            hint="It is started over SSH by clients whose repository is ssh://HOST/FOLDER",
        )
    rules = APPEND_ONLY if append_only else READ_ONLY if read_only else FULL
    # What is printed by mistake must not get into the answers.
    sink = os.dup(1)
    os.dup2(2, 1)
    try:
        serve_folder(resolved(folder), rules, 0, sink)
    finally:
        os.close(sink)
