"""The table of all pages, and of who may see each and do what it does."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response

from hotspare.access.roles import Permission
from hotspare.api.guard import Rule
from hotspare.console import (
    activity,
    entrance,
    inventory,
    machine,
    overview,
    points,
    policies,
    record,
    reports,
    repositories,
    restores,
    settings,
    sign_on,
    users,
)


@dataclass(frozen=True, slots=True)
class Page:
    """One page, or what one of its forms does."""

    method: str
    path: str
    handler: Callable[..., Response]
    rule: Rule


_PUBLIC = Rule(public=True)
_ANYBODY = Rule()
_READ = Rule(permission=Permission.READ)
_READ_ALL = Rule(permission=Permission.READ, everywhere=True)
_BROWSE = Rule(permission=Permission.BROWSE)
_LOOK_INSIDE = Rule(permission=Permission.BROWSE, recorded=True)
_RESTORE = Rule(permission=Permission.RESTORE)
_TAKE_OUT = Rule(permission=Permission.RESTORE, recorded=True)
_BACK_UP = Rule(permission=Permission.BACK_UP)
_BACK_UP_BY_POLICY = Rule(permission=Permission.BACK_UP, everywhere=True)
_CHECK = Rule(permission=Permission.CHECK)
_FORGET = Rule(permission=Permission.FORGET)
_CONFIGURE = Rule(permission=Permission.CONFIGURE, everywhere=True)
_ADMIN = Rule(permission=Permission.ADMINISTER, everywhere=True)

PAGES = (
    Page("GET", "/first-run", entrance.show_first_run, _PUBLIC),
    Page("POST", "/first-run", entrance.first_run, _PUBLIC),
    Page("GET", "/login", entrance.show_login, _PUBLIC),
    Page("POST", "/login", entrance.log_in, _PUBLIC),
    Page("GET", "/login/passkey", entrance.begin_passkey, _PUBLIC),
    Page("POST", "/login/passkey", entrance.log_in_with_passkey, _PUBLIC),
    Page("GET", "/login/sign-on", sign_on.begin, _PUBLIC),
    Page("GET", "/login/sign-on/back", sign_on.come_back, _PUBLIC),
    Page("GET", "/login/sign-on/end", sign_on.end, _PUBLIC),
    Page("POST", "/logout", entrance.log_out, _ANYBODY),
    Page("POST", "/theme", entrance.choose_theme, _PUBLIC),
    Page("GET", "/", overview.show_overview, _READ),
    Page("GET", "/going-on", overview.show_going_on, _READ),
    Page("GET", "/matrix", overview.show_matrix, _READ),
    Page("GET", "/live", activity.watch, _READ),
    Page("GET", "/machines", inventory.show_machines, _READ),
    Page("GET", "/machine", machine.show_machine, _READ),
    Page("POST", "/machine/back-up", machine.back_up, _BACK_UP),
    Page("GET", "/activity", activity.show_activity, _READ),
    Page("GET", "/activity/runs/{run}", activity.show_run, _READ),
    Page("GET", "/activity/jobs/{job}", activity.show_job, _READ),
    Page("POST", "/activity/jobs/{job}/cancel", activity.cancel_job, _BACK_UP),
    Page("POST", "/activity/jobs/{job}/retry", activity.retry_job, _BACK_UP),
    Page("GET", "/activity/actions/{action}", activity.show_action, _READ),
    Page("POST", "/activity/actions/{action}/cancel", activity.cancel_action, _READ),
    Page("GET", "/policies", policies.show_policies, _READ_ALL),
    Page("GET", "/policies/new", policies.show_new, _CONFIGURE),
    Page("POST", "/policies/keep", policies.keep, _CONFIGURE),
    Page("GET", "/policies/{policy}", policies.show_policy, _READ_ALL),
    Page("GET", "/policies/{policy}/preview", policies.show_preview, _READ_ALL),
    Page("GET", "/policies/{policy}/edit", policies.show_edit, _CONFIGURE),
    Page("GET", "/policies/{policy}/yaml", policies.show_yaml, _CONFIGURE),
    Page("POST", "/policies/{policy}/yaml", policies.keep_yaml, _CONFIGURE),
    Page("POST", "/policies/{policy}/switch", policies.switch, _CONFIGURE),
    Page("POST", "/policies/{policy}/remove", policies.remove, _CONFIGURE),
    Page("POST", "/policies/{policy}/run", policies.run, _BACK_UP_BY_POLICY),
    Page("GET", "/restore", restores.choose_machine, _BROWSE),
    Page("GET", "/points/{point}", points.show_point, _READ),
    Page("POST", "/points/{point}/forget", points.forget_point, _FORGET),
    Page("GET", "/points/{point}/restore", restores.ask_where, _RESTORE),
    Page("POST", "/points/{point}/restore", restores.restore, _RESTORE),
    Page("GET", "/points/{point}/files", points.browse, _LOOK_INSIDE),
    Page("GET", "/points/{point}/download", points.download_file, _LOOK_INSIDE),
    Page("GET", "/points/{point}/disks/{disk}", points.download_disk, _TAKE_OUT),
    Page("GET", "/repositories", repositories.show_repositories, _READ),
    Page("GET", "/repositories/{repository}", repositories.show_repository, _READ),
    Page("GET", "/repositories/{repository}/contents", repositories.show_contents, _READ),
    Page("POST", "/repositories/{repository}/check", repositories.check, _CHECK),
    Page("POST", "/repositories/{repository}/prune", repositories.prune, _FORGET),
    Page("GET", "/reports", reports.show_report, _READ),
    Page("GET", "/reports/csv", reports.download_report, _READ),
    Page("GET", "/audit", record.show_record, _ADMIN),
    Page("POST", "/audit/verify", record.verify_record, _ADMIN),
    Page("GET", "/settings", settings.show_account, _ANYBODY),
    Page("POST", "/settings/password", settings.change_password, _ANYBODY),
    Page("POST", "/settings/totp", settings.begin_totp, _ANYBODY),
    Page("POST", "/settings/totp/confirm", settings.confirm_totp, _ANYBODY),
    Page("POST", "/settings/totp/remove", settings.remove_totp, _ANYBODY),
    Page("POST", "/settings/passkeys/begin", settings.begin_passkey, _ANYBODY),
    Page("POST", "/settings/passkeys", settings.add_passkey, _ANYBODY),
    Page("POST", "/settings/passkeys/{passkey}/remove", settings.remove_passkey, _ANYBODY),
    Page("GET", "/settings/tokens", settings.show_tokens, _ANYBODY),
    Page("POST", "/settings/tokens", settings.add_token, _ANYBODY),
    Page("POST", "/settings/tokens/{token}/revoke", settings.revoke_token, _ANYBODY),
    Page("GET", "/settings/users", users.show_users, _ADMIN),
    Page("POST", "/settings/users", users.add_user, _ADMIN),
    Page("POST", "/settings/users/{user}", users.change_user, _ADMIN),
    Page("POST", "/settings/users/{user}/remove", users.remove_user, _ADMIN),
    Page("GET", "/settings/approvals", users.show_approvals, _ADMIN),
    Page("POST", "/settings/approvals/switch", users.switch_second_person, _ADMIN),
    Page("POST", "/settings/approvals/{approval}/approve", users.approve, _ADMIN),
    Page("POST", "/settings/approvals/{approval}/reject", users.reject, _ADMIN),
)
