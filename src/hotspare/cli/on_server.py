"""``--server``: a command's question, put to a server instead of this host."""

import os
import secrets
import time
from collections.abc import Callable, Sequence
from inspect import BoundArguments
from pathlib import Path
from typing import Any

from hotspare.api.client import Client, Document
from hotspare.cli import backup, job, machine, output, point, policy, report, restore, run
from hotspare.cli.app import app
from hotspare.cli.backup_options import Selection
from hotspare.cli.options import Options
from hotspare.cli.placement import AS_USUAL
from hotspare.cli.quantities import parse_moment
from hotspare.documents.form import error_of
from hotspare.errors import ConfigError, PermissionRefused, PointNotFound, UsageError
from hotspare.policy.yaml_text import dump
from hotspare.settings import passphrase_in
from hotspare.units import format_bytes

_ASKED_SECONDS = 0.5
_Table = tuple[Sequence[str], Callable[[dict[str, Any]], Sequence[object]]]


def run_on_server(options: Options, words: Sequence[str]) -> int:
    """Do what a command line asks on the server that it names; gives the exit status.

    Raises:
        UsageError: this command works on this host only.
        LoginRefused, NotPermitted, ServerUnavailable: as they say.
        HotspareError: what the server answers.
    """
    command, bound, *_ = app.parse_args(list(words), exit_on_error=False, print_error=False)
    asked = _ASKED.get(command)
    if asked is None:
        raise UsageError(
            "This command cannot be put to a server yet",
            meaning="Nothing was done",
            hint="Log in to the server's host and run it there; "
            "with --server there are machine, point, run and policy list and show, report, backup, job, and"
            " restore --to",
        )
    client = Client(str(options.server), _token(), _certificate())
    document = asked(client, bound)
    if options.output == "json":
        output.print_document(document)
    elif asked is _report:
        report.print_fields(document, bound.arguments.get("by"), as_csv=bool(bound.arguments.get("csv")))
    else:
        _print(document)
    for problem in document.get("problems", ()):
        if "platform" in problem:
            output.warn(f"{problem['platform']}: {problem['what']}")
    _refuse_failed(document)
    return 0


def _token() -> str:
    source = passphrase_in(os.environ, "HOTSPARE_TOKEN")
    if source is None or source.kind == "command":
        raise ConfigError(
            "No token for the server is set",
            meaning="Nothing was done",
            hint="Put it into HOTSPARE_TOKEN, or its file's name into HOTSPARE_TOKEN_FILE",
        )
    if source.kind == "value":
        return source.value
    try:
        return Path(source.value).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise PermissionRefused(
            f"The file {source.value} with the server's token cannot be read: {error.strerror}",
            meaning="Nothing was done",
            hint="Mend HOTSPARE_TOKEN_FILE",
        ) from error


def _certificate() -> Path | None:
    named = os.environ.get("HOTSPARE_SERVER_CERTIFICATE")
    return Path(named) if named else None


def _machines(client: Client, bound: BoundArguments) -> Document:
    document = client.all("machines")
    wanted = bound.arguments.get("platform")
    document["machines"] = [one for one in document["machines"] if wanted in {None, one["platform"]}]
    return document


def _report(client: Client, bound: BoundArguments) -> Document:
    given = bound.arguments
    ends = {"from": given.get("since"), "to": given.get("until")}
    moments = {name: parse_moment(text).isoformat() for name, text in ends.items() if text}
    return client.get("report", period=given.get("period"), **moments)


def _back_up(client: Client, bound: BoundArguments) -> Document:
    plain = {"machines", "options"}
    selection = bound.arguments.get("selection")
    given = {name for name, value in bound.arguments.items() if value and name not in plain}
    platform = selection.platform if selection else None
    if given - {"selection"} or (selection and selection != Selection(platform=platform)):
        raise UsageError(
            "Only names of machines and --platform can be put to a server",
            meaning="Nothing was backed up",
            hint="How machines are backed up there is for policies to say",
        )
    names = bound.args
    if not names:
        raise UsageError("No machine is named", meaning="Nothing was backed up")
    body = {"machines": list(dict.fromkeys(names)), "platform": platform}
    # Asked again with the same key after a lost answer, the server begins nothing twice.
    action = client.post("backups", body=body, key=secrets.token_hex(16))["action"]
    return _result_of(client, action, "backs up")


def _restore(client: Client, bound: BoundArguments) -> Document:
    """Have a machine made, on the server's host or another that it reaches."""
    given = {name: value for name, value in bound.arguments.items() if value}
    where = given.get("where", AS_USUAL)
    placement = where.placement()
    plain = {"point", "to", "platform", "start", "dry_run", "where", "options"}
    if (
        given.keys() - plain
        or "to" not in given
        or where.folder
        or placement.places
        or placement.machine_types
    ):
        raise UsageError(
            "A restore that is put to a server makes a new machine: --to, with --platform, --pool,"
            " --map-network, --map-bridge, --keep-uuid, --keep-macs, --start and --dry-run",
            meaning="Nothing was restored",
            hint="Log in to the server's host for all else",
        )
    body = {
        "name": given["to"],
        "platform": given.get("platform"),
        "pool": placement.pool,
        "networks": placement.networks,
        "bridges": placement.bridges,
        "keep_id": placement.keep_id,
        "keep_macs": placement.keep_macs,
    }
    point = _point_of(client, bound.args[0])
    if given.get("dry_run"):
        return client.post("points", point, "restore-plan", body=body)
    body["start"] = bool(given.get("start"))
    action = client.post("points", point, "restore", body=body, key=secrets.token_hex(16))["action"]
    return _result_of(client, action, "restores")


def _point_of(client: Client, reference: str) -> str:
    """Give the id of a restore point: of that id, or the newest of the machine with that name."""
    try:
        found = [client.get("points", reference)["point"]]
    except PointNotFound:
        found = client.all("points", machine=reference)["points"]
        if not found:
            raise
    return str(found[-1]["id"])


def _result_of(client: Client, action: Document, does: str) -> Document:
    """Wait for an action, and give the document of its command; with the error that it ended with."""
    output.note(f"The server {does} as its action {action['id']}; it goes on if this is interrupted.")
    while action["state"] in {"waiting", "running"}:
        time.sleep(_ASKED_SECONDS)
        action = client.get("actions", action["id"])["action"]
    result: Document = action["result"] or {"type": "action", "v": 1, "action": action}
    return {**result, "_error": action["error"]} if action["error"] else result


def _jobs(client: Client, bound: BoundArguments) -> Document:
    """Get all that wait, and as many of the others as are wanted."""
    limit = bound.arguments.get("limit", 20)
    document = client.get("jobs", limit=1000)
    jobs = document["jobs"]
    while document["next"] and sum(one["state"] != "waiting" for one in jobs) < limit:
        document = client.get("jobs", limit=1000, after=document["next"])
        jobs += document["jobs"]
    waiting = [one for one in jobs if one["state"] == "waiting"]
    begun = [one for one in jobs if one["state"] != "waiting"]
    return {"type": "jobs", "v": 1, "jobs": waiting + begun[:limit], "movers": document["movers"]}


def _ask_for_job(client: Client, bound: BoundArguments) -> Document:
    policy_name, machine_name = bound.args
    wanted = {name: bound.arguments.get(name) for name in ("platform", "priority")}
    body = {"policy": policy_name, "machine": machine_name, **wanted}
    return client.post("jobs", body=body, key=secrets.token_hex(16))


def _retry_job(client: Client, bound: BoundArguments) -> Document:
    body = {"priority": bound.arguments.get("priority")}
    return client.post("jobs", bound.args[0], "retry", body=body, key=secrets.token_hex(16))


def _refuse_failed(document: Document) -> None:
    error = document.get("_error")
    if error:
        raise error_of(error)


_ASKED: dict[Any, Callable[[Client, BoundArguments], Document]] = {
    machine.list_machines: _machines,
    machine.show: lambda client, bound: client.get(
        "machines", bound.args[0], platform=bound.arguments.get("platform")
    ),
    point.list_points: lambda client, bound: client.all("points", machine=bound.arguments.get("machine")),
    point.show: lambda client, bound: client.get("points", bound.args[0]),
    run.list_runs: lambda client, bound: client.get(
        "runs", limit=bound.arguments.get("limit", 20), policy=bound.arguments.get("policy")
    ),
    run.show: lambda client, bound: client.get("runs", str(bound.args[0])),
    report.report: _report,
    policy.list_policies: lambda client, _bound: client.get("policies"),
    policy.show: lambda client, bound: client.get("policies", bound.args[0]),
    backup.backup: _back_up,
    restore.restore: _restore,
    job.list_jobs: _jobs,
    job.show: lambda client, bound: client.get("jobs", bound.args[0]),
    job.add: _ask_for_job,
    job.cancel: lambda client, bound: client.post("jobs", bound.args[0], "cancel"),
    job.retry: _retry_job,
    job.priority: lambda client, bound: client.put(
        "jobs", bound.args[0], "priority", body={"priority": bound.args[1]}
    ),
}

_TABLES: dict[str, _Table] = {
    "machines": (
        ("NAME", "POWER", "SIZE", "STATE", "LAST RESTORE POINT", "TAGS", "PLATFORM"),
        lambda one: (
            one["name"],
            one["power"],
            None if one["size"] is None else format_bytes(one["size"]),
            one["state"],
            one["last_point"],
            ", ".join(one["tags"] or ()),
            one["platform"],
        ),
    ),
    "points": (
        ("POINT", "MACHINE", "FINISHED", "CONSISTENCY", "SIZE", "STORED"),
        lambda one: (
            one["id"],
            one["machine"],
            one["finished_at"],
            one["consistency"],
            format_bytes(one["size"]),
            format_bytes(one["bytes_stored"]),
        ),
    ),
    "runs": (
        ("RUN", "KIND", "MACHINE", "POLICY", "STARTED", "OUTCOME", "READ", "STORED", "DETAIL"),
        lambda one: (
            one["id"],
            one["kind"],
            one["machine"],
            one["policy"],
            one["started_at"],
            one["outcome"],
            format_bytes(one["bytes_read"]),
            format_bytes(one["bytes_stored"]),
            one["error"] or one["point"],
        ),
    ),
    "jobs": (
        ("JOB", "MACHINE", "POLICY", "STATE", "SINCE", "DETAIL"),
        lambda one: (
            one["id"],
            one["machine"],
            one["policy"],
            one["state"],
            one["asked_at"],
            one["error"] or one["point"] or one["because"],
        ),
    ),
    "policies": (
        ("POLICY", "ENABLED", "WHEN", "RPO"),
        lambda one: (
            one["name"],
            "yes" if one.get("enabled", True) else "no",
            "; ".join(one.get("schedule", {}).get("when", ())) or "by hand",
            one.get("schedule", {}).get("rpo"),
        ),
    ),
    "results": (
        ("MACHINE", "OUTCOME", "DETAIL"),
        lambda one: (
            one["machine"],
            one["outcome"],
            one["point"]["id"] if one.get("point") else (one.get("error") or {}).get("what"),
        ),
    ),
}


def _print(document: Document) -> None:
    for noun, (header, cells) in _TABLES.items():
        if isinstance(document.get(noun), list):
            rows = [[_shown(cell) for cell in cells(one)] for one in document[noun]]
            output.print_table(header, rows, right=("SIZE", "READ", "STORED", "RUN"))
            return
    plain = {name: value for name, value in document.items() if name not in {"type", "v", "_error"}}
    output.print_text(dump(plain).rstrip())


def _shown(cell: object) -> str:
    return "-" if cell is None or cell == "" else str(cell)
