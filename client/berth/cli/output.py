"""Commands for what a job wrote: output ls, output get."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from berth.cli.connect import connect
from berth.cli.render import Column, Format, Output, draws, print_list, say
from berth.errors import InvalidInput, NotFound, UsageError
from berth.units import size

if TYPE_CHECKING:
    from berth.client import Client
    from berth.records import OutputFile

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Job: uuid, the beginning of one, or number.")]


@app.callback()
def main() -> None:
    """List and fetch what a job wrote."""


@app.command()
def ls(
    job: JobArgument,
    folder: Annotated[str, typer.Argument(metavar="DIRECTORY", help="Directory in the job's output.")] = "",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Everything below it.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """List what a job wrote, while it runs too.

    \b
    Examples:
      berth output ls 3f2a
      berth output ls -r 3f2a results
    """
    with connect() as client:
        uuid = client.jobs.find(job)
        files = list(client.jobs.outputs_below(uuid, folder) if recursive else client.jobs.outputs(uuid, folder))
    columns = (
        Column("NAME", lambda raw: raw["outputPath"] + ("/" if raw.get("type") == "dir" else "")),
        Column("SIZE", lambda raw: "" if raw.get("type") == "dir" else size(raw.get("size") or 0)),
        Column("MODIFIED", lambda raw: (raw.get("lastModified") or "")[:19].replace("T", " ")),
    )
    items = [{**file.raw, "outputPath": file.path} for file in files]
    print_list("OutputFile", items, columns, lambda raw: raw["outputPath"], output, "nothing there")


@app.command()
def get(
    job: JobArgument,
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH", help="Files or directories; all.")] = None,
    to: Annotated[str | None, typer.Option("--to", "-d", help="Directory here; - prints one file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist here.")] = False,
) -> None:
    """Fetch what a job wrote, while it runs too.

    Files keep their names below the directory given by --to, by default one named like the job. A file appears
    only when it is whole.

    \b
    Examples:
      berth output get 3f2a
      berth output get 3f2a results/table.csv --to .
      berth output get 3f2a tapisjob.out --to - | head
    """
    with connect() as client:
        uuid = client.jobs.find(job)
        if to == "-":
            if not paths or len(paths) != 1:
                raise UsageError("--to - prints exactly one file", "name it after the job")
            for piece in client.jobs.read_output(uuid, paths[0]):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        folder = Path(to if to is not None else uuid)
        wanted = list(_wanted(client, uuid, paths or [""]))
        if not wanted:
            say("berth: the job has no output yet")
        present = [path for file in wanted if (path := folder / file.path).exists()]
        if present and not force:
            raise InvalidInput(f"{present[0]} exists already", "fetch to another directory, or give --force")
        with _progress(sum(file.size_bytes for file in wanted)) as advanced:
            for file in wanted:
                client.jobs.download(uuid, file.path, folder / file.path, advanced)
                say(f"{folder / file.path}  {size(file.size_bytes)}")


def _wanted(client: Client, uuid: str, paths: list[str]) -> Iterator[OutputFile]:
    """The files meant: a directory stands for everything below it."""
    from berth.jobs import checked_path

    for path in map(checked_path, paths):
        if not path:
            yield from client.jobs.outputs_below(uuid)
            continue
        parent = path.rpartition("/")[0]
        found = next((entry for entry in client.jobs.outputs(uuid, parent) if entry.path == path), None)
        if found is None:
            raise NotFound(
                404, f"the job's output has no '{path}'", fix=f"berth output ls {uuid[:8]} {parent}".rstrip()
            )
        if found.is_dir:
            yield from client.jobs.outputs_below(uuid, path)
        else:
            yield found


@contextmanager
def _progress(total_bytes: int) -> Iterator[Callable[[int], None]]:
    """A function that is told how many bytes have come; it draws a bar where there is a terminal."""
    if not draws(sys.stderr):
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    bar = Progress(
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total_bytes or None)
        yield lambda count: bar.advance(task, count)
