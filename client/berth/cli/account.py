"""Commands about who you are to which server: login, logout, whoami."""

from __future__ import annotations

import sys
from typing import Annotated
from urllib.parse import urlsplit

import typer

from berth.cli.connect import connect
from berth.cli.inputs import password as read_password
from berth.cli.render import Format, Output, print_one, say
from berth.errors import ApiError, NotLoggedIn, UsageError

app = typer.Typer(rich_markup_mode=None)


@app.command()
def login(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="The server; left out, the one used last or this machine.")
    ] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="User name; asked for at a terminal.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Log in to a server and remember it.

    The password comes from --password-stdin, from BERTH_PASSWORD, or is asked for at a terminal. Tokens are kept in
    the configuration file, which only you can read, and renew themselves.

    \b
    Examples:
      berth login https://berth.example.org --user alice
      pass berth | berth login https://berth.example.org --user alice --password-stdin
    """
    import os

    from berth.client import Client
    from berth.config import DEFAULT_URL, ConfigFile, Login, clean_url

    file = ConfigFile()
    server = clean_url(url or os.environ.get("BERTH_URL") or file.read().current or DEFAULT_URL)
    if user is None:
        if not sys.stdin.isatty() or password_stdin:
            raise UsageError("no user is named", "berth login URL --user NAME")
        user = input("User: ").strip()
    _warn_of_plain_http(server)
    password = read_password(from_stdin=password_stdin, prompt=f"Password of {user} on {server}")
    with Client(server) as client:
        try:
            tokens = client.login(user, password)
        except ApiError as error:
            if error.status not in (400, 401, 403):
                raise
            raise NotLoggedIn(f"{server} refused the login of {user}: {error.message}") from None
    file.remember(Login(server, user, tokens))
    say(f"berth: logged in to {server} as {user}")


@app.command()
def logout(
    url: Annotated[str | None, typer.Argument(metavar="URL", help="The server; left out, the one in use.")] = None,
) -> None:
    """Forget the login to a server.

    \b
    Examples:
      berth logout
      berth logout https://berth.example.org
    """
    from berth.client import server_url
    from berth.config import ConfigFile

    file = ConfigFile()
    server = server_url(url, file)
    gone = file.forget(server)
    say(f"berth: {'forgot the login to' if gone else 'there was no login to'} {server}")


@app.command()
def whoami(output: Output = Format.TABLE) -> None:
    """Show which server and user commands use.

    \b
    Examples:
      berth whoami
      berth whoami -o id
    """
    from datetime import UTC, datetime

    with connect() as client:
        name = client.username
        profile = client.users.get(name)
        ends_at_s = client.token_expires_at_s
        ends = datetime.fromtimestamp(ends_at_s, UTC).isoformat() if ends_at_s else None
        item = {"server": client.url, "username": name, "email": profile.get("email"), "tokenExpires": ends}
        rows = (("server", client.url), ("user", name), ("email", item["email"]), ("token until", ends))
        print_one("Login", item, rows, name, output)


def _warn_of_plain_http(server: str) -> None:
    parts = urlsplit(server)
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        say(f"berth: warning: {server} is plain http: others on the way can read the password; use https")
