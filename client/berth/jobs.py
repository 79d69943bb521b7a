"""The jobs of a server: submit, follow, explain, end, fetch what they wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from berth.errors import ApiError, InvalidInput, NotFound, ServerFailed, TimedOut, Unreachable, UsageError
from berth.follow import LOST_AFTER_TRIES, LogEvent, follow
from berth.paging import pages
from berth.records import Explanation, Job, JobEvent, LogChunk, OutputFile
from berth.session import Session, segment

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}-007")
_PREFIX = re.compile(r"[0-9a-f][0-9a-f-]{3,}")
LOOK_BACK = 1000
"""How many of the newest jobs are searched for a shortened uuid."""
FIRST_LOOK_S, LONGEST_LOOK_S = 0.25, 5.0


class Jobs:
    """Everything about jobs; reach it as ``client.jobs``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # -- beginning -----------------------------------------------------------------------------------------------

    def submit(self, request: Mapping[str, Any], key: str | None = None) -> Job:
        """Submit a Tapis submit request. ``key``: the Idempotency-Key, by default a new one for every call."""
        return Job.of(self._session.create("/v3/jobs/submit", request, key=key))

    def submit_all(self, requests: Sequence[Mapping[str, Any]], key: str | None = None) -> Sequence[Mapping[str, Any]]:
        """Submit up to 1,000 requests, all or none; ``{uuid, status, execSystemId}`` of each, in order."""
        return list(self._session.create("/v3/jobs/submit/batch", {"jobs": list(requests)}, key=key)["jobs"])

    def plan(self, request: Mapping[str, Any]) -> Explanation:
        """Where the request would go, and why; nothing is stored."""
        return Explanation.of(self._session.post("/v3/placement/plan", request))

    def resubmit(self, uuid: str) -> Job:
        """Submit again what that job was asked to do."""
        return Job.of(self._session.create(f"/v3/jobs/{segment(uuid)}/resubmit", None))

    # -- looking -------------------------------------------------------------------------------------------------

    def get(self, uuid: str) -> Job:
        """The whole job."""
        return Job.of(self._session.get(f"/v3/jobs/{segment(uuid)}"))

    def list(self, limit: int | None = None, *, everyone: bool = False) -> Iterator[Job]:
        """The newest jobs first: the user's own, or everyone's for an administrator."""
        kind = "ALL_JOBS" if everyone else "MY_JOBS"
        found = pages(self._session, "/v3/jobs/list", limit=limit, orderBy="created(desc)", listType=kind)
        return map(Job.of, found)

    def find(self, reference: str) -> str:
        """The uuid meant by a uuid, the beginning of one, or a job's number. NotFound; UsageError when several fit."""
        text = reference.strip().lower()
        if _UUID.fullmatch(text):
            return text
        if text.isdecimal():
            found = [job.uuid for job in map(Job.of, self._session.get("/v3/jobs/search", **{"id.eq": text}) or [])]
            if found:
                return found[0]
        if not _PREFIX.fullmatch(text):
            raise NotFound(
                404,
                f"there is no job '{reference}'",
                fix="name a job by its uuid, its first 4 or more letters, or its number",
            )
        fits = [job.uuid for job in self.list(LOOK_BACK) if job.uuid.startswith(text)]
        if not fits:
            raise NotFound(404, f"none of your newest {LOOK_BACK} jobs begins with '{reference}'", fix="see berth ps")
        if len(fits) > 1:
            raise UsageError(f"'{reference}' fits {len(fits)} jobs, {fits[0]} among them", "write more of the uuid")
        return fits[0]

    def history(self, uuid: str) -> Iterator[JobEvent]:
        """What happened to the job, oldest first."""
        return map(JobEvent.of, pages(self._session, f"/v3/jobs/{segment(uuid)}/history"))

    def why(self, uuid: str) -> Explanation:
        """Why the job is where it is, or why it is nowhere yet."""
        return Explanation.of(self._session.get(f"/v3/jobs/{segment(uuid)}/why"))

    def wait(
        self, uuid: str, timeout_s: float | None = None, on_change: Callable[[Job], None] | None = None,
        until: Callable[[Job], bool] = lambda job: job.has_ended,
    ) -> Job:  # fmt: skip
        """The job once ``until`` holds, by default once it has ended. TimedOut after ``timeout_s``.

        on_change: called with the job whenever its status or message is another than before.
        """
        begun_s, pause_s, seen = self._session.now(), FIRST_LOOK_S, None
        job, unanswered = self.get(uuid), 0
        while True:
            if (job.status, job.last_message) != seen:
                seen, pause_s = (job.status, job.last_message), FIRST_LOOK_S
                if on_change is not None:
                    on_change(job)
            if until(job):
                return job
            left_s = None if timeout_s is None else timeout_s - (self._session.now() - begun_s)
            if left_s is not None and left_s <= 0:
                raise TimedOut(
                    f"job {uuid} is still {job.status} and the time is up", "it goes on; berth wait waits again"
                )
            self._session.sleep(pause_s if left_s is None else min(pause_s, left_s))
            pause_s = min(LONGEST_LOOK_S, pause_s * 1.3)
            try:
                job, unanswered = self.get(uuid), 0
            except (Unreachable, ServerFailed):  # a server that restarts loses no job
                unanswered += 1
                if unanswered > LOST_AFTER_TRIES:
                    raise

    # -- ending --------------------------------------------------------------------------------------------------

    def cancel(self, uuid: str) -> str:
        """Ask for the end of the job; the server's message. Asking twice is as good as once."""
        return str(self._session.post(f"/v3/jobs/{segment(uuid)}/cancel").get("message", ""))

    # -- what it wrote -------------------------------------------------------------------------------------------

    def log(self, uuid: str, stream: str = "stdout", offset_bytes: int = 0, task: int | None = None) -> LogChunk:
        """At most 256 KiB of the job's log from an offset on. task: whose log, where the job is an array."""
        path = f"/v3/jobs/{segment(uuid)}/logs"
        return LogChunk.of(self._session.get(path, stream=stream, offset=offset_bytes, task=task))

    def read_log(self, uuid: str, stream: str = "stdout", task: int | None = None) -> Iterator[str]:
        """The log as it is now, piece by piece."""
        offset_bytes = 0
        while True:
            chunk = self.log(uuid, stream, offset_bytes, task)
            yield chunk.data
            if chunk.complete or chunk.next_offset_bytes <= offset_bytes:
                return
            offset_bytes = chunk.next_offset_bytes

    def follow(
        self, uuid: str, stream: str = "stdout", offset_bytes: int = 0, task: int | None = None
    ) -> Iterator[LogEvent]:
        """The log as it grows, until the job has ended; a lost connection is taken up where it broke."""
        return follow(self._session, f"/v3/jobs/{segment(uuid)}/logs", stream, offset_bytes, task)

    def outputs(self, uuid: str, folder: str = "") -> Iterator[OutputFile]:
        """What is in a directory of the job's output, while it runs too."""
        folder = checked_path(folder)
        listed = pages(self._session, _output_path(uuid, "list", folder), allowIfRunning="true")
        return (OutputFile.of(raw, folder) for raw in listed)

    def outputs_below(self, uuid: str, folder: str = "", depth: int = 50) -> Iterator[OutputFile]:
        """Every file below a directory of the job's output."""
        if depth == 0:
            raise ApiError(400, f"the output is nested too deeply at '{folder}'")
        for entry in self.outputs(uuid, folder):
            if entry.is_dir:
                yield from self.outputs_below(uuid, entry.path, depth - 1)
            else:
                yield entry

    def read_output(self, uuid: str, path: str) -> Iterator[bytes]:
        """The content of an output file, piece by piece."""
        with self._session.stream(
            _output_path(uuid, "download", checked_path(path)), allowIfRunning="true"
        ) as response:
            yield from response.iter_bytes(64 * 1024)

    def download(
        self, uuid: str, path: str, target: Path, on_bytes: Callable[[int], None] = lambda count: None
    ) -> None:
        """Bring an output file to ``target``, which appears only once it is whole. on_bytes: bytes just written."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        try:
            with part.open("wb") as file:
                for piece in self.read_output(uuid, path):
                    file.write(piece)
                    on_bytes(len(piece))
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def checked_path(path: str) -> str:
    """A path relative to an output directory, without leading or repeated slashes. InvalidInput when it would leave it.

    Names come from jobs and from servers, and become paths on this machine.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise InvalidInput(f"'{path}' leads out of the job's output directory", "name a path below it")
    return "/".join(parts)


def _output_path(uuid: str, what: str, path: str) -> str:
    return f"/v3/jobs/{segment(uuid)}/output/{what}/{quote(path)}"


def newest(found: Iterator[Job], limit: int) -> tuple[list[Job], bool]:
    """The first ``limit`` jobs, and whether there are more."""
    jobs = list(islice(found, limit + 1))
    return jobs[:limit], len(jobs) > limit
