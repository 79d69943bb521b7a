"""Pages on which people give Berth, and nobody else, their user name and password."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from urllib.parse import parse_qsl

from fastapi import Request, Response

from scheduler.model.errors import Forbidden, LoginRefused, SpecInvalid, TooManyLogins

MOST_FORM_BYTES = 16 * 1024
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>body{{font-family:sans-serif;max-width:22rem;margin:4rem auto;overflow-wrap:anywhere}}
input{{width:100%;margin:.3rem 0 1rem}}</style>
<h1>{title}</h1>"""
_LOGIN = """<p>{text}</p><p role="alert">{wrong}</p>
<form method="post">{hidden}
<label>User name<input name="username" autocomplete="username" required autofocus></label>
<label>Password<input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button>{refuse}</form></html>
"""
_REFUSE = ' <button name="refuse" value="yes" formnovalidate>Refuse</button>'
_MESSAGE = "<p>{text}</p></html>\n"


class LoginPage:
    """The page that asks for a login: its title, a text, and fields that come back with the form as they are.

    may_refuse: whether there is a button that gives no login, for which the form says ``refuse``.
    """

    def __init__(self, title: str, fields: Mapping[str, str], text: str = "", *, may_refuse: bool = False) -> None:
        self._title, self._fields, self._text, self._may_refuse = title, fields, text, may_refuse

    def shown(self, wrong: str = "", status: int = 200) -> Response:
        """The page; wrong: what the last try did not pass for."""
        hidden = "".join(
            f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
            for name, value in self._fields.items()
        )
        refuse = _REFUSE if self._may_refuse else ""
        filled = {"text": escape(self._text), "wrong": escape(wrong), "hidden": hidden, "refuse": refuse}
        return _html(_HEAD.format(title=escape(self._title)) + _LOGIN.format(**filled), status)

    def again(self, refused: LoginRefused | TooManyLogins | Forbidden) -> Response:
        """The page after a login that was refused."""
        if isinstance(refused, TooManyLogins):
            page = self.shown(str(refused), 429)
            page.headers["Retry-After"] = str(refused.retry_after_s)
            return page
        return self.shown(str(refused), 400 if isinstance(refused, LoginRefused) else 403)


def message(title: str, text: str, status: int) -> Response:
    """A page from which nothing leads on."""
    return _html(_HEAD.format(title=escape(title)) + _MESSAGE.format(text=escape(text)), status)


def sent(location: str) -> Response:
    """Send the browser on with a GET."""
    return Response(status_code=303, headers={**HEADERS, "Location": location})


async def form(request: Request) -> dict[str, str]:
    """The fields of a page that was sent back; SpecInvalid for anything else."""
    body = await request.body()
    try:
        if len(body) > MOST_FORM_BYTES:
            raise ValueError("too long")
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError as unreadable:
        raise SpecInvalid.of("body", f"is not a form ({unreadable})", "send the page's form") from None


def _html(text: str, status: int) -> Response:
    return Response(text, status, HEADERS, "text/html; charset=utf-8")
