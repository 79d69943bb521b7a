"""Commands about scheduler profiles: systems profiles ls, show, create, use, rm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from berth.cli.connect import connect
from berth.cli.render import Column, Format, Output, print_list, print_one, say
from berth.errors import UsageError
from berth.records import Raw

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(metavar="PROFILE", help="The profile's name.")]


@app.callback()
def main() -> None:
    """What sites want of every job: modules to load, options to leave out."""


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List the profiles that jobs and systems may name.

    \b
    Examples:
      berth systems profiles ls
    """
    with connect() as client:
        found = client.systems.profiles()
    columns = (
        Column("PROFILE", lambda raw: raw["name"]),
        Column("OWNER", lambda raw: raw["owner"]),
        Column("LOADS", lambda raw: "; ".join(_loads(raw)) or "-"),
        Column("LEAVES OUT", lambda raw: ", ".join(raw["hiddenOptions"]) or "-"),
    )
    print_list("SchedulerProfile", found, columns, lambda raw: raw["name"], output, "no scheduler profiles")


@app.command()
def show(name: NameArgument, output: Output = Format.TABLE) -> None:
    """Show what a profile says.

    \b
    Examples:
      berth systems profiles show cedar-apptainer
    """
    with connect() as client:
        found = client.systems.profile(name)
    print_one("SchedulerProfile", found, _rows(found), name, output)


@app.command()
def create(
    name: NameArgument,
    load: Annotated[
        list[str] | None, typer.Option("--load", metavar="MODULE", help="Load it; may be repeated.")
    ] = None,
    command: Annotated[str, typer.Option("--with", metavar="COMMAND", help="What loads the modules.")] = "module load",
    hide: Annotated[
        list[str] | None,
        typer.Option(
            "--hide", metavar="OPTION", help="MEM or PARTITION: what the site's scheduler refuses to be told."
        ),
    ] = None,
    description: Annotated[str | None, typer.Option("--description", help="For whoever reads the list.")] = None,
) -> None:
    """Keep a profile for systems and jobs to name; it cannot be changed later.

    \b
    Examples:
      berth systems profiles create cedar-apptainer --load apptainer/1.4
      berth systems profiles create birch --with "spack load" --load apptainer --hide mem
    """
    if not load and not hide:
        raise UsageError("a profile that says nothing changes nothing", "give --load MODULE or --hide OPTION")
    loads = [{"moduleLoadCommand": command, "modulesToLoad": load}] if load else []
    definition = {"name": name, "description": description, "moduleLoads": loads}
    definition["hiddenOptions"] = [option.upper() for option in hide or ()]
    with connect() as client:
        client.systems.create_profile(definition)
    say(f"berth: scheduler profile {name} is kept; next: berth systems profiles use SYSTEM {name}")


@app.command()
def use(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="The system's id.")],
    name: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help="The profile's name.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Let the system's jobs go without a profile.")] = False,
) -> None:
    """Let the jobs of a system do as a profile says now.

    A job may name another one by --tapis-profile among its scheduler options.

    \b
    Examples:
      berth systems profiles use cedar cedar-apptainer
      berth systems profiles use cedar --none
    """
    if (name is None) is not none:
        raise UsageError("say which profile", "name one, or give --none")
    with connect() as client:
        client.systems.patch(system, {"batchSchedulerProfile": name})
    say(f"berth: jobs of {system} {f'do as {name} says' if name else 'go without a profile'}")


@app.command()
def rm(name: NameArgument) -> None:
    """Forget a profile; systems and jobs that took it go on with what it said.

    \b
    Examples:
      berth systems profiles rm cedar-apptainer
    """
    with connect() as client:
        client.systems.remove_profile(name)
    say(f"berth: scheduler profile {name} is removed")


def _loads(raw: Raw) -> Iterator[str]:
    for load in raw["moduleLoads"]:
        yield " ".join([load["moduleLoadCommand"], *load["modulesToLoad"]])


def _rows(raw: Raw) -> list[tuple[str, Any]]:
    return [
        ("name", raw["name"]),
        ("description", raw.get("description")),
        ("owner", raw["owner"]),
        ("loads", "; ".join(_loads(raw))),
        ("leaves out", ", ".join(raw["hiddenOptions"])),
        ("made", raw.get("created")),
    ]
