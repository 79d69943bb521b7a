"""Commands about volumes of pods: pods volumes create, ls, files, rm."""

from __future__ import annotations

from typing import Annotated

import typer

from berth.cli.connect import connect
from berth.cli.render import Column, Format, Output, print_list, print_one, say
from berth.records import Raw
from berth.units import size

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

VolumeArgument = Annotated[str, typer.Argument(metavar="VOLUME", help="The volume's id.")]


@app.callback()
def main() -> None:
    """What outlives a pod: directories that pods mount."""


@app.command()
def create(
    volume_id: VolumeArgument,
    size_mb: Annotated[int, typer.Option("--size", min=1, help="Its limit, in MB.")] = 1024,
    description: Annotated[str, typer.Option("--description", help="For people.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Make a volume.

    \b
    Examples:
      berth pods volumes create data --size 4096
    """
    with connect() as client:
        volume = client.pods.create_volume(volume_id, size_mb=size_mb, description=description)
    rows = [("volume", _id(volume)), ("limit", _limit(volume)), ("status", volume.get("status"))]
    print_one("PodVolume", volume, rows, _id(volume), output)


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List the volumes that you may use.

    \b
    Examples:
      berth pods volumes ls
    """
    with connect() as client:
        found = client.pods.volumes()
    print_list("PodVolume", found, COLUMNS, _id, output, "no volumes")


@app.command()
def files(volume_id: VolumeArgument, output: Output = Format.TABLE) -> None:
    """List what lies on a volume.

    \b
    Examples:
      berth pods volumes files data
    """
    with connect() as client:
        found = client.pods.volume_files(volume_id)
    columns = (
        Column("NAME", lambda each: str(each.get("path"))),
        Column("SIZE", lambda each: size(each.get("size") or 0)),
        Column("CHANGED", lambda each: str(each.get("lastModified"))),
    )
    print_list("PodVolumeFile", found, columns, lambda each: str(each.get("path")), output, "nothing lies there")


@app.command()
def rm(volumes: Annotated[list[str], typer.Argument(metavar="VOLUME...", help="The volumes' ids.")]) -> None:
    """Delete volumes and all that lies on them.

    \b
    Examples:
      berth pods volumes rm data
    """
    with connect() as client:
        for volume_id in volumes:
            client.pods.remove_volume(volume_id)
            say(f"{volume_id} is deleted")


def _id(volume: Raw) -> str:
    return str(volume.get("volume_id"))


def _limit(volume: Raw) -> str:
    return f"{volume.get('size_limit')} MB"


COLUMNS = (
    Column("ID", _id),
    Column("STATUS", lambda volume: str(volume.get("status"))),
    Column("LIMIT", _limit),
    Column("DESCRIPTION", lambda volume: str(volume.get("description") or "")),
)
