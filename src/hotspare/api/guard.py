"""What stands before every route: who asks, whether that is permitted, and the record of it."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from hotspare.access.access import Access
from hotspare.access.roles import EVERYTHING, Permission
from hotspare.access.tokens import Caller
from hotspare.api.actions import Actions
from hotspare.api.estate import Estate
from hotspare.api.repeats import Repeats
from hotspare.api.watching import Watching
from hotspare.errors import HotspareError, LoginRefused, NotPermitted

_CHANGING = {"POST", "PUT", "PATCH", "DELETE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may call a route, and what is noted of it."""

    permission: Permission | None = None
    """None for everybody who is logged in."""
    public: bool = False
    """Nobody has to be logged in."""
    everywhere: bool = False
    """The permission must not be restricted to a scope; else the route itself shows what is in scope only."""
    by_login: bool = False
    """A token does not do: who has got hold of one must not be able to make others."""
    secret: bool = False
    """The answer holds a secret, so it is not kept for a request that comes twice."""
    recorded: bool = False
    """Noted though it changes nothing."""


@dataclass(frozen=True, slots=True)
class Server:
    """What routes work with."""

    estate: Estate
    access: Access
    actions: Actions
    repeats: Repeats
    watching: Watching


def _server_of(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


def address_of(request: Request) -> str:
    """Give the address that a request comes from."""
    return request.client.host if request.client else ""


def origin_of(request: Request, server: Server) -> str:
    """Give where a browser reaches this server: ``https://backup-host:8460``; as it says, unless it is set.

    Behind a proxy it has to be set, as the proxy may speak TLS where we do not, or have another name.
    """
    asked = f"{request.url.scheme}://{request.headers.get('Host', '')}".lower()
    return server.estate.settings.public_url or asked


ServerHere = Annotated[Server, Depends(_server_of)]
CallerHere = Annotated[Caller, Depends(_caller_of)]


Handle = Callable[[Request], Coroutine[Any, Any, Response]]
Identify = Callable[[Server, Request], Caller]


def by_bearer(server: Server, request: Request) -> Caller:
    """Tell who asks by the header ``Authorization``. Raises ``LoginRefused``."""
    kind, _, shown = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not shown:
        raise LoginRefused(
            "This needs a login or an API token",
            meaning="Nothing was done",
            hint="Send the header 'Authorization: Bearer TOKEN'; POST /api/v1/login gives one",
        )
    return server.access.tokens.caller(shown.strip())


def guarded_by(rule: Rule, identify: Identify = by_bearer, base: type[APIRoute] = APIRoute) -> type[APIRoute]:
    """Make the class of the routes that a rule holds for.

    Args:
        rule: who may.
        identify: tells who asks, in a thread. Raises ``LoginRefused``.
        base: of the class: what it does comes behind the guard, and what it raises is recorded.
    """

    class GuardedRoute(base):  # type: ignore[valid-type, misc]
        def get_route_handler(self) -> Handle:
            handle = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                return await _guarded(request, rule, self.path, handle, identify)

            return guarded

    GuardedRoute.rule = rule
    return GuardedRoute


async def _guarded(request: Request, rule: Rule, path: str, handle: Handle, identify: Identify) -> Response:
    server = _server_of(request)
    if rule.public:
        return await handle(request)
    caller = await run_in_threadpool(identify, server, request)
    request.state.caller = caller
    noted = request.method in _CHANGING or rule.recorded

    async def note(outcome: str) -> None:
        action = f"{request.method.lower()} {path}"
        target = ", ".join(str(value) for value in request.path_params.values())
        target += f"?{request.url.query}" if request.url.query else ""
        await run_in_threadpool(
            server.access.audit.add,
            caller.name,
            action,
            target[:1000],
            outcome=outcome,
            address=address_of(request),
            detail=getattr(request.state, "detail", {}),
        )

    try:
        _authorize(rule, caller)
        if rule.secret:
            answer = await handle(request)
        else:
            answer = await server.repeats.answered(request, caller.name, handle)
    except HotspareError as error:
        if noted or isinstance(error, NotPermitted):
            await note(error.code)
        raise
    except Exception:
        if noted:
            await note(HotspareError.code)
        raise
    if noted:
        await note("ok" if answer.status_code < 400 else f"http-{answer.status_code}")
    return answer


def _authorize(rule: Rule, caller: Caller) -> None:
    permission = rule.permission
    if rule.by_login and caller.token.kind != "login":
        raise NotPermitted(
            "An API token is not enough for this",
            meaning="Nothing was done",
            hint="Log in with name and password",
        )
    if permission is None:
        return
    allowed = caller.may(permission, EVERYTHING) if rule.everywhere else caller.may_somewhere(permission)
    if not allowed:
        where = " everywhere" if rule.everywhere else ""
        raise NotPermitted(
            f"{caller.name} has no role that may {permission}{where}",
            meaning="Nothing was done",
            hint="Ask an admin for one",
        )
