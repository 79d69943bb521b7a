"""Kubernetes' words in ours, by streams that a real server sent."""

import json
from pathlib import Path

import pytest

from backends.k8s import states
from backends.k8s.api import Event, parse_event
from backends.k8s.states import observation, pod_is_over, tasks_of, waiting_of
from scheduler.model.errors import UnexpectedReply
from scheduler.model.runs import Ending, RemoteState

DATA = Path(__file__).parent.parent / "data/k8s/v1.36"


def stream(name: str) -> list[Event]:
    return [parse_event(line) for line in (DATA / f"{name}.watch.jsonl").read_text().splitlines()]


def story(name: str) -> list[tuple[dict, list[dict]]]:
    """Every state that a Job and its pods were seen in, in the order of the server's versions."""
    events = [*stream("jobs"), *stream("pods")]
    events = [event for event in events if event.kind != "BOOKMARK"]
    events.sort(key=lambda event: int(event.object["metadata"]["resourceVersion"]))
    job, pods, seen = None, {}, []
    for event in events:
        about = event.object["metadata"]
        if about["name"] == name:
            job = event.object
        elif job and any(owner["uid"] == job["metadata"]["uid"] for owner in about.get("ownerReferences", [])):
            pods[about["name"]] = event.object
        else:
            continue
        if job is not None:
            seen.append((job, list(pods.values())))
    return seen


def states_of(name: str) -> list:
    return [observation(job, pods) for job, pods in story(name)]


def test_a_job_waits_then_runs_then_ends_and_never_goes_back():
    order = [RemoteState.QUEUED, RemoteState.RUNNING, RemoteState.ENDED]
    for name in ("berth-ok-1", "berth-fail-1", "berth-array-1", "berth-suspended-1", "berth-cancelled-1"):
        places = [order.index(seen.state) for seen in states_of(name)]
        assert places == sorted(places), name
        assert set(places) == {0, 1, 2}, name


@pytest.mark.parametrize(
    ("name", "ending", "exit_code"),
    [
        ("berth-ok-1", Ending.COMPLETED, 0),
        ("berth-fail-1", Ending.FAILED, 7),
        ("berth-suspended-1", Ending.COMPLETED, 0),
        ("berth-deadline-1", Ending.TIMEOUT, None),
        ("berth-cancelled-1", Ending.CANCELLED, None),
    ],
)
def test_each_end_has_its_word_and_its_code(name, ending, exit_code):
    last = states_of(name)[-1]
    assert (last.state, last.ending, last.exit_code) == (RemoteState.ENDED, ending, exit_code)
    assert last.ended_at is not None
    assert last.submitted_at is not None
    assert last.ended_at >= last.submitted_at


def test_the_conditions_that_come_before_the_end_are_not_the_end():
    between = [
        observation(job, pods)
        for job, pods in story("berth-fail-1")
        if [each["type"] for each in job["status"].get("conditions", [])] == ["FailureTarget"]
    ]
    assert between
    assert all(seen.state is RemoteState.RUNNING for seen in between)


def test_a_job_that_no_node_can_take_says_so_for_people():
    last = states_of("berth-toolarge-1")[-1]
    assert last.state is RemoteState.QUEUED
    assert last.reason.startswith("Unschedulable: 0/2 nodes are available")
    assert (last.reason_words, last.decided_by) == states.WAITING["Unschedulable"]


def test_a_suspended_job_waits_for_the_clusters_queue():
    suspended = [seen for seen in states_of("berth-suspended-1") if seen.reason == "Suspended"]
    assert suspended
    assert all(seen.state is RemoteState.QUEUED for seen in suspended)


def test_the_tasks_of_an_array_are_counted():
    counts = [tasks_of(job) for job, _ in story("berth-array-1")]
    assert [each.completed for each in counts] == sorted(each.completed for each in counts)
    assert (counts[-1].completed, counts[-1].queued, counts[-1].running, counts[-1].failed) == (4, 0, 0, 0)
    assert all(each.queued + each.running + each.completed + each.failed == 4 for each in counts)
    assert tasks_of(story("berth-ok-1")[0][0]) is None


def finished(reason: str, *, pod_reason: str = "", container: str = "Error", disrupted: str = "", code: int = 1):
    """A Job that failed, and its only pod."""
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": disrupted}] if disrupted else []
    terminated = {"exitCode": code, "reason": container, "finishedAt": "2026-11-22T00:41:10Z"}
    status = {
        "phase": "Failed",
        "reason": pod_reason,
        "conditions": conditions,
        "containerStatuses": [{"name": "main", "state": {"terminated": terminated}}],
    }
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}, "status": status}
    failed = {"type": "Failed", "status": "True", "reason": reason, "lastTransitionTime": "2026-11-22T00:41:12Z"}
    job = {"metadata": {"name": "j"}, "spec": {}, "status": {"conditions": [failed]}}
    return observation(job, [pod])


@pytest.mark.parametrize(
    ("how", "ending"),
    [
        ({}, Ending.FAILED),
        ({"container": "OOMKilled", "code": 137}, Ending.OUT_OF_MEMORY),
        ({"container": "StartError", "code": 128}, Ending.LAUNCH_FAILURE),
        ({"pod_reason": "Evicted"}, Ending.PREEMPTED),
        ({"pod_reason": "DeadlineExceeded"}, Ending.TIMEOUT),
        ({"disrupted": "PreemptionByScheduler"}, Ending.PREEMPTED),
        ({"disrupted": "DeletionByTaintManager"}, Ending.NODE_FAILURE),
    ],
)
def test_why_a_pod_failed_is_how_the_run_ended(how, ending):
    seen = finished("BackoffLimitExceeded", **how)
    assert seen.ending is ending
    assert seen.exit_code == how.get("code", 1)


def test_a_job_that_failed_for_an_unknown_reason_is_not_guessed_at():
    with pytest.raises(UnexpectedReply) as raised:
        finished("GoneFishing")
    assert "GoneFishing" in raised.value.raw


def test_a_phase_that_nobody_knows_is_not_guessed_at():
    job, pods = story("berth-ok-1")[3]
    odd = {**pods[0], "status": {**pods[0]["status"], "phase": "Dreaming"}}
    with pytest.raises(UnexpectedReply):
        observation(job, [odd])


def pod(*, node: str = "", deleted: bool = False, grace_s: int | None = None, phase: str = "Pending") -> dict:
    about = {"name": "p", **({"deletionTimestamp": "2026-11-22T00:41:10Z"} if deleted else {})}
    about |= {} if grace_s is None else {"deletionGracePeriodSeconds": grace_s}
    return {"metadata": about, "spec": {"nodeName": node} if node else {}, "status": {"phase": phase}}


def test_a_pod_is_over_when_its_node_says_so_or_it_never_had_one():
    assert not pod_is_over(pod(node="n1", phase="Running"))
    assert not pod_is_over(pod(node="n1", deleted=True, grace_s=30, phase="Running"))
    assert pod_is_over(pod(node="n1", deleted=True, grace_s=0, phase="Running"))
    assert pod_is_over(pod(deleted=True))
    assert pod_is_over(pod(node="n1", phase="Succeeded"))


def test_a_job_that_is_being_deleted_runs_until_its_pods_are_over():
    job = {"metadata": {"name": "j", "deletionTimestamp": "2026-11-22T00:41:10Z"}, "spec": {}, "status": {}}
    still = observation(job, [pod(node="n1", deleted=True, grace_s=10, phase="Running")])
    assert still.state is RemoteState.RUNNING
    over = observation(job, [pod(node="n1", deleted=True, grace_s=0, phase="Running")])
    assert (over.state, over.ending) == (RemoteState.ENDED, Ending.CANCELLED)


@pytest.mark.parametrize(
    ("deleted_at", "reason", "ending"),
    [
        ("2026-11-22T00:41:10Z", "BackoffLimitExceeded", Ending.CANCELLED),
        ("2026-11-22T00:41:13Z", "BackoffLimitExceeded", Ending.FAILED),
        ("2026-11-22T00:41:10Z", "DeadlineExceeded", Ending.TIMEOUT),
    ],
    ids=["deleted, so it failed", "failed, then deleted", "its time was over"],
)
def test_a_job_that_fails_because_it_is_deleted_was_cancelled(deleted_at, reason, ending):
    failed = {"type": "Failed", "status": "True", "reason": reason, "lastTransitionTime": "2026-11-22T00:41:12Z"}
    job = {"metadata": {"name": "j", "deletionTimestamp": deleted_at}, "spec": {}, "status": {"conditions": [failed]}}
    seen = observation(job, [pod(node="n1", deleted=True, grace_s=0, phase="Failed")])
    assert (seen.state, seen.ending) == (RemoteState.ENDED, ending)


def test_what_a_quota_refuses_is_told_apart_from_other_refusals():
    job = {"metadata": {"name": "j"}, "spec": {}, "status": {}}
    quota = (
        'Error creating: pods "x" is forbidden: exceeded quota: small, requested: cpu=4, used: cpu=2, limited: cpu=4'
    )
    assert waiting_of(job, [], quota) == ("QuotaExceeded", quota)
    assert waiting_of(job, [], "Error creating: no")[0] == "FailedCreate"
    assert waiting_of(job, []) == ("", "")


def test_a_container_that_cannot_be_pulled_is_told_before_one_that_is_being_made():
    waits = [{"name": name, "state": {"waiting": {"reason": reason}}}
             for name, reason in (("a", "PodInitializing"), ("main", "ImagePullBackOff"))]  # fmt: skip
    told = pod(node="n1")
    told["status"]["containerStatuses"] = waits
    assert waiting_of({"metadata": {}, "spec": {}}, [told])[0] == "ImagePullBackOff"


def test_indexes_are_read_as_the_server_writes_them():
    assert states.indices_of("0,2-4") == [0, 2, 3, 4]
    assert states.indices_of("") == []
    with pytest.raises(UnexpectedReply):
        states.indices_of("1-x")


def test_errors_of_the_server_are_told_apart():
    from backends.k8s.api import Refused, error_of
    from scheduler.model.errors import BackendUnavailable, NotAuthorised

    def told(name: str) -> Exception:
        said = json.loads((DATA / f"{name}.json").read_text())
        return error_of(said["code"], said["reason"], said["message"])

    conflict = told("create-conflict")
    assert isinstance(conflict, Refused)
    assert conflict.exists
    assert isinstance(told("unauthorised"), NotAuthorised)
    rbac = 'jobs.batch is forbidden: User "bob" cannot create resource "jobs" in API group "batch"'
    assert isinstance(error_of(403, "Forbidden", rbac), NotAuthorised)
    assert isinstance(error_of(403, "Forbidden", 'pods "x" is forbidden: exceeded quota: small'), Refused)
    assert isinstance(error_of(429, "TooManyRequests", "slow down"), BackendUnavailable)
    assert isinstance(error_of(503, "", "starting"), BackendUnavailable)
