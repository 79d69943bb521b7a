"""Kubernetes' words in ours: what a Job and its pods say of a run. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from backends.k8s.objects import INDEX_ANNOTATION, MAIN
from scheduler.model.errors import UnexpectedReply
from scheduler.model.runs import Ending, Observation, RemoteState, TaskCounts

Object = dict[str, Any]


class Waiting(NamedTuple):
    """Why a run has not begun: a clause that follows "it waits because", and who decides when that ends."""

    words: str
    decided_by: str


JOB_ENDINGS: Mapping[str, Ending | None] = MappingProxyType(
    {
        "BackoffLimitExceeded": None,
        "PodFailurePolicy": None,
        "FailedIndexes": Ending.FAILED,
        "MaxFailedIndexesExceeded": Ending.FAILED,
        "DeadlineExceeded": Ending.TIMEOUT,
    }
)
"""Reason of a Job's Failed condition -> how it ended; None: its pods say it."""

POD_ENDINGS: Mapping[str, Ending] = MappingProxyType(
    {
        "DeadlineExceeded": Ending.TIMEOUT,
        "Evicted": Ending.PREEMPTED,
        "Preempting": Ending.PREEMPTED,
        "PreemptionByScheduler": Ending.PREEMPTED,
        "EvictionByEvictionAPI": Ending.PREEMPTED,
        "TerminationByKubelet": Ending.PREEMPTED,
        "DeletionByTaintManager": Ending.NODE_FAILURE,
        "DeletionByPodGC": Ending.NODE_FAILURE,
        "NodeLost": Ending.NODE_FAILURE,
        "NodeShutdown": Ending.NODE_FAILURE,
        "Shutdown": Ending.NODE_FAILURE,
        "Terminated": Ending.NODE_FAILURE,
        "NodeAffinity": Ending.LAUNCH_FAILURE,
        "UnexpectedAdmissionError": Ending.LAUNCH_FAILURE,
        "OutOfcpu": Ending.LAUNCH_FAILURE,
        "OutOfmemory": Ending.LAUNCH_FAILURE,
        "OutOfpods": Ending.LAUNCH_FAILURE,
    }
)
"""Reason of a pod, or of its DisruptionTarget condition -> how the run ended. Others leave it to the container."""

CONTAINER_ENDINGS: Mapping[str, Ending] = MappingProxyType(
    {
        "OOMKilled": Ending.OUT_OF_MEMORY,
        "DeadlineExceeded": Ending.TIMEOUT,
        "ContainerCannotRun": Ending.LAUNCH_FAILURE,
        "StartError": Ending.LAUNCH_FAILURE,
        "ContainerStatusUnknown": Ending.NODE_FAILURE,
    }
)
"""Reason of a container's end -> how the run ended. Others leave it to the exit code."""

_IMAGE = "its image cannot be pulled"
WAITING: Mapping[str, Waiting] = MappingProxyType(
    {
        "Unschedulable": Waiting("no node has room for it", "jobs that run or wait before it"),
        "SchedulingGated": Waiting("something on the cluster holds it back", "the cluster's administrators"),
        "Suspended": Waiting("the cluster's queue has not admitted it", "jobs that run or wait before it"),
        "FailedCreate": Waiting("the cluster refuses to create its pod", "the cluster's administrators"),
        "QuotaExceeded": Waiting("the quota of the namespace is used up", "jobs that run or wait before it"),
        "ErrImagePull": Waiting(_IMAGE, "the job's owner"),
        "ImagePullBackOff": Waiting(_IMAGE, "the job's owner"),
        "InvalidImageName": Waiting("the name of its image is not valid", "the job's owner"),
        "ErrImageNeverPull": Waiting("its image is not on the node", "the cluster's administrators"),
        "ImageInspectError": Waiting("its image cannot be read on the node", "the cluster's administrators"),
        "CrashLoopBackOff": Waiting("its container ends again and again", "the job's owner"),
        "CreateContainerConfigError": Waiting("its container cannot be set up", "the cluster's administrators"),
        "CreateContainerError": Waiting("its container cannot be created", "the cluster's administrators"),
        "RunContainerError": Waiting("its container cannot be started", "the job's owner"),
        "ContainerCreating": Waiting("its container is being created", "the cluster"),
        "PodInitializing": Waiting("its container is being prepared", "the cluster"),
    }
)

PHASES = frozenset({"Pending", "Running", "Succeeded", "Failed", "Unknown"})
_PASSING = frozenset({"ContainerCreating", "PodInitializing"})
"""Reasons to wait that are nobody's to change."""


def observation(found: Object, pods: Sequence[Object], refusal: str = "") -> Observation:
    """What a Job and its pods say of the run now. UnexpectedReply for words that are not known.

    refusal: why the cluster does not create its pod, in its own words, where an event says so.
    """
    for pod in pods:
        if pod.get("status", {}).get("phase", "Pending") not in PHASES:
            raise UnexpectedReply("the phase of a pod was not understood", json.dumps(pod.get("status")))
    status = found.get("status", {})
    complete, failed = condition(status, "Complete"), condition(status, "Failed")
    if complete is not None:
        return _ended(found, pods, Ending.COMPLETED, complete)
    if failed is not None and not failed_by_deletion(found, failed):
        return _ended(found, pods, _ending_of(failed, pods), failed)
    if "deletionTimestamp" in found["metadata"] and all(map(pod_is_over, pods)):
        deleted = {"reason": "Deleted", "lastTransitionTime": found["metadata"]["deletionTimestamp"]}
        return _ended(found, pods, Ending.CANCELLED, deleted)
    begun = [pod for pod in pods if has_begun(pod)]
    shared = _shared(found, pods)
    if begun:
        return Observation(state=RemoteState.RUNNING, raw_state="Running", **shared)
    reason, words = waiting_of(found, pods, refusal)
    known = WAITING.get(reason)
    return Observation(
        state=RemoteState.QUEUED,
        raw_state="Pending" if pods else "Created",
        reason=f"{reason}: {words}" if words else reason,
        reason_words=known.words if known else "",
        decided_by=known.decided_by if known else "",
        **shared,
    )


def waiting_of(found: Object, pods: Sequence[Object], refusal: str = "") -> tuple[str, str]:
    """Why a run has not begun: Kubernetes' word and sentence; both empty where nothing is said."""
    for pod in pods:
        told = pod_waits_for(pod)
        if told[0]:
            return told
    if not pods and found.get("spec", {}).get("suspend"):
        return "Suspended", ""
    if not pods and refusal:
        return ("QuotaExceeded" if "exceeded quota" in refusal else "FailedCreate"), refusal
    return "", ""


def pod_waits_for(pod: Object) -> tuple[str, str]:
    """Why a pod does not run yet, the worst word of its containers first."""
    status = pod.get("status", {})
    unbound = (each for each in status.get("conditions", []) if each["type"] == "PodScheduled")
    if (scheduled := next(unbound, None)) is not None and scheduled["status"] == "False":
        return str(scheduled.get("reason", "")), str(scheduled.get("message", ""))
    waits = [each["state"]["waiting"] for each in _containers(status) if "waiting" in each.get("state", {})]
    waits.sort(key=lambda state: state.get("reason") in _PASSING)
    return (str(waits[0].get("reason", "")), str(waits[0].get("message", ""))) if waits else ("", "")


def has_begun(pod: Object) -> bool:
    """Whether the user's code has begun in a pod, as far as its node has said."""
    status = pod.get("status", {})
    if status.get("phase") in ("Running", "Succeeded"):
        return True
    return any(
        "running" in state or "terminated" in state
        for each in status.get("containerStatuses", [])
        for state in (each.get("state", {}), each.get("lastState", {}))
    )


def pod_is_over(pod: Object) -> bool:
    """Whether nothing of a pod runs or ever will: its node said so, or it has none and is being deleted."""
    status, about = pod.get("status", {}), pod["metadata"]
    if status.get("phase") in ("Succeeded", "Failed"):
        return True
    if "deletionTimestamp" not in about:
        return False
    return not pod.get("spec", {}).get("nodeName") or about.get("deletionGracePeriodSeconds") == 0


def tasks_of(found: Object) -> TaskCounts | None:
    """The tasks of a job array; None where the Job is none."""
    spec, status = found.get("spec", {}), found.get("status", {})
    if "backoffLimitPerIndex" not in spec:
        return None
    completed, failed = indices_of(status.get("completedIndexes", "")), indices_of(status.get("failedIndexes", ""))
    running = min(int(status.get("ready", 0) or 0), int(spec["completions"]) - len(completed) - len(failed))
    queued = int(spec["completions"]) - len(completed) - len(failed) - running
    return TaskCounts(
        queued=queued, running=running, completed=len(completed), failed=len(failed), failed_indices=tuple(failed)
    )


def indices_of(text: str) -> list[int]:
    """``0,2-4`` as numbers."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise UnexpectedReply("the indexes of a Job were not understood", text)
        found += range(int(first), int(last or first) + 1)
    return found


def index_of(pod: Object) -> int:
    """Which of a Job's pods this is."""
    text = pod["metadata"].get("annotations", {}).get(INDEX_ANNOTATION, "0")
    return int(text) if text.isdigit() else 0


def instant(text: str | None) -> datetime | None:
    """An instant as the API writes it."""
    return datetime.fromisoformat(text) if text else None


def condition(status: Mapping[str, Any], kind: str) -> Object | None:
    """The condition of this kind, where it is true."""
    true = (each for each in status.get("conditions") or () if each["type"] == kind and each["status"] == "True")
    return next(true, None)


def failed_by_deletion(found: Object, failed: Object) -> bool:
    """Whether a Job failed because it was deleted: older controllers count the pods that this ends as failures."""
    deleted_at = found["metadata"].get("deletionTimestamp")
    because_of_pods = JOB_ENDINGS.get(str(failed.get("reason")), Ending.FAILED) is None
    return deleted_at is not None and because_of_pods and str(deleted_at) <= str(failed.get("lastTransitionTime"))


# -- pieces ------------------------------------------------------------------------------------------------------------


def _ending_of(failed: Mapping[str, Any], pods: Sequence[Object]) -> Ending:
    reason = failed.get("reason", "")
    if reason not in JOB_ENDINGS:
        raise UnexpectedReply("why a Job failed was not understood", json.dumps(failed))
    ending = JOB_ENDINGS[reason]
    if ending is not None:
        return ending
    return next((_pod_ending(pod) for pod in _failed_first(pods)), Ending.FAILED)


def _failed_first(pods: Sequence[Object]) -> list[Object]:
    ended = [pod for pod in pods if pod.get("status", {}).get("phase") == "Failed"]
    return sorted(ended, key=lambda pod: str((_terminated(pod) or {}).get("finishedAt", "~")))


def _pod_ending(pod: Object) -> Ending:
    status, ended = pod.get("status", {}), _terminated(pod)
    disrupted = condition(status, "DisruptionTarget") or {}
    for reason in (status.get("reason"), disrupted.get("reason")):
        if reason in POD_ENDINGS:
            return POD_ENDINGS[str(reason)]
    return CONTAINER_ENDINGS.get(str((ended or {}).get("reason")), Ending.FAILED)


def _terminated(pod: Object) -> Object | None:
    for each in pod.get("status", {}).get("containerStatuses", []):
        if each["name"] == MAIN and "terminated" in each.get("state", {}):
            return dict(each["state"]["terminated"])
    return None


def _ended(found: Object, pods: Sequence[Object], ending: Ending, why: Mapping[str, Any]) -> Observation:
    last = _failed_first(pods) if ending is not Ending.COMPLETED else list(pods)
    ended = next((state for pod in last if (state := _terminated(pod)) is not None), {})
    pod_reason = next((pod["status"]["reason"] for pod in last if pod.get("status", {}).get("reason")), "")
    words = [word for word in (pod_reason, ended.get("reason"), why.get("message")) if word and word != "Completed"]
    ended_at = found.get("status", {}).get("completionTime") or ended.get("finishedAt") or why["lastTransitionTime"]
    code = ended.get("exitCode")
    return Observation(
        state=RemoteState.ENDED,
        raw_state="Complete" if ending is Ending.COMPLETED else str(why.get("reason", "Failed")),
        reason="" if ending is Ending.COMPLETED else ": ".join(dict.fromkeys(map(str, words))),
        ending=ending,
        exit_code=0 if code is None and ending is Ending.COMPLETED else code,
        ended_at=instant(ended_at),
        **_shared(found, pods),
    )


def _shared(found: Object, pods: Sequence[Object]) -> dict[str, Any]:
    starts = [
        state["startedAt"]
        for pod in pods
        for each in pod.get("status", {}).get("containerStatuses", [])
        for state in each.get("state", {}).values()
        if state.get("startedAt")
    ]
    # A pod that was only created is the first of its index; each further one of the same index is a restart.
    again = len(pods) - len({index_of(pod) for pod in pods})
    return {
        "submitted_at": instant(found["metadata"].get("creationTimestamp")),
        "started_at": instant(min(starts)) if starts else None,
        "nodes": ",".join(sorted({str(name) for pod in pods if (name := pod.get("spec", {}).get("nodeName"))})),
        "restarts": again,
        "tasks": tasks_of(found),
    }


def _containers(status: Mapping[str, Any]) -> list[Object]:
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
