"""An array of plain Jobs, shown as the one Indexed Job that it stands for."""

from dataclasses import replace

import pytest

from backends.k8s import arrays, objects
from backends.k8s.site import Site
from backends.k8s.states import observation
from scheduler.model.runs import ArraySpec, Ending, RemoteState
from tests.backends.test_k8s_objects import MARKER, RUN, SITE

THREE = ArraySpec((0, 1, 5))
SEEN_AT, LATER = "2026-11-22T00:41:10Z", "2026-11-22T00:41:12Z"


def head(array: ArraySpec = THREE, site: Site = SITE, *, deleted: bool = False) -> dict:
    """A head as its server keeps it."""
    made = arrays.head(objects.job(MARKER, replace(RUN, array=array), site, "/work"), array)
    made["metadata"] |= {"uid": "head-uid", "creationTimestamp": SEEN_AT}
    made["metadata"] |= {"deletionTimestamp": LATER} if deleted else {}
    return made


def task(index: int, end: str = "", *, deleted: bool = False) -> dict:
    """A task as its server keeps it. end: Complete or Failed."""
    made = arrays.task(head(), index, None)
    condition = {"type": end, "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": LATER}
    made["status"] = {"conditions": [condition]} if end else {}
    made["metadata"] |= {"deletionTimestamp": SEEN_AT} if deleted else {}
    return made


def pod(index: int, phase: str, code: int = 0) -> dict:
    made = arrays.task(head(), index, None)["spec"]["template"]
    state = {"running": {"startedAt": SEEN_AT}} if phase == "Running" else {}
    if phase in ("Succeeded", "Failed"):
        state = {"terminated": {"exitCode": code, "reason": "Error", "startedAt": SEEN_AT, "finishedAt": LATER}}
    status = {"phase": phase, "containerStatuses": [{"name": objects.MAIN, "state": state}]}
    return {"metadata": {**made["metadata"], "name": f"p{index}"}, "spec": {"nodeName": "n1"}, "status": status}


def seen(tasks: list[dict], pods: list[dict], *, deleted: bool = False):
    return observation(arrays.joined(head(deleted=deleted), tasks, pods), pods)


@pytest.mark.parametrize(
    ("indices", "version", "plain"),
    [((0, 1), (1, 28), True), ((0, 1), (1, 29), False), ((1, 2), (1, 36), True), ((0, 2), (1, 36), True)],
)
def test_what_one_indexed_job_cannot_be_is_made_of_plain_ones(indices, version, plain):
    assert arrays.needs_plain_jobs(ArraySpec(indices), version) is plain


def test_a_head_has_the_name_starts_nothing_and_says_which_tasks_there_shall_be():
    made = head(ArraySpec((7, 0, 1), limit=2))
    assert made["metadata"]["name"] == MARKER
    assert made["spec"]["parallelism"] == 0
    assert not {"completionMode", "backoffLimitPerIndex", "suspend"} & made["spec"].keys()
    assert arrays.indices(made) == [0, 1, 7]
    assert made["metadata"]["annotations"][arrays.AT_ONCE] == "2"
    assert objects.is_ours(made, MARKER)
    assert arrays.is_head(made)


def test_a_task_is_named_for_its_index_and_its_pod_knows_it_as_in_an_indexed_job():
    made = task(5)
    template = made["spec"]["template"]
    assert made["metadata"]["name"] == f"{MARKER}-5"
    assert made["metadata"]["finalizers"] == template["metadata"]["finalizers"] == [objects.KEPT]
    assert template["metadata"]["labels"][arrays.TASK_OF] == made["metadata"]["labels"][arrays.TASK_OF] == "head-uid"
    (variable,) = template["spec"]["containers"][0]["env"]
    assert variable["name"] == objects.TASK_VARIABLE
    assert template["metadata"]["annotations"][objects.INDEX_ANNOTATION] == "5"
    assert not arrays.is_head(made)


def test_the_longest_name_of_a_task_is_one_that_kubernetes_takes():
    longest = {"metadata": {"name": MARKER.rpartition("-")[0] + "-999999"}}
    assert len(arrays.task_name(longest, 9_999_999)) <= 63


def test_a_queue_admits_each_task_and_not_the_head():
    waits = arrays.task(head(site=Site(queue="lab")), 0, "lab")
    assert waits["spec"]["suspend"] is True
    assert waits["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "lab"


def test_an_array_waits_then_runs_and_ends_when_all_its_tasks_have():
    assert seen([], []).state is RemoteState.QUEUED
    some = seen([task(0, "Complete"), task(1)], [pod(0, "Succeeded"), pod(1, "Running")])
    assert some.state is RemoteState.RUNNING
    assert (some.tasks.completed, some.tasks.running, some.tasks.queued) == (1, 1, 1)
    all_pods = [pod(index, "Succeeded") for index in (0, 1, 5)]
    done = seen([task(index, "Complete") for index in (0, 1, 5)], all_pods)
    assert (done.state, done.ending, done.exit_code) == (RemoteState.ENDED, Ending.COMPLETED, 0)
    assert done.ended_at.isoformat() == "2026-11-22T00:41:12+00:00"


def test_a_task_that_fails_fails_the_array_once_the_others_have_ended():
    tasks = [task(0, "Complete"), task(1, "Complete"), task(5, "Failed")]
    pods = [pod(0, "Succeeded"), pod(1, "Succeeded"), pod(5, "Failed", code=3)]
    assert seen([task(0), *tasks[1:]], [pod(0, "Running"), *pods[1:]]).state is RemoteState.RUNNING
    told = seen(tasks, pods)
    assert (told.ending, told.exit_code, told.tasks.failed_indices) == (Ending.FAILED, 3, (5,))
    assert "1 of 3 tasks failed" in told.reason


def test_a_task_that_somebody_deleted_has_failed_when_its_pod_is_over():
    others = [task(0, "Complete"), task(1, "Complete")]
    pods = [pod(0, "Succeeded"), pod(1, "Succeeded")]
    still = seen([*others, task(5, deleted=True)], [*pods, pod(5, "Running")])
    assert still.state is RemoteState.RUNNING
    over = seen([*others, task(5, "Failed", deleted=True)], [*pods, pod(5, "Failed", code=137)])
    assert (over.ending, over.tasks.failed_indices) == (Ending.FAILED, (5,))


def test_a_deleted_array_is_cancelled_when_nothing_of_it_runs_or_will():
    assert seen([task(0)], [pod(0, "Running")], deleted=True).state is RemoteState.RUNNING
    assert seen([task(0)], [], deleted=True).state is RemoteState.QUEUED, "its task may yet have a pod"
    gone = [task(0, "Complete"), task(1, "Failed", deleted=True)]
    assert seen(gone, [pod(0, "Succeeded"), pod(1, "Running")], deleted=True).state is RemoteState.RUNNING
    over = seen(gone, [pod(0, "Succeeded"), pod(1, "Failed")], deleted=True)
    assert (over.state, over.ending) == (RemoteState.ENDED, Ending.CANCELLED)


def test_an_array_may_run_until_its_end_was_told_and_no_task_goes_on():
    told = head()
    told["metadata"]["annotations"][objects.TOLD] = LATER
    assert arrays.may_run(head(), [])
    assert arrays.may_run(told, [task(0)])
    assert not arrays.may_run(told, [task(0, "Complete"), task(1, deleted=True)])
