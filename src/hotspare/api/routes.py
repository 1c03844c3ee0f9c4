"""The table of all routes, and of who may call each. ``/api/v1`` stands before every path."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from hotspare.access.roles import Permission
from hotspare.api import do, events, inside, jobs, passkeys, people, policies, report, restores, see, watch
from hotspare.api.guard import Rule

PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True)
class Route:
    """One route."""

    method: str
    path: str
    handler: Callable[..., Response | Coroutine[Any, Any, Response]]
    rule: Rule
    answers: tuple[str, ...]
    """Types of the documents that a good answer can be."""
    statuses: tuple[int, ...] = (200,)
    """Of good answers."""
    media_type: str = "application/json"


_PUBLIC = Rule(public=True)
_ANYBODY = Rule()
_SELF = Rule(by_login=True, secret=True)
_READ = Rule(permission=Permission.READ)
_READ_ALL = Rule(permission=Permission.READ, everywhere=True)
_BROWSE = Rule(permission=Permission.BROWSE, recorded=True)
_RESTORE = Rule(permission=Permission.RESTORE)
_BACK_UP = Rule(permission=Permission.BACK_UP)
_CHECK = Rule(permission=Permission.CHECK)
_FORGET = Rule(permission=Permission.FORGET)
_CONFIGURE = Rule(permission=Permission.CONFIGURE, everywhere=True)
_AUDIT = Rule(permission=Permission.ADMINISTER, everywhere=True)
_ADMIN = Rule(permission=Permission.ADMINISTER, everywhere=True, by_login=True, secret=True)
_CONSENT = Rule(permission=Permission.ADMINISTER, everywhere=True, by_login=True)

ROUTES = (
    Route("GET", "/health", watch.show_health, _PUBLIC, ("health",)),
    Route("GET", "/ready", watch.show_readiness, _PUBLIC, ("readiness",), (200, 503)),
    Route("POST", "/setup", people.set_up, _PUBLIC, ("user",), (201,)),
    Route("POST", "/login", people.log_in, _PUBLIC, ("login",)),
    Route("POST", "/login/passkey/begin", passkeys.begin_passkey_login, _PUBLIC, ("passkey-options",)),
    Route("POST", "/login/passkey", passkeys.log_in_with_passkey, _PUBLIC, ("login",)),
    Route("POST", "/logout", people.log_out, Rule(secret=True), ("token-revoked",)),
    Route("GET", "/me", people.show_me, _ANYBODY, ("me",)),
    Route("POST", "/me/password", people.change_password, _SELF, ("user",)),
    Route("POST", "/me/totp", people.begin_totp, _SELF, ("totp",)),
    Route("POST", "/me/totp/confirm", people.confirm_totp, _SELF, ("user",)),
    Route("POST", "/me/totp/remove", people.remove_totp, _SELF, ("user",)),
    Route("GET", "/me/passkeys", passkeys.list_passkeys, _ANYBODY, ("passkeys",)),
    Route("POST", "/me/passkeys/begin", passkeys.begin_passkey, _SELF, ("passkey-options",)),
    Route("POST", "/me/passkeys", passkeys.add_passkey, _SELF, ("passkey",), (201,)),
    Route("POST", "/me/passkeys/{passkey}/remove", passkeys.remove_passkey, _SELF, ("passkey-removed",)),
    Route("GET", "/tokens", people.list_tokens, _ANYBODY, ("tokens",)),
    Route("POST", "/tokens", people.add_token, _SELF, ("token",), (201,)),
    Route("DELETE", "/tokens/{token}", people.revoke_token, _SELF, ("token-revoked",)),
    Route("GET", "/machines", see.list_machines, _READ, ("machines",)),
    Route("GET", "/machines/{name}", see.show_machine, _READ, ("machine",)),
    Route("GET", "/points", see.list_points, _READ, ("points",)),
    Route("GET", "/points/{point}", see.show_point, _READ, ("point",)),
    Route(
        "DELETE",
        "/points/{point}",
        do.forget_point,
        _FORGET,
        ("points-forgotten", "approval"),
        (200, 202),
    ),
    Route("GET", "/points/{point}/files", inside.list_files, _BROWSE, ("volumes", "files")),
    Route("POST", "/points/{point}/restore-plan", inside.plan_restore, _RESTORE, ("restore-plan",)),
    Route("POST", "/points/{point}/restore", restores.begin_restore, _RESTORE, ("action",), (202,)),
    Route("GET", "/runs", see.list_runs, _READ, ("runs",)),
    Route("GET", "/runs/{run}", see.show_run, _READ, ("run",)),
    Route("GET", "/report", report.show_report, _READ, ("report",)),
    Route("GET", "/jobs", jobs.list_jobs, _READ, ("jobs",)),
    Route("POST", "/jobs", jobs.ask_for_job, _BACK_UP, ("job",), (202,)),
    Route("GET", "/jobs/{job}", jobs.show_job, _READ, ("job",)),
    Route("POST", "/jobs/{job}/cancel", jobs.cancel_job, _BACK_UP, ("job",), (202,)),
    Route("POST", "/jobs/{job}/retry", jobs.retry_job, _BACK_UP, ("job",), (202,)),
    Route("PUT", "/jobs/{job}/priority", jobs.change_priority, _BACK_UP, ("job",)),
    Route("GET", "/events", events.watch_events, _READ, (), media_type="text/event-stream"),
    Route("GET", "/policies", policies.list_policies, _READ_ALL, ("policies",)),
    Route("GET", "/policies/{policy}", policies.show_policy, _READ_ALL, ("policy",)),
    Route("PUT", "/policies/{policy}", policies.put_policy, _CONFIGURE, ("policy", "approval"), (200, 202)),
    Route("DELETE", "/policies/{policy}", policies.remove_policy, _CONFIGURE, ("policy-removed",)),
    Route("GET", "/repositories", see.list_repositories, _READ, ("repositories",)),
    Route("GET", "/repositories/{repository}", see.show_repository, _READ, ("repository",)),
    Route("POST", "/repositories/{repository}/check", do.begin_check, _CHECK, ("action",), (202,)),
    Route("POST", "/repositories/{repository}/prune", do.begin_prune, _FORGET, ("action",), (202,)),
    Route("POST", "/backups", do.begin_backup, _BACK_UP, ("action",), (202,)),
    Route("GET", "/actions", see.list_actions, _READ, ("actions",)),
    Route("GET", "/actions/{action}", see.show_action, _READ, ("action",)),
    Route("POST", "/actions/{action}/cancel", do.cancel_action, _READ, ("action",), (202,)),
    Route("GET", "/audit", watch.list_audit, _AUDIT, ("audit",)),
    Route("GET", "/audit/verify", watch.verify_audit, _AUDIT, ("audit-verified",)),
    Route("GET", "/users", people.list_users, _AUDIT, ("users",)),
    Route("POST", "/users", people.add_user, _ADMIN, ("user",), (201,)),
    Route("PATCH", "/users/{user}", people.change_user, _ADMIN, ("user",)),
    Route("DELETE", "/users/{user}", people.remove_user, _ADMIN, ("user-removed",)),
    Route("GET", "/approvals", do.list_approvals, _AUDIT, ("approvals",)),
    Route("POST", "/approvals/{approval}/approve", do.approve, _CONSENT, ("approval",)),
    Route("POST", "/approvals/{approval}/reject", do.reject, _CONSENT, ("approval",)),
    Route("GET", "/settings", do.show_settings, _AUDIT, ("settings",)),
    Route(
        "PUT",
        "/settings/second-person",
        do.switch_second_person,
        _CONSENT,
        ("settings", "approval"),
        (200, 202),
    ),
)
METRICS = Route("GET", "/metrics", watch.show_metrics, _READ_ALL, (), media_type="text/plain")
"""Where Prometheus looks for it: without the prefix, and not in JSON."""
