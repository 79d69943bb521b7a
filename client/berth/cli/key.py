"""Commands about the key that wraps a server's secrets: key rotate."""

from __future__ import annotations

import typer

from berth.cli.server import Home, start

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Look after the key that wraps the server's secrets."""


@app.command()
def rotate(home: Home = None) -> None:
    """Seal every secret with a new key, which takes the place of secrets.key.

    Stop every server process on this database first, and start them again afterwards with the new file. When it is
    interrupted, run it again: nothing is lost.

    \b
    Examples:
      berth key rotate --home /srv/berth
    """
    start("rotate_key", home=home)
