"""Job arrays on a Kubernetes that cannot number the pods of one Job as Berth needs it: one plain Job for each task.

The *head*, a Job that is named like the marker and starts nothing, is the array: its name exists once, and it holds
which tasks there shall be and the template of their pods. A task is a Job of its own, named for the head and its index.
Whoever looks makes the tasks that are missing, so that a crash between two of them costs nothing. To everybody else
the array is shown as the one Indexed Job that it stands for.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backends.k8s.api import JOBS, Api, Refused
from backends.k8s.objects import ARRAYS_SINCE, INDEX_ANNOTATION, KEPT, MANAGED, MARKER, PREFIX, TOLD, queued_by
from backends.k8s.states import condition, failed_by_deletion, has_begun, indices_of, pod_is_over
from scheduler.model.errors import NothingLearnt
from scheduler.model.runs import ArraySpec

Object = dict[str, Any]

TASKS, AT_ONCE = PREFIX + "tasks", PREFIX + "at-once"
"""Annotations of a head: the indices of its tasks, and how many of them may run at once where that is limited."""
TASK_OF = PREFIX + "task-of"
"""Label of a task and of its pods: the id of their head, which is the run that they belong to."""

MADE_AT_ONCE = 100
"""So many tasks are made in one look at most; others wait for what is looked at."""

log = logging.getLogger(__name__)


def needs_plain_jobs(array: ArraySpec, version: tuple[int, int]) -> bool:
    """Whether one Indexed Job cannot be this array: the server is too old, or it does not count from 0."""
    return version < ARRAYS_SINCE or set(array.indices) != set(range(len(array.indices)))


def head(indexed: Object, array: ArraySpec) -> Object:
    """What stands for an array, from the Indexed Job that would run it elsewhere."""
    about = copy.deepcopy(indexed["metadata"])
    about["annotations"][TASKS] = array.ranges
    if array.limit:
        about["annotations"][AT_ONCE] = str(array.limit)
    template = indexed["spec"]["template"]
    spec = {"parallelism": 0, "completions": len(set(array.indices)), "backoffLimit": 0, "template": template}
    return {**indexed, "metadata": about, "spec": spec}


def is_head(job: Object) -> bool:
    return TASKS in job["metadata"].get("annotations", {})


def task_name(head: Object, number: int) -> str:
    """The name of the Job that runs one task."""
    return f"{head['metadata']['name']}-{number}"


def indices(head: Object) -> list[int]:
    """The tasks that a head asks for."""
    return indices_of(head["metadata"]["annotations"][TASKS])


def index(one: Object) -> int:
    """Which task of its array a Job is, or a pod belongs to."""
    return int(one["metadata"]["annotations"][INDEX_ANNOTATION])


def task(head: Object, number: int, queue: str | None) -> Object:
    """The Job that runs one task. Its pod knows its index as that of an Indexed Job does."""
    about = head["metadata"]
    labels = {**MANAGED, MARKER: about["labels"][MARKER], TASK_OF: about["uid"]}
    noted = head["spec"]["template"]["metadata"]["annotations"]
    of_pod = {"labels": labels, "annotations": {**noted, INDEX_ANNOTATION: str(number)}, "finalizers": [KEPT]}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": about["name"], "uid": about["uid"]}
    made = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": task_name(head, number),
            "labels": dict(labels),
            "annotations": {INDEX_ANNOTATION: str(number)},
            "ownerReferences": [owner],
            "finalizers": [KEPT],
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {"metadata": of_pod, "spec": head["spec"]["template"]["spec"]},
        },
    }
    return made if queue is None else queued_by(queue, made)


def tasks_by_head(jobs: Iterable[Object]) -> Mapping[str, list[Object]]:
    """Those of some Jobs that run a task, by the id of their head."""
    found: dict[str, list[Object]] = defaultdict(list)
    for job in jobs:
        if (uid := job["metadata"].get("labels", {}).get(TASK_OF)) is not None:
            found[uid].append(job)
    return found


def joined(head: Object, tasks: Sequence[Object], pods: Sequence[Object]) -> Object:
    """The Indexed Job that a head and its tasks stand for. pods: of all of them.

    A task whose Job was deleted is over when its pods are. Where the head was deleted too the array was cancelled;
    that shows once all that had not ended is being deleted.
    """
    pods_of: dict[int, list[Object]] = defaultdict(list)
    for pod in pods:
        pods_of[index(pod)].append(pod)
    about = dict(head["metadata"])
    was_deleted = about.pop("deletionTimestamp", None)
    done: list[Object] = []
    failed: list[Object] = []
    open_: list[Object] = []
    for one in tasks:
        is_gone = was_deleted is None and _is_deleted(one) and all(map(pod_is_over, pods_of[index(one)]))
        (done if _is_complete(one) else failed if _has_failed(one) or is_gone else open_).append(one)
    if was_deleted is not None and all(map(_is_deleted, open_)):
        about["deletionTimestamp"] = was_deleted
    count = len(indices(head))
    status = {
        "completedIndexes": _text(done),
        "failedIndexes": _text(failed),
        "ready": sum(any(map(has_begun, pods_of[index(one)])) for one in open_),
    }
    if len(done) + len(failed) == count:
        end = _end_of(done, failed)
        status |= {"conditions": [end], "completionTime": end["lastTransitionTime"]}
    spec = {**head["spec"], "backoffLimitPerIndex": 0}
    return {**head, "metadata": about, "spec": spec, "status": status}


def may_run(head: Object, tasks: Iterable[Object]) -> bool:
    """Whether an array may yet have a pod: it is not over, or a task of it is there that nobody ended."""
    told = TOLD in head["metadata"].get("annotations", {})
    return not told or any(map(_goes_on, tasks))


class PlainArrays:
    """Makes and ends the tasks of arrays. queue: the LocalQueue of Kueue that lets each of them start."""

    def __init__(self, api: Api, queue: str | None) -> None:
        self._api, self._queue = api, queue
        self._refusals: dict[str, str] = {}

    def refusal(self, head: Object) -> str:
        """Why the server made no task of an array at the last try, in its words; empty where it made some."""
        return self._refusals.get(head["metadata"]["uid"], "")

    async def seen(self, head: Object) -> tuple[Object, list[Object]]:
        """A head and its tasks as they are now; the head as it was known where it has gone."""
        listed = (await self._api.list(JOBS, {MARKER: head["metadata"]["labels"][MARKER]})).items
        uid = head["metadata"]["uid"]
        return next((one for one in listed if one["metadata"]["uid"] == uid), head), tasks_by_head(listed)[uid]

    async def tend(self, head: Object, tasks: Sequence[Object]) -> None:
        """Make what is missing of an array; end what goes on of one that was deleted. What fails now is tried again."""
        try:
            if _is_deleted(head):
                await self.end(tasks)
            elif len(tasks) < head["spec"]["completions"]:
                await self._make_missing(head)
        except NothingLearnt as error:
            log.warning("tasks of %s are tended later: %s", head["metadata"]["name"], error)

    async def cancel(self, head: Object) -> bool:
        """Delete an array and its tasks, in this order: a head that was deleted gets no more. Whether any was made."""
        head, tasks = await self.seen(head)
        if len(tasks) == head["spec"]["completions"] and not any(map(_goes_on, tasks)):
            return True
        await self._api.delete(JOBS, head["metadata"]["name"])
        _, tasks = await self.seen(head)
        await self.end(tasks)
        return bool(tasks)

    async def end(self, tasks: Sequence[Object]) -> None:
        """Delete the tasks that have not ended, and their pods before them."""
        names = [one["metadata"]["name"] for one in tasks if _goes_on(one)]
        await asyncio.gather(*(self._api.delete(JOBS, name, foreground=True) for name in names))

    async def _make_missing(self, head: Object) -> None:
        """In their order, as many as may run at once. Others may do the same: a name exists once."""
        head, tasks = await self.seen(head)
        about = head["metadata"]
        if _is_deleted(head) or TOLD in about["annotations"]:
            return
        there = {index(one) for one in tasks}
        missing = [number for number in indices(head) if number not in there]
        room = MADE_AT_ONCE
        if AT_ONCE in about["annotations"]:
            room = min(room, int(about["annotations"][AT_ONCE]) - sum(map(_goes_on, tasks)))
        for number in missing[: max(0, room)]:
            try:
                await self._api.create(JOBS, task(head, number, self._queue))
            except Refused as refused:
                if not refused.exists:
                    self._refusals[about["uid"]] = str(refused)
                    raise
        self._refusals.pop(about["uid"], None)
        head, tasks = await self.seen(head)
        if _is_deleted(head):  # meanwhile, by somebody who did not see the last of them
            await self.end(tasks)


# -- pieces ------------------------------------------------------------------------------------------------------------


def _text(tasks: Iterable[Object]) -> str:
    return ",".join(map(str, sorted(map(index, tasks))))


def _is_deleted(one: Object) -> bool:
    return "deletionTimestamp" in one["metadata"]


def _is_complete(one: Object) -> bool:
    return condition(one.get("status", {}), "Complete") is not None


def _has_failed(one: Object) -> bool:
    failed = condition(one.get("status", {}), "Failed")
    return failed is not None and not failed_by_deletion(one, failed)


def _goes_on(one: Object) -> bool:
    return not (_is_complete(one) or _has_failed(one) or _is_deleted(one))


def _end_of(done: Sequence[Object], failed: Sequence[Object]) -> Object:
    """The condition with which an Indexed Job ends whose tasks all have."""
    ends = [each for one in (*done, *failed) for each in one.get("status", {}).get("conditions") or ()]
    stamps = [str(each["lastTransitionTime"]) for each in ends if each["type"] in ("Complete", "Failed")]
    stamps += [str(one["metadata"]["deletionTimestamp"]) for one in failed if _is_deleted(one)]
    said = {"status": "True", "lastTransitionTime": max(stamps)}
    if not failed:
        return {**said, "type": "Complete"}
    words = f"{len(failed)} of {len(done) + len(failed)} tasks failed"
    return {**said, "type": "Failed", "reason": "FailedIndexes", "message": words}
