"""ARCHIVING: outputs are brought to where they are kept, then the job ends as its run ended."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatchcase

from scheduler.job_files import written
from scheduler.model.apps import ArchiveFilter
from scheduler.model.errors import FileMissing
from scheduler.model.jobs import ArchiveMode, Fact, Job
from scheduler.model.runs import CONDITIONS, Ending, Observation
from scheduler.model.states import Condition, Event
from scheduler.reconcile.on_nodes import image_on_nodes
from scheduler.reconcile.sides import archive_side, exec_side, place_of_job
from scheduler.reconcile.steps import Hands
from scheduler.reconcile.transfer import Progress, copy_tree

LAUNCH_FILES = ("tapisjob.sh", "tapisjob.env")
REGEX_PREFIX = "REGEX:"


async def archive(job: Job, hands: Hands) -> Fact:
    """ARCHIVING -> FINISHED or FAILED, as the run ended; outputs are kept either way unless asked not to."""
    kept = "outputs were not archived, as asked"
    if keeps_outputs(job):
        kept = await _keep_outputs(job, hands)
    told = await image_on_nodes(job, hands)
    if ended_well(job):
        outcome = {"condition": Condition.NORMAL_COMPLETION, "remote_outcome": "FINISHED"}
        return Fact(Event.ARCHIVED, outcome, message=f"the job ended well; {kept}", told=told)
    outcome = {
        "condition": CONDITIONS[_ending(job)],
        "remote_outcome": "FAILED" if keeps_outputs(job) else "FAILED_SKIP_ARCHIVE",
    }
    return Fact(Event.FAILED, outcome, message=f"{ending_in_words(job.observation)}; {kept}", told=told)


def ended_well(job: Job) -> bool:
    return _ending(job) is Ending.COMPLETED


def keeps_outputs(job: Job) -> bool:
    """Whether outputs are archived, by the job's archive mode and how the run ended."""
    spec = job.spec
    if spec.archive_mode is ArchiveMode.NEVER:
        return False
    skips_on_fail = spec.archive_mode is ArchiveMode.SKIP_ON_FAIL or not spec.archive_on_app_error
    return ended_well(job) or not skips_on_fail


def ending_in_words(seen: Observation | None) -> str:
    """How a run ended, for people."""
    if seen is None or seen.ending is None:
        return "the run ended, and the system does not say how"
    words = f"the run ended as {seen.raw_state or seen.ending}"
    if seen.exit_code is not None:
        words += f" with exit code {seen.exit_code}"
    if seen.signal:
        words += f" by signal {seen.signal}"
    if seen.tasks is not None and seen.tasks.failed:
        words += f" ({seen.tasks.failed} of {seen.tasks.failed + seen.tasks.completed} tasks failed)"
    return words + (f": {seen.reason}" if seen.reason else "")


def wanted_by(chosen: ArchiveFilter) -> Callable[[str], bool]:
    """Which files are archived: any include (none: all) and no exclude; globs, or ``REGEX:`` and an expression."""

    def matches(pattern: str, path: str) -> bool:
        if pattern.startswith(REGEX_PREFIX):
            return re.fullmatch(pattern.removeprefix(REGEX_PREFIX), path) is not None
        return fnmatchcase(path, pattern) or path.startswith(pattern.rstrip("/") + "/")

    def wanted(path: str) -> bool:
        if path.endswith("/"):  # a directory comes with the files that are wanted in it
            return not chosen.includes and not any(matches(pattern, path[:-1]) for pattern in chosen.excludes)
        included = not chosen.includes or any(matches(pattern, path) for pattern in chosen.includes)
        return included and not any(matches(pattern, path) for pattern in chosen.excludes)

    return wanted


async def _keep_outputs(job: Job, hands: Hands) -> str:
    place = place_of_job(job)
    if (place.archive_system_id, place.archive_dir) == (place.system_id, place.output_dir):
        return "outputs stay where they are"
    progress = Progress("archiving", hands.say, hands.ports.clock)
    side = await exec_side(hands.ports, job)
    whole = await side.storage(hands.ports)
    target = await (await archive_side(hands.ports, job)).storage(hands.ports)
    chosen = job.spec.archive_filter

    def in_target(path: str) -> str | None:
        return path if whole is target else None

    async with written(hands.ports, side.system, side.login, place.output_dir, within=place.exec_dir) as (source, top):
        at = in_target(place.output_dir)
        await copy_tree(source, top, target, place.archive_dir, progress, wanted_by(chosen), in_target=at)
    if chosen.include_launch_files:
        async with written(hands.ports, side.system, side.login, place.exec_dir) as (source, top):
            for name in LAUNCH_FILES:
                with suppress(FileMissing):
                    to = posixpath.join(place.archive_dir, name)
                    await copy_tree(source, posixpath.join(top, name), target, to, progress)
    return f"archived {progress}"


def _ending(job: Job) -> Ending:
    if job.observation is None or job.observation.ending is None:
        return Ending.FAILED
    return job.observation.ending
