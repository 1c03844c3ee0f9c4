"""``hotspare load``: how busy hosts are, sampled from their platforms, and when backups disturb least."""

from dataclasses import replace
from typing import Annotated
from zoneinfo import ZoneInfo

from cyclopts import Parameter
from cyclopts.validators import Number

from hotspare.catalog.catalog import Catalog
from hotspare.cli import output
from hotspare.cli.help import closing, noun
from hotspare.cli.options import DEFAULTS, Options, Repeatable
from hotspare.cli.policy_preview import print_low_peak
from hotspare.cli.session import Session
from hotspare.documents.host import load_fields
from hotspare.errors import PermissionRefused, PlatformUnavailable, UsageError
from hotspare.fleet.fleet import Fleet
from hotspare.fleet.host import QUICK_SECONDS, Host
from hotspare.fleet.preview import low_peak_fields
from hotspare.platforms.registry import plain_uri
from hotspare.policy.load import LoadSample, usual_latency
from hotspare.policy.local_time import zone_named
from hotspare.policy.low_peak import LowPeak, learn_low_peak
from hotspare.units import format_rate

app = noun("load", "Sample how busy hosts are, and see when backups disturb least.")


@app.command(
    help_epilogue=closing(
        ["hotspare load sample", "hotspare load sample --platform qemu:///system --seconds 60"],
        PlatformUnavailable,
        PermissionRefused,
    )
)
def sample(
    *,
    platform: Repeatable = (),
    seconds: Annotated[float, Parameter(validator=Number(gt=0, lte=3600))] = 30.0,
    options: Options = DEFAULTS,
) -> None:
    """Look at the CPU, disk and network use of all machines of a host for a while, and keep that for 8 weeks.

    A timer should do it every ten minutes or so: "load windows", and policies, learn low-peak hours from it.

    Args:
        platform: URI of a platform; may be given again. Without it, HOTSPARE_PLATFORM, else qemu:///system.
        seconds: For how long to look.
        options: See below.
    """
    with Session(options) as session:
        hosts = [session.host_at(uri) for uri in platform or (session.settings.platform,)]
        catalog = session.catalog()
        samples = {one.uri: taken for one in hosts if (taken := _take(one, catalog, seconds))}
        if not samples:
            raise UsageError(
                "None of these platforms counts what its machines use",
                meaning="Nothing was kept",
                hint="Sample one with machines that run, as qemu:///system",
            )
        for uri, taken in samples.items():
            catalog.add_load(uri, taken)
        if session.as_json:
            fields = [{"platform": uri, **load_fields(taken)} for uri, taken in samples.items()]
            output.print_document(output.document("load-sample", samples=fields))
            return
        rows = [
            (
                uri,
                f"{taken.cpu:.1%}",
                format_rate(taken.disk),
                format_rate(taken.network),
                "-" if taken.latency is None else f"{taken.latency * 1000:.2f} ms",
            )
            for uri, taken in samples.items()
        ]
        output.print_table(("PLATFORM", "CPU", "DISK", "NETWORK", "LATENCY"), rows)


@app.command(
    help_epilogue=closing(
        ["hotspare load windows", "hotspare load windows --time-zone Europe/Berlin -o json"],
        PermissionRefused,
    )
)
def windows(*, platform: Repeatable = (), time_zone: str = "UTC", options: Options = DEFAULTS) -> None:
    """Show the hours of the week in which a host has little to do, as samples say.

    They are written as a policy's windows are; a policy with "low_peak: use" keeps to them by itself.

    Args:
        platform: URI of a platform; may be given again. Without it, HOTSPARE_PLATFORM, else qemu:///system.
        time_zone: Whose clock the hours are of: Europe/Berlin.
        options: See below.
    """
    with Session(options) as session:
        uris = [plain_uri(uri) for uri in platform or (session.settings.platform,)]
        zone = zone_named(time_zone)
        learnt = {uri: _learn(session.catalog(), uri, zone) for uri in uris}
        if session.as_json:
            fields = [low_peak_fields(uri, one) for uri, one in learnt.items()]
            output.print_document(output.document("low-peak", time_zone=time_zone, platforms=fields))
            return
        for uri, one in learnt.items():
            print_low_peak(uri, one)


def latency_ratio(fleet: Fleet, uri: str) -> float | None:
    """Look how many times their usual latency a host's guests have now; None where that is not known."""
    usual = usual_latency(fleet.catalog.load(uri))
    if not usual:
        return None
    now = fleet.host(uri).load(QUICK_SECONDS)
    return now.latency / usual if now is not None and now.latency is not None else None


def _learn(catalog: Catalog, uri: str, zone: ZoneInfo) -> LowPeak:
    return learn_low_peak(catalog.load(uri), zone)


def _take(host: Host, catalog: Catalog, seconds: float) -> LoadSample | None:
    """Look how busy a host is; None where its platform counts nothing."""
    busy = bool(catalog.running_backups(host.uri))
    taken = host.load(seconds)
    busy = busy or bool(catalog.running_backups(host.uri))
    return None if taken is None else replace(taken, backing_up=busy)
