"""Commands about images that you give to Berth as files: images push, pushed, rm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from berth.cli.connect import connect
from berth.cli.render import Column, Format, Output, draws, print_list, print_one, say
from berth.records import Raw
from berth.units import size


def push(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A SIF, an OCI archive, or what docker save writes.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it; left out, its file name.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Give an image to Berth as a file, so that your jobs can name it.

    What is printed with -o id is its name for jobs. It is yours alone. A file that is there already is not sent again.

    \b
    Examples:
      berth images push solver.sif
      berth run $(berth images push -o id solver.sif) -- ./solve
    """
    with connect() as client, _progress() as bar:
        pushed = client.images.push(file, name=name, on_bytes=bar)
    print_one("PushedImage", pushed, _rows(pushed), str(pushed.get("reference")), output)


def pushed(output: Output = Format.TABLE) -> None:
    """List the images that you gave to Berth as files.

    \b
    Examples:
      berth images pushed
    """
    with connect() as client:
        found = list(client.images.pushed())
    columns = (
        Column("IMAGE", lambda raw: str(raw.get("reference"))),
        Column("NAME", lambda raw: str(raw.get("name"))),
        Column("KIND", lambda raw: str(raw.get("kind"))),
        Column("SIZE", lambda raw: size(raw.get("size") or 0)),
        Column("PUSHED", lambda raw: (raw.get("created") or "")[:19].replace("T", " ")),
    )
    print_list("PushedImage", found, columns, lambda raw: str(raw.get("reference")), output, "no files")


def rm(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="A number of berth images ls, or berth://sha256:... that you pushed.")
    ],
) -> None:
    """Remove an image from a system where no job may still read it, or a file that you gave to Berth.

    Jobs that wait for a file that is removed will not find it.

    \b
    Examples:
      berth images rm 12
      berth images rm berth://sha256:6f1d...
    """
    with connect() as client:
        if image.isdecimal():
            client.images.remove(int(image))
        else:
            client.images.remove_pushed(image.removeprefix("berth://"))
    say(f"berth: {image} is removed")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A function that is told how many bytes have gone, and of how many; it draws a bar where there is a terminal."""
    if not draws(sys.stderr):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _rows(raw: Raw) -> Iterator[tuple[str, object]]:
    yield "image", raw.get("reference")
    yield "name", raw.get("name")
    yield "kind", raw.get("kind")
    yield "size", size(raw.get("size") or 0)
