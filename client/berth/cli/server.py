"""Commands that start a server on this computer: up, api, reconcile. Only here is the server's own code loaded."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from berth.errors import NotInstalled

app = typer.Typer(rich_markup_mode=None)

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on; left out, BERTH_HOST or 127.0.0.1.")]
Port = Annotated[
    int | None, typer.Option("--port", min=1, max=65535, help="Port to listen on; left out, BERTH_PORT or 8080.")
]
Home = Annotated[Path | None, typer.Option("--home", help="Where the server keeps its state; left out, BERTH_HOME.")]


@app.command()
def up(host: Host = None, port: Port = None, home: Home = None) -> None:
    """Start a whole server: API and reconcilers in one process.

    It keeps its state in BERTH_HOME, on SQLite unless BERTH_DATABASE_URL says otherwise. The first start prints the
    administrator's password once. Ctrl-C ends it; nothing is lost.

    \b
    Examples:
      berth up
      berth up --host 0.0.0.0 --port 8080 --home /srv/berth
    """
    start("up", host=host, port=port, home=home)


@app.command()
def api(host: Host = None, port: Port = None, home: Home = None) -> None:
    """Start the API alone.

    Any number of these and of `berth reconcile` run on one PostgreSQL.

    \b
    Examples:
      BERTH_DATABASE_URL=postgresql+psycopg://berth@db/berth berth api --port 8081
    """
    start("api", host=host, port=port, home=home)


@app.command()
def reconcile(home: Home = None) -> None:
    """Start the reconcilers alone.

    \b
    Examples:
      BERTH_DATABASE_URL=postgresql+psycopg://berth@db/berth berth reconcile
    """
    start("reconcile", home=home)


def start(entry: str, **settings: Any) -> None:
    """Call one of the server's entry points in ``api.main`` with the settings that were given."""
    run: Callable[..., None] = getattr(_server(), entry)
    run(**{name: value for name, value in settings.items() if value is not None})


def _server() -> Any:
    """The server's composition root. NotInstalled when it, or a library of it, is missing."""
    try:
        return import_module("api.main")
    except ModuleNotFoundError as error:
        raise NotInstalled(
            f"this command needs the server, and '{error.name}' is not installed here",
            "pip install berth-hpc",
        ) from None
