"""Commands about the server's database: db upgrade."""

from __future__ import annotations

import typer

from berth.cli.server import Home, start

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Look after the server's database."""


@app.command()
def upgrade(home: Home = None) -> None:
    """Bring the database to the form that this release needs.

    `berth up` does so by itself on SQLite, after a backup; on PostgreSQL run it before starting a new release.

    \b
    Examples:
      BERTH_DATABASE_URL=postgresql+psycopg://berth@db/berth berth db upgrade
    """
    start("upgrade", home=home)
