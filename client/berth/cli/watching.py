"""Following a job as people like to: its states on stderr, its log where it belongs, a summary at the end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from berth.cli.render import draws, safe, say
from berth.errors import ApiError, BerthError, ExitCode
from berth.records import NOT_STARTED, Job
from berth.units import duration

if TYPE_CHECKING:
    from berth.client import Client


def exit_code_of(job: Job) -> ExitCode:
    """What a command that waited for this job ends with."""
    return ExitCode.OK if job.status == "FINISHED" else ExitCode.JOB_FAILED


def follow_to_end(client: Client, uuid: str, *, quiet: bool = False) -> Job:
    """Show a job's states until it starts, then both its logs, and return it when it has ended.

    Of an array, whose tasks have logs of their own, the states are shown to its end. quiet: show nothing, only wait.
    """
    if quiet:
        return client.jobs.wait(uuid)
    with state_line() as show:
        job = client.jobs.wait(uuid, on_change=show, until=lambda job: job.status not in NOT_STARTED)
    if not job.is_array and (job.status == "FINISHED" or job.started_at is not None or not job.has_ended):
        print_logs(client, uuid)
    with state_line() as show:
        return client.jobs.wait(uuid, on_change=show)


def print_logs(client: Client, uuid: str) -> None:
    """Follow stdout and stderr of a job side by side, each to its own stream here."""
    errors = threading.Thread(target=_copy, args=(client, uuid, "stderr", sys.stderr), daemon=True)
    errors.start()
    _copy(client, uuid, "stdout", sys.stdout)
    errors.join()


def _copy(client: Client, uuid: str, stream: str, target: object) -> None:
    try:
        for event in client.jobs.follow(uuid, stream):
            print(event.data, end="", file=target, flush=True)  # type: ignore[call-overload]
    except ApiError as error:
        say(f"berth: the job's {stream} cannot be shown: {error.message}")
    except BerthError as error:
        say(f"berth: {error.message}")


@contextmanager
def state_line() -> Iterator[Callable[[Job], None]]:
    """A function that shows a job's state: in one moving line on a terminal, a line for each change elsewhere.

    How a job ended is left to the summary.
    """
    if not draws(sys.stderr):
        yield lambda job: None if job.has_ended else say(f"berth: {state_of(job)}")
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("waiting for the server") as status:
        yield lambda job: status.update(escape(safe(state_of(job))))


def state_of(job: Job) -> str:
    """A job's state in a few words: where, and the newest message."""
    place = f" on {place_of(job)}" if place_of(job) else ""
    return f"{job.status}{place}" + (f": {job.last_message}" if job.last_message else "")


def place_of(job: Job) -> str:
    """``system`` or ``system/queue``."""
    return "/".join(part for part in (job.system_id, job.queue) if part)


def summary_of(job: Job) -> str:
    """How a job ended, where, and how long each part took."""
    parts = [f"job {job.uuid} {job.status}" + (f" on {place_of(job)}" if place_of(job) else "")]
    if job.status != "FINISHED":
        parts.append(job.condition or "")
        parts.append(job.last_message)
    if job.submitted_at and job.started_at:
        parts.append(f"waited {duration((job.started_at - job.submitted_at).total_seconds())}")
    if job.started_at and job.remote_ended_at:
        parts.append(f"ran {duration((job.remote_ended_at - job.started_at).total_seconds())}")
    return "; ".join(part for part in parts if part)
