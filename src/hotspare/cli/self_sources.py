"""What a self-backup has beside files: key slots, orders that wait; and whose folders are whose."""

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from hotspare.cli.self_not_kept import not_kept
from hotspare.cli.session import Session
from hotspare.errors import HotspareError
from hotspare.policy.policy import Policy
from hotspare.policy.receiver import Receiver
from hotspare.repository.format import CONFIG, KEYS
from hotspare.repository.repository import Repository
from hotspare.self_backup.make import Beside
from hotspare.self_backup.manifest import Manifest, Places
from hotspare.settings import KEYS as SETTINGS
from hotspare.settings import Settings, default_config_file, variable_of

_SECRETS = frozenset({"passphrase_file", "passphrase_command", "key_file"})


def places_of(settings: Settings) -> Places:
    """Give the folders of this host."""
    usual = default_config_file(os.environ, Path.home(), os.geteuid() == 0)
    return Places(settings.config_file or usual, settings.policy_folder, settings.state_folder)


def beside_files(session: Session, repository: Repository) -> Beside:
    """Look at what is in no file of this host; what cannot be had is a remark."""
    settings = session.settings
    remarks: list[str] = []
    policies: list[Policy] = []
    receivers: list[Receiver] = []
    try:
        policies = list(session.policies().all().values())
        receivers = list(session.policies().receivers().values())
    except HotspareError as error:
        remarks.append(f"Files of policies are kept as they are, but not all can be understood: {error.what}")
    envelopes = list(_envelopes(session, repository, policies, remarks))
    orders = list(_waiting_orders(settings.job_database, remarks))
    return Beside(
        host=socket.gethostname(),
        settings=_settings_of_no_file(settings),
        envelopes=envelopes,
        orders=orders,
        not_kept=tuple(not_kept(settings, repository.backend.url, policies, receivers)),
        remarks=tuple(remarks),
    )


def put_orders_back(manifest: Manifest, job_database: str) -> int:
    """Put orders in line that waited, unless the job database has outlived the host; gives how many.

    Raises ``HotspareError`` when it cannot be made.
    """
    if not manifest.orders or not job_database.startswith("sqlite"):
        return 0
    # Takes long to import.
    from hotspare.jobs.database import checked_url, database_errors, open_database  # noqa: PLC0415
    from hotspare.jobs.orders import Order  # noqa: PLC0415
    from hotspare.jobs.waiting import Waiting  # noqa: PLC0415

    engine = open_database(checked_url(job_database))
    try:
        with database_errors("written"):
            for kept in manifest.orders:
                Waiting(engine).ask(msgspec.convert(kept["order"], Order), priority=kept["priority"])
    finally:
        engine.dispose()
    return len(manifest.orders)


def _waiting_orders(job_database: str, remarks: list[str]) -> Iterator[dict[str, object]]:
    """Yield what somebody has asked for: what is due by the calendar is found out anew."""
    path = job_database.removeprefix("sqlite:///")
    if job_database.startswith("sqlite") and not Path(path).exists():
        return
    # Takes long to import.
    from hotspare.jobs.database import checked_url, database_errors, open_database  # noqa: PLC0415
    from hotspare.jobs.waiting import Waiting  # noqa: PLC0415

    try:
        engine = open_database(checked_url(job_database), make=False)
        try:
            with database_errors("read"):
                rows = Waiting(engine).all()
        finally:
            engine.dispose()
    except HotspareError as error:
        remarks.append(f"Orders that wait are not kept: {error.what}")
        return
    for row in rows:
        if row.asked and not row.dropped:
            yield {"order": msgspec.to_builtins(row.order), "priority": row.priority}


def _envelopes(
    session: Session, repository: Repository, policies: Sequence[Policy], remarks: list[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield the key slots of this repository, and of those that policies go to, as they lie there."""
    urls = [repository.backend.url, *(policy.repository for policy in policies if policy.repository)]
    for url in dict.fromkeys(urls):
        try:
            backend = repository.backend if url == repository.backend.url else session.backend(url)
            config = backend.get(CONFIG)
            name = str(msgspec.json.decode(config.partition(b"\n")[0])["id"])
            found = [(f"{name}/{CONFIG}", config)]
            found += [(f"{name}/{item.name}", backend.get(item.name)) for item in backend.list(KEYS)]
        except (HotspareError, msgspec.DecodeError, LookupError, TypeError) as error:
            remarks.append(f"Key slots of {url} are not kept: {error}")
            continue
        yield from found


def _settings_of_no_file(settings: Settings) -> dict[str, str]:
    """Give the settings of this run that only its environment or a flag says; secrets are none of them."""
    found = {}
    for key in SETTINGS:
        variable, origin = variable_of(key), settings.origins[key]
        if key not in _SECRETS and origin in {"flag", variable}:
            found[variable] = str(getattr(settings, key)) if origin == "flag" else os.environ[variable]
    return found
