"""Commands about images on systems: images ls, stage, pin, unpin, gc."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from berth.cli.connect import connect
from berth.cli.render import Column, Format, Output, draws, print_list, print_one, say
from berth.errors import ExitCode, UsageError
from berth.records import Raw
from berth.units import parse_time_s, size

if TYPE_CHECKING:
    from berth.client import Client

SystemOption = Annotated[str | None, typer.Option("--system", "-s", help="Only on this system.")]
IdArgument = Annotated[int, typer.Argument(metavar="ID", min=1, help="As berth images ls shows it.")]


def ls(
    system: SystemOption = None,
    state: Annotated[str | None, typer.Option("--state", help="Only in this state, as PRESENT or FAILED.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """List the images that are on systems for your jobs, or on their way there.

    \b
    Examples:
      berth images ls
      berth images ls --system cluster --state PRESENT
    """
    with connect() as client:
        found = list(client.images.list(system=system, state=state.upper() if state else None))
    print_list("ImageCopy", found, COLUMNS, _id, output, "no images")


def stage(
    reference: Annotated[str, typer.Argument(metavar="IMAGE", help="As for a job: python:3.12.")],
    systems: Annotated[list[str], typer.Argument(metavar="SYSTEM...", help="Where it is to be.")],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="End when it is there, showing how far it is.")] = False,
    timeout: Annotated[str | None, typer.Option("--timeout", help="Wait no longer than this, as 10 or 1h30m.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Bring an image to systems before a job asks for it.

    What is there stays, and what failed is tried again. With --wait the exit code is 1 when it cannot be brought.

    \b
    Examples:
      berth images stage python:3.12 cluster
      berth images stage --wait --timeout 30 ghcr.io/org/solver:2.0 cluster other
    """
    timeout_s = _timeout_s(timeout)
    with connect() as client:
        found = client.images.stage(reference, systems)
        if wait or timeout_s is not None:
            found = _wait(client, found, timeout_s)
    print_list("ImageCopy", found, COLUMNS, _id, output)
    failed = [copy for copy in found if copy.get("state") == "FAILED"]
    for copy in failed if wait else ():
        say(f"berth: {copy.get('systemId')}: {copy.get('message')}")
    if failed and wait:
        raise typer.Exit(ExitCode.JOB_FAILED)


def pin(image: IdArgument, output: Output = Format.TABLE) -> None:
    """Keep an image on a system though no job uses it.

    \b
    Examples:
      berth images pin 12
    """
    with connect() as client:
        copy = client.images.pin(image)
    print_one("ImageCopy", copy, _rows(copy), _id(copy), output)


def unpin(image: IdArgument, output: Output = Format.TABLE) -> None:
    """Let an image go from a system when nobody uses it and room is needed.

    \b
    Examples:
      berth images unpin 12
    """
    with connect() as client:
        copy = client.images.unpin(image)
    print_one("ImageCopy", copy, _rows(copy), _id(copy), output)


def gc(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="In whose store room is to be made.")],
    output: Output = Format.TABLE,
) -> None:
    """Make room in your store on a system: images that nobody needs go where it is fuller than it should.

    \b
    Examples:
      berth images gc cluster
    """
    with connect() as client:
        done = client.images.collect(system)
    released = list(done.get("released") or ())
    rows = (
        ("released", f"{len(released)} images"),
        ("leases of jobs that are over", done.get("droppedLeases")),
        ("holds", f"{size(done.get('heldBytes') or 0)} in {done.get('inodes')} files"),
    )
    print_one("CollectedImages", done, rows, "\n".join(released), output)


# -- waiting -----------------------------------------------------------------------------------------------------


def _wait(client: Client, copies: Sequence[Raw], timeout_s: float | None) -> list[Raw]:
    with _progress() as show:
        return client.images.wait([int(copy["id"]) for copy in copies], timeout_s=timeout_s, on_change=show)


def _timeout_s(timeout: str | None) -> float | None:
    try:
        return None if timeout is None else float(parse_time_s(timeout))
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from None


@contextmanager
def _progress() -> Iterator[Callable[[Raw], None]]:
    """A function that shows how far an image is: a bar for each system on a terminal, else a line for each state."""
    if not draws(sys.stderr):
        states: dict[int, str] = {}

        def line(copy: Raw) -> None:
            if states.get(copy["id"]) != copy["state"]:
                states[copy["id"]] = copy["state"]
                say(f"berth: {copy['systemId']}: {_state(copy)}")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
    from rich.text import Text

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[int, tuple[str, object]] = {}

        def bar(copy: Raw) -> None:
            described = Text(f"{copy['systemId']} {copy['state']}").plain
            state, task = tasks.get(copy["id"], ("", None))
            if state != copy["state"]:
                if task is not None:
                    bars.remove_task(task)  # type: ignore[arg-type]
                task = bars.add_task(described, total=None)
                tasks[copy["id"]] = copy["state"], task
            bars.update(task, completed=copy.get("doneBytes") or 0, total=copy.get("totalBytes"))  # type: ignore[arg-type]

        yield bar


# -- shown -------------------------------------------------------------------------------------------------------


def _id(copy: Raw) -> str:
    return str(copy.get("id"))


def _state(copy: Raw) -> str:
    state, total = str(copy.get("state")), copy.get("totalBytes")
    under_way = state in ("FETCHING", "CONVERTING", "SENDING")
    return f"{state} {100 * (copy.get('doneBytes') or 0) // total} %" if under_way and total else state


def _name(copy: Raw) -> str:
    """As people wrote it where a tag says so, else with the beginning of its digest."""
    name, _, digest = str(copy.get("reference")).removeprefix("docker://").partition("@")
    return name if ":" in name.rpartition("/")[2] or not digest else f"{name}@{digest[:19]}"


COLUMNS = (
    Column("ID", _id),
    Column("IMAGE", _name),
    Column("SYSTEM", lambda copy: str(copy.get("systemId"))),
    Column("STATE", _state),
    Column("SIZE", lambda copy: "-" if copy.get("size") is None else size(copy["size"])),
    Column("PINNED", lambda copy: "yes" if copy.get("pinned") else ""),
    Column("WAITING", lambda copy: str(copy.get("waitingJobs") or "")),
    Column("MESSAGE", lambda copy: str(copy.get("message") or "")),
)


def _rows(copy: Raw) -> Iterator[tuple[str, object]]:
    yield "image", copy.get("reference")
    yield "system", copy.get("systemId")
    yield "state", _state(copy)
    yield "size", None if copy.get("size") is None else size(copy["size"])
    yield "pinned", "yes" if copy.get("pinned") else "no"
    yield "message", copy.get("message")
