"""Commands about logins for registries: images login, images logout, images logins."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from berth.cli.connect import connect
from berth.cli.inputs import password as read_password
from berth.cli.render import Column, Format, Output, print_list, say
from berth.errors import UsageError

VARIABLE = "BERTH_REGISTRY_PASSWORD"

RegistryArgument = Annotated[
    str, typer.Argument(metavar="REGISTRY", help="As in an image's name: ghcr.io; docker.io for Docker Hub.")
]


def login(
    registry: RegistryArgument,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Your name there; asked for at a terminal.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password or access token from standard input.")
    ] = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="Store it without asking the registry.")] = False,
) -> None:
    """Store your login for a registry, so that your jobs can use its private images.

    The server asks the registry first whether it takes the login. An access token that may only read serves best.
    The password comes from --password-stdin, from BERTH_REGISTRY_PASSWORD, or is asked for at a terminal.

    \b
    Examples:
      berth images login ghcr.io -u ada --password-stdin < token
      berth images login registry.example.org:5000 -u ada
    """
    host = _host(registry)
    if user is None:
        if not sys.stdin.isatty() or password_stdin:
            raise UsageError("no user is named", f"berth images login {host} --user NAME")
        user = input("User: ").strip()
    password = read_password(
        from_stdin=password_stdin, prompt=f"Password or token of {user} for {host}", variable=VARIABLE, whole=True
    )
    with connect() as client:
        stored = client.images.login(host, user, password, check=not no_check)
    known = "works and is stored" if stored.get("verifiedAt") else "is stored; nothing proves yet that it works"
    say(f"berth: the login of {user} for {stored.get('registry')} {known}")


def logout(registry: RegistryArgument) -> None:
    """Forget your login for a registry.

    \b
    Examples:
      berth images logout ghcr.io
    """
    with connect() as client:
        client.images.logout(_host(registry))
    say(f"berth: the login for {_host(registry)} is removed")


def logins(output: Output = Format.TABLE) -> None:
    """List the registries that you are logged in to.

    \b
    Examples:
      berth images logins
    """
    with connect() as client:
        found = list(client.images.logins())
    columns = (
        Column("REGISTRY", lambda raw: str(raw.get("registry"))),
        Column("USER", lambda raw: str(raw.get("username"))),
        Column("VERIFIED", lambda raw: (raw.get("verifiedAt") or "no")[:19].replace("T", " ")),
    )
    print_list("RegistryLogin", found, columns, lambda raw: str(raw.get("registry")), output, "no logins")


def _host(registry: str) -> str:
    """What people copy from a browser or from Docker's messages, as the name alone."""
    return registry.removeprefix("https://").rstrip("/")
