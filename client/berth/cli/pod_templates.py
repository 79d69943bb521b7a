"""Commands about templates of pods: pods templates ls, show."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from berth.cli.connect import connect
from berth.cli.render import Column, Format, Output, print_list, print_one
from berth.errors import UsageError
from berth.records import Raw

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Ready-made pods: databases, notebooks, services."""


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List the templates that you may use.

    \b
    Examples:
      berth pods templates ls
    """
    with connect() as client:
        found = client.pods.templates()
    columns = (Column("TEMPLATE", _id), Column("DESCRIPTION", lambda each: str(each.get("description") or "")))
    print_list("PodTemplate", found, columns, _id, output, "no templates")


@app.command()
def show(
    template: Annotated[str, typer.Argument(metavar="TEMPLATE[:TAG]", help="As berth pods templates ls shows it.")],
    output: Output = Format.TABLE,
) -> None:
    """Show what a template stands for.

    \b
    Examples:
      berth pods templates show postgres
    """
    name, _, tag = template.partition(":")
    with connect() as client:
        tags = client.pods.template_tags(name)
    found = next((each for each in tags if each.get("tag") == (tag or "latest")), None)
    if found is None:
        known = ", ".join(str(each.get("tag")) for each in tags)
        raise UsageError(f"template {name} has no tag '{tag or 'latest'}'", f"it has: {known}" if known else "")
    given = {
        key: value for key, value in (found.get("pod_definition") or {}).items() if value not in (None, "", [], {})
    }
    shown = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in given.items()]
    about = [("template", name), ("tag", found.get("tag")), ("of", found.get("tag_timestamp"))]
    print_one("PodTemplateTag", found, [*about, *shown], template, output)


def _id(template: Raw) -> str:
    return str(template.get("template_id"))
