"""Pages from templates: what every template is given, and how times, sizes and states are written."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import RedirectResponse, Response

from hotspare import __version__
from hotspare.access.tokens import Caller
from hotspare.api.guard import Server
from hotspare.console.browser import FORGERY, FORGERY_HEADER, proof_for, remember_visitor
from hotspare.console.navigation import places_for
from hotspare.console.said import SAID
from hotspare.console.states import state_of
from hotspare.units import format_bytes, format_duration, format_rate

_STATIC = Path(__file__).parent / "static"
THEME = "hotspare-theme"
THEMES = ("system", "light", "dark")


def page(request: Request, template: str, *, status: int = 200, title: str, **given: object) -> Response:
    """Make a page, or a part of one.

    Args:
        request: what it answers.
        template: file in ``templates/``.
        status: of the answer.
        title: of the page, for the window and its heading.
        given: what else the template uses.
    """
    caller: Caller | None = getattr(request.state, "caller", None)
    theme = request.cookies.get(THEME, "system")
    text = (
        _templates()
        .get_template(template)
        .render(
            title=title,
            path=request.url.path,
            address=str(request.url.path) + (f"?{request.url.query}" if request.url.query else ""),
            caller=caller,
            places=places_for(caller) if caller else (),
            waiting=_waiting(request, caller),
            proof=proof_for(request),
            theme=theme if theme in THEMES else "system",
            said=SAID.get(request.query_params.get("said", "")),
            **given,
        )
    )
    answer = Response(text, status, media_type="text/html")
    remember_visitor(request, answer)
    return answer


def see_other(path: str, said: str | None = None, **query: str | None) -> Response:
    """Send the browser to another page, which may begin with a sentence of ``SAID``."""
    given = {name: value for name, value in {**query, "said": said}.items() if value}
    return RedirectResponse(f"{path}?{urlencode(given)}" if given else path, 303)


def _waiting(request: Request, caller: Caller | None) -> int:
    """Count what waits for this caller's consent."""
    if caller is None or not caller.user.is_admin:
        return 0
    server: Server = request.app.state.server
    if not server.access.approvals.needed:
        return 0
    return sum(one.state == "waiting" for one in server.access.approvals.all())


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("hotspare.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "bytes": lambda count: "" if count is None else format_bytes(count),
        "rate": format_rate,
        "duration": format_duration,
        "moment": moment,
        "day": lambda value: f"{moment(value):%Y-%m-%d}",
        "clock": _clock,
        "stamp": lambda value: f"{moment(value):%Y-%m-%dT%H:%M:%SZ}",
        "count": _count,
        "noun": _noun,
        "counted": lambda number, one, many=None: f"{_count(number)} {_noun(number, one, many)}",
        "query": _query,
    }
    made.globals |= {
        "asset": _asset,
        "state_of": state_of,
        "forgery": FORGERY,
        "forgery_header": FORGERY_HEADER,
        "themes": THEMES,
        "version": __version__,
        "now": lambda: datetime.now(UTC),
    }
    return made


def moment(value: datetime | str | float) -> datetime:
    """Give a time, whichever way a document writes it, in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, str):
        return datetime.fromisoformat(value).astimezone(UTC)
    return datetime.fromtimestamp(value, UTC)


def _clock(value: datetime | str | float) -> str:
    return f"{moment(value):%Y-%m-%d %H:%M} UTC"


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _noun(number: int, one: str, many: str | None = None) -> str:
    """Give the form of a noun that fits a number."""
    return one if number == 1 else many or f"{one}s"


def _query(given: Mapping[str, Any]) -> str:
    return urlencode({name: value for name, value in given.items() if value not in (None, "")})


@cache
def _asset(name: str) -> str:
    version = hashlib.sha256((_STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={version}"
