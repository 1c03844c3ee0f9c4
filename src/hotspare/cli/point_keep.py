"""``hotspare point keep`` and ``point release``: protect restore points from being forgotten."""

from datetime import UTC, datetime

from hotspare.cli import output
from hotspare.cli.options import DEFAULTS, Options
from hotspare.cli.quantities import parse_moment
from hotspare.cli.session import Session
from hotspare.repository.format import check_may_write
from hotspare.repository.kept import keep_point, release_point
from hotspare.repository.select import find_point


def keep(point: str, /, *, until: str | None = None, options: Options = DEFAULTS) -> None:
    """Protect a restore point: it is not forgotten before it is released, unless that is forced.

    Args:
        point: Id of a restore point or the beginning of one; or a machine's name, for its newest.
        until: Protect it until then only.
        options: See below.
    """
    with Session(options) as session:
        moment = parse_moment(until) if until else None
        repository = session.repository()
        found = find_point(repository, point)
        check_may_write(repository.config, repository.backend.url)
        keep_point(repository.backend, repository.keyring, found.id, datetime.now(UTC), moment)
        if session.as_json:
            fields = {"point": found.id, "until": output.utc_time(moment) if moment else None}
            output.print_document(output.document("point-kept", **fields))
        else:
            when = f"until {output.local_time(moment)}" if moment else "until it is released"
            output.print_text(f"The restore point {found.id} is kept {when}.")


def release(point: str, /, *, options: Options = DEFAULTS) -> None:
    """Take the protection of "point keep" away.

    Args:
        point: Id of a restore point or the beginning of one; or a machine's name, for its newest.
        options: See below.
    """
    with Session(options) as session:
        repository = session.repository()
        found = find_point(repository, point)
        check_may_write(repository.config, repository.backend.url)
        release_point(repository.backend, found.id)
        if session.as_json:
            output.print_document(output.document("point-released", point=found.id))
        else:
            output.print_text(f"The restore point {found.id} may be forgotten.")
