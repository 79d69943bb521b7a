"""Commands about apps: apps ls, show, create, rm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from berth.cli.connect import connect
from berth.cli.inputs import read_definition
from berth.cli.render import Column, Format, Output, print_list, print_one, say

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Named, versioned images and how to run them."""


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List the apps that you may see.

    \b
    Examples:
      berth apps ls
      berth apps ls -o id
    """
    with connect() as client:
        found = list(client.apps.list())
    columns = (
        Column("ID", lambda raw: raw["id"]),
        Column("VERSION", lambda raw: raw.get("version") or ""),
        Column("IMAGE", lambda raw: raw.get("containerImage") or ""),
        Column("OWNER", lambda raw: raw.get("owner") or ""),
    )
    print_list(
        "App", found, columns, lambda raw: f"{raw['id']}:{raw.get('version')}", output, "no apps; see berth apps create"
    )


@app.command()
def show(
    app_id: Annotated[str, typer.Argument(metavar="APP", help="ID or ID:VERSION; the newest without a version.")],
    output: Output = Format.TABLE,
) -> None:
    """Show one app.

    \b
    Examples:
      berth apps show solver
      berth apps show -o yaml solver:1.2
    """
    name, _, version = app_id.partition(":")
    with connect() as client:
        found = client.apps.get(name, version or None)
    print_one("App", found, _rows(found), f"{found.get('id')}:{found.get('version')}", output)


@app.command()
def create(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Definition in YAML or JSON, or - for standard input.")],
) -> None:
    """Add an app, or a version to one.

    \b
    Examples:
      berth apps create solver.yaml
    """
    definition = read_definition(file)
    with connect() as client:
        client.apps.create(definition)
    name = f"{definition.get('id')}:{definition.get('version')}"
    say(f"berth: app {name} is added; a job file names it with app: {name}")


@app.command()
def rm(app_id: Annotated[str, typer.Argument(metavar="APP", help="The app's id.")]) -> None:
    """Remove an app with all its versions; its jobs keep their records.

    \b
    Examples:
      berth apps rm solver
    """
    with connect() as client:
        client.apps.delete(app_id)
    say(f"berth: app {app_id} is removed")


def _rows(raw: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    attributes = raw.get("jobAttributes") or {}
    yield "id", raw.get("id")
    yield "version", raw.get("version")
    yield "description", raw.get("description")
    yield "image", raw.get("containerImage")
    yield "runtime", raw.get("runtime")
    yield "owner", raw.get("owner")
    yield "enabled", "no" if raw.get("enabled") is False else "yes"
    yield "system", attributes.get("execSystemId")
    yield "queue", attributes.get("execSystemLogicalQueue")
    if attributes.get("nodeCount"):
        yield (
            "asks for",
            f"{attributes['nodeCount']} x {attributes.get('coresPerNode')} cores, {attributes.get('memoryMB')} MiB",
        )
