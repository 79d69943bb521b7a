"""Commands that look at jobs and end them: ps, show, why, logs, wait, cancel."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Annotated, Any

import typer

from berth.cli.connect import connect
from berth.cli.render import (
    Column,
    Format,
    Output,
    document,
    draws,
    print_document,
    print_list,
    print_one,
    print_table,
    say,
)
from berth.cli.watching import exit_code_of, place_of, state_line, state_of, summary_of
from berth.errors import ExitCode, UsageError
from berth.records import Job, JobEvent, instant
from berth.units import duration, parse_time_s

app = typer.Typer(rich_markup_mode=None)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Job: uuid, the beginning of one, or number.")]
JobsArgument = Annotated[list[str], typer.Argument(metavar="JOB", help="Jobs: uuids, beginnings or numbers.")]

COLUMNS = (
    Column("JOB", lambda raw: raw["uuid"][:8] if draws() else raw["uuid"]),
    Column("NAME", lambda raw: raw.get("name") or ""),
    Column("STATUS", lambda raw: raw.get("status") or ""),
    Column("SYSTEM", lambda raw: raw.get("execSystemId") or "-"),
    Column("AGE", lambda raw: _age(raw.get("created"))),
    Column("RAN", lambda raw: _ran(raw.get("remoteStarted"), raw.get("ended"))),
    Column("CONDITION", lambda raw: raw.get("condition") or ""),
)

EVERYONES_COLUMNS = (
    Column("JOB", lambda raw: raw["uuid"]),
    COLUMNS[1],
    Column("OWNER", lambda raw: raw.get("owner") or ""),
    *COLUMNS[2:],
)
"""Jobs of others are found by their whole uuid only."""


@app.command()
def ps(
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many at most; 0 for all.")] = 25,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Jobs that have ended too.")] = False,
    status: Annotated[list[str] | None, typer.Option("--status", help="Only jobs of this status; may repeat.")] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="Everyone's jobs, for administrators.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """List jobs, the newest first.

    Jobs that have ended are left out unless --all or --status asks for them.

    \b
    Examples:
      berth ps
      berth ps --all
      berth ps --status FAILED -n 0 -o id
    """
    from berth.jobs import newest

    wanted = {word.upper() for word in status or ()}
    with connect() as client:
        found: Iterable[Job] = (
            job
            for job in client.jobs.list(everyone=everyone)
            if (job.status in wanted if wanted else all_ or not job.has_ended)
        )
        jobs, more = newest(iter(found), limit or sys.maxsize - 1)
    empty = (
        "no jobs; begin with berth run"
        if all_ or wanted
        else "no jobs under way; berth ps --all shows those that ended"
    )
    columns = EVERYONES_COLUMNS if everyone else COLUMNS
    print_list("Job", [job.raw for job in jobs], columns, lambda raw: raw["uuid"], output, empty)
    if more:
        say(f"berth: the newest {limit} are shown; -n 0 shows all")


@app.command()
def show(
    job: JobArgument,
    history: Annotated[bool, typer.Option("--history", help="What happened to it, line by line.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show one job.

    \b
    Examples:
      berth show 3f2a
      berth show --history 3f2a
      berth show -o json 3f2a
    """
    with connect() as client:
        found = client.jobs.get(client.jobs.find(job))
        events = list(client.jobs.history(found.uuid)) if history else []
    if history and output in (Format.JSON, Format.YAML):
        print_document(document("Job", item=found.raw, history=[event.raw for event in events]), output)
        return
    print_one("Job", found.raw, _rows(found), found.uuid, output)
    if output is Format.TABLE and events:
        print()
        print_table(("WHEN", "TOOK", "STATUS", "WHAT"), _timeline(events))


@app.command()
def why(job: JobArgument, output: Output = Format.TABLE) -> None:
    """Explain why a job goes where it goes.

    \b
    Examples:
      berth why 3f2a
      berth why -o json 3f2a
    """
    from berth.cli.explaining import print_explanation

    with connect() as client:
        print_explanation(client.jobs.why(client.jobs.find(job)), output)


@app.command()
def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", "-e", help="The error log instead of the output.")] = False,
    task: Annotated[
        int | None, typer.Option("--task", "-t", min=0, metavar="INDEX", help="Which task's, of an array.")
    ] = None,
) -> None:
    """Print a job's log; -f follows it.

    A lost connection is taken up where it broke. With -f the exit code is 0 when the job finished and 1 when not.

    \b
    Examples:
      berth logs 3f2a
      berth logs -f 3f2a
      berth logs --stderr 3f2a
      berth logs --task 7 3f2a
    """
    stream = "stderr" if stderr else "stdout"
    with connect() as client:
        uuid = client.jobs.find(job)
        if not follow:
            for piece in client.jobs.read_log(uuid, stream, task):
                print(piece, end="")
            return
        for event in client.jobs.follow(uuid, stream, task=task):
            print(event.data, end="", flush=True)
        raise typer.Exit(exit_code_of(client.jobs.get(uuid)))


@app.command()
def wait(
    jobs: JobsArgument,
    timeout: Annotated[str | None, typer.Option("--timeout", help="Give up after this time, as 10 or 1h30m.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing.")] = False,
) -> None:
    """Wait for jobs to end.

    The exit code is 0 when all of them finished, 1 when one did not, 7 when the time was up first.

    \b
    Examples:
      berth wait 3f2a
      berth wait --timeout 2h $(berth ps -o id) && berth output get 3f2a
    """
    from time import monotonic

    try:
        ends_s = None if timeout is None else monotonic() + parse_time_s(timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from None
    code = ExitCode.OK
    with connect() as client, state_line() as show_state:
        for uuid in [client.jobs.find(job) for job in jobs]:
            left_s = None if ends_s is None else max(0.0, ends_s - monotonic())
            ended = client.jobs.wait(uuid, left_s, on_change=None if quiet else show_state)
            code = max(code, exit_code_of(ended))
            if not quiet:
                say(f"berth: {summary_of(ended)}")
    raise typer.Exit(code)


@app.command()
def cancel(jobs: JobsArgument) -> None:
    """Cancel jobs.

    A job that has already ended is left as it is, and said so.

    \b
    Examples:
      berth cancel 3f2a
      berth cancel $(berth ps -o id)
    """
    with connect() as client:
        for uuid in [client.jobs.find(job) for job in jobs]:
            say(f"berth: {uuid}: {client.jobs.cancel(uuid) or 'will be cancelled'}")


def _rows(job: Job) -> Iterable[tuple[str, Any]]:
    raw = job.raw
    yield "job", job.uuid
    yield "number", job.id
    yield "name", job.name
    yield "owner", job.owner
    yield "status", state_of(job)
    yield "condition", job.condition
    yield "image", job.notes.get("berth", {}).get("image") if isinstance(job.notes.get("berth"), dict) else None
    yield "app", f"{job.app_id} {raw.get('appVersion') or ''}" if job.app_id != "berth.image" else None
    yield "place", place_of(job)
    yield "asked for", _resources(raw)
    yield "remote job", job.remote_id
    yield "exit", raw.get("remoteResultInfo")
    yield "created", _clock(job.created_at)
    yield "submitted", _clock(job.submitted_at)
    yield "started", _clock(job.started_at)
    yield "ended", _clock(job.ended_at)
    yield (
        "output",
        f"{raw.get('archiveSystemId') or job.system_id}:{raw.get('archiveSystemDir')}"
        if raw.get("archiveSystemDir")
        else None,
    )


def _timeline(events: Sequence[JobEvent]) -> list[tuple[str, ...]]:
    """Each status with how long it lasted. Events that carry data for programs are left to ``-o json``."""
    shown = [event for event in events if not event.description.startswith("{")]
    ends = [event.at for event in shown[1:]]
    return [
        (_clock(event.at), _seconds(event.at, end), event.detail, event.description)
        for event, end in zip_longest(shown, ends)
    ]


def _seconds(begin: datetime | None, end: datetime | None) -> str:
    if begin is None or end is None:
        return ""
    lasted_s = (end - begin).total_seconds()
    return f"{lasted_s:.1f}s" if lasted_s < 60 else duration(lasted_s)


def _resources(raw: Any) -> str:
    if not raw.get("nodeCount"):
        return ""
    return (
        f"{raw['nodeCount']} x {raw.get('coresPerNode')} cores, {raw.get('memoryMB')} MiB, {raw.get('maxMinutes')} min"
    )


def _clock(at: datetime | None) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""


def _age(created: Any) -> str:
    at = instant(created)
    return duration((datetime.now(UTC) - at).total_seconds()) if at else ""


def _ran(started: Any, ended: Any) -> str:
    begun, done = instant(started), instant(ended)
    return duration(((done or datetime.now(UTC)) - begun).total_seconds()) if begun else ""
