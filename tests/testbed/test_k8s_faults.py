"""What Berth does when Kubernetes says no, falls over, or is changed behind its back: on a real control plane."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from backends.k8s.api import JOBS, PODS, Api
from backends.k8s.backend import VOID_KEPT, KubernetesBackend
from backends.k8s.login import verify
from backends.k8s.objects import MANAGED, void_job
from backends.k8s.policies import Guard
from backends.k8s.site import Access, Site
from backends.k8s.watch import Reflector
from scheduler.model.errors import (
    CredentialRefused,
    NotAuthorised,
    NothingLearnt,
    SubmitError,
    SubmitRejected,
    SubmitUncertain,
)
from scheduler.model.ids import Marker, RemoteId, marker_for, new_job_uuid
from scheduler.model.runs import Ending, RemoteState, Resources
from scheduler.model.systems import Credential
from testbed.k8s.client import client
from testbed.k8s.control_plane import ControlPlane
from tests.contract.subjects import INTENDED_AT, eventually
from tests.testbed.k8s_subject import KubernetesSubject, kubernetes, kubernetes_subject
from tests.testbed.kubernetes import made, own_namespace

pytestmark = pytest.mark.testbed

TOO_MUCH = Resources(cores_per_node=10_000)


@pytest.fixture
def admin(control_plane: ControlPlane) -> Iterator[httpx.Client]:
    with client(control_plane) as api:
        yield api


@pytest.fixture
def namespace(control_plane: ControlPlane, admin: httpx.Client) -> Iterator[str]:
    with own_namespace(control_plane, admin) as name:
        yield name


@pytest_asyncio.fixture
async def subject(control_plane: ControlPlane, admin: httpx.Client, namespace: str) -> AsyncIterator[KubernetesSubject]:
    async with kubernetes_subject(control_plane, admin, namespace) as subject:
        yield subject


@pytest.fixture
def marker() -> Marker:
    return marker_for(new_job_uuid(), 1)


async def submitted(subject: KubernetesSubject, marker: Marker, **changes: object) -> RemoteId:
    answer = (await subject.backend.submit([subject.intent(marker, **changes)]))[marker]
    assert not isinstance(answer, SubmitError), answer
    return answer


async def seen(subject: KubernetesSubject, remote_id: RemoteId, marker: Marker):
    return (await subject.backend.observe({remote_id: marker}))[remote_id]


async def waits_because(subject: KubernetesSubject, remote_id: RemoteId, marker: Marker, word: str):
    """The observation of a job that waits, once its reason is told."""
    found = []

    async def told() -> bool:
        found[:] = [await seen(subject, remote_id, marker)]
        return found[0].reason.startswith(word)

    await eventually(told, f"it waits because of {word}")
    return found[0]


# -- taking back -------------------------------------------------------------------------------------------------------


async def test_a_job_that_no_node_took_is_withdrawn_for_good(subject, marker):
    remote_id = await submitted(subject, marker, resources=TOO_MUCH)
    waits = await waits_because(subject, remote_id, marker, "Unschedulable")
    assert "no node has room" in waits.reason_words
    assert await subject.backend.withdraw(remote_id, marker) is True

    async def has_ended() -> bool:
        return (await seen(subject, remote_id, marker)).ending is Ending.CANCELLED

    await eventually(has_ended, "the withdrawn job has ended")
    assert await subject.runs_of(marker) == 0
    answer = (await subject.backend.submit([subject.intent(marker)]))[marker]
    assert answer == remote_id, "its name stays taken, so nothing starts under it again"


async def test_a_job_that_never_began_is_cancelled_with_proof(subject, marker):
    remote_id = await submitted(subject, marker, resources=TOO_MUCH)
    assert await subject.backend.cancel(remote_id, marker) is False
    assert (await seen(subject, remote_id, marker)).ending is Ending.CANCELLED


async def test_whoever_gives_a_marker_up_and_whoever_submits_it_agree(subject):
    for _ in range(8):
        marker = marker_for(new_job_uuid(), 1)
        answer, found = await asyncio.gather(
            subject.backend.submit([subject.intent(marker)]), subject.backend.find(marker, INTENDED_AT)
        )
        if found is None:
            assert isinstance(answer[marker], SubmitError)
            assert await subject.runs_of(marker) == 0
        else:
            assert answer[marker] == found


async def test_a_job_that_an_administrator_deletes_ends_as_cancelled_and_its_pod_with_it(subject, marker, namespace):
    remote_id = await submitted(subject, marker)
    await subject.running(marker)
    body = {"propagationPolicy": "Background"}
    made(subject.admin.request("DELETE", f"/apis/batch/v1/namespaces/{namespace}/jobs/{marker}", json=body))

    async def has_ended() -> bool:
        return (await seen(subject, remote_id, marker)).state is RemoteState.ENDED

    await eventually(has_ended, "the deleted job has ended")
    assert (await seen(subject, remote_id, marker)).ending is Ending.CANCELLED


# -- saying no ---------------------------------------------------------------------------------------------------------


async def test_what_this_server_would_leave_out_without_a_word_is_refused_by_its_version(
    subject, marker, control_plane
):
    answer = (await subject.backend.submit([subject.intent(marker, resources=Resources(nodes=2))]))[marker]
    is_known = control_plane.version >= (1, 22)
    assert isinstance(answer, SubmitRejected) is not is_known
    assert is_known or "1.22" in str(answer)


async def test_a_quota_of_cores_keeps_a_job_waiting_and_says_so(subject, marker, namespace):
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"requests.cpu": "2"}}}
    made(subject.admin.post(f"/api/v1/namespaces/{namespace}/resourcequotas", json=quota))
    remote_id = await submitted(subject, marker, resources=Resources(cores_per_node=4))
    waits = await waits_because(subject, remote_id, marker, "QuotaExceeded")
    assert waits.state is RemoteState.QUEUED
    assert "quota" in waits.reason_words
    assert await subject.runs_of(marker) == 0


async def test_a_quota_of_jobs_is_no_refusal_but_a_wait(subject, marker, namespace):
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    made(subject.admin.post(f"/api/v1/namespaces/{namespace}/resourcequotas", json=quota))

    async def is_in_force() -> bool:
        found = subject.admin.get(f"/api/v1/namespaces/{namespace}/resourcequotas/none").json()
        return "hard" in found.get("status", {})

    await eventually(is_in_force, "the quota is in force")
    answer = (await subject.backend.submit([subject.intent(marker)]))[marker]
    assert isinstance(answer, SubmitUncertain)
    with pytest.raises(NothingLearnt):
        await subject.backend.find(marker, INTENDED_AT)


async def test_a_login_that_may_do_nothing_or_is_unknown_is_not_authorised(subject, control_plane, namespace, marker):
    for token, word in ((control_plane.token("bob"), "does not allow"), ("nobody", "does not know")):
        api = Api(Access(control_plane.url, token, control_plane.ca.read_text()), namespace)
        backend = KubernetesBackend(kubernetes(control_plane, namespace), api)
        with pytest.raises(NotAuthorised, match=word):
            await backend.find(marker, INTENDED_AT)
        answer = (await backend.submit([subject.intent(marker)]))[marker]
        assert isinstance(answer, SubmitUncertain)
        with pytest.raises(NotAuthorised, match=word):
            await backend.observe({RemoteId("x"): marker})
        await backend.aclose()
    assert await subject.backend.find(marker, INTENDED_AT) is None


async def test_the_role_that_is_documented_is_all_that_a_login_needs(control_plane, namespace, marker, admin):
    credential = Credential(
        tenant="t", system_id="kube", user="a", login_user="a", password=control_plane.token("alice")
    )
    system = kubernetes(control_plane, namespace)
    with pytest.raises(CredentialRefused, match=r"create jobs\.batch, get jobs\.batch"):
        await verify(system, credential)
    granted(admin, namespace)

    async def is_allowed() -> bool:
        try:
            await verify(system, credential)
        except CredentialRefused:
            return False
        return True

    await eventually(is_allowed, "the role is in force")
    async with kubernetes_subject(control_plane, admin, namespace, user="alice") as subject:
        remote_id = await submitted(subject, marker, env={"A": "1"})
        await subject.running(marker)
        assert (await seen(subject, remote_id, marker)).state is RemoteState.RUNNING
        snapshot = await subject.backend.snapshot()
        assert (snapshot.nodes, len(snapshot.jobs)) == ((), 1), "the pods of its own namespace, and no nodes"
        assert [one["metadata"]["name"] for one in policies(admin, namespace)] == ["berth-runs"]
        await subject.backend.cancel(remote_id, marker)

        async def has_ended() -> bool:
            return (await seen(subject, remote_id, marker)).ending is Ending.CANCELLED

        await eventually(has_ended, "the job has ended")


async def test_what_a_login_can_do_without_is_told_by_what_is_missed(control_plane, namespace, admin):
    credential = Credential(
        tenant="t", system_id="kube", user="a", login_user="a", password=control_plane.token("alice")
    )
    system = kubernetes(control_plane, namespace)
    system = replace(system, notes={"berth": {**system.berth_notes, "pods": True}})
    role = granted(admin, namespace)

    async def nothing_is_missed() -> bool:
        try:
            return await verify(system, credential) == ()
        except CredentialRefused:
            return False

    await eventually(nothing_is_missed, "the role is in force")
    dear = {"networkpolicies", "events", "pods/exec"}
    rules = [rule for rule in role["rules"] if not dear & set(rule["resources"])]
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/{role['metadata']['name']}"
    made(admin.put(path, json={**role, "rules": rules}))
    missed: list[str] = []

    async def all_is_told() -> bool:
        missed[:] = (words.split(":")[0] for words in await verify(system, credential))
        return len(missed) == 5

    await eventually(all_is_told, "the role is smaller")
    assert missed == [
        "it may not create networkpolicies.networking.k8s.io",
        "it may not patch networkpolicies.networking.k8s.io",
        "it may not list events",
        "it may not create pods/portforward",
        "it may not create pods/exec",
    ]


async def test_pods_are_reached_from_their_namespace_alone_and_reach_no_metadata(subject, namespace, marker, admin):
    await submitted(subject, marker)
    await subject.running(marker)
    [policy] = policies(admin, namespace)
    (pod,) = admin.get(f"/api/v1/namespaces/{namespace}/pods").json()["items"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {}}]}]
    blocks = [way["ipBlock"] for rule in policy["spec"]["egress"] for way in rule["to"] if "ipBlock" in way]
    assert [block["except"] for block in blocks] == [["169.254.169.254/32"], ["fd00:ec2::254/128"]]


async def test_what_the_notes_deny_later_is_denied_from_the_next_start_on(control_plane, subject, namespace, admin):
    access = Access(control_plane.url, control_plane.token(), control_plane.ca.read_text())
    for denied in ([], ["10.0.0.0/8"]):
        await Guard(Api(access, namespace), Site(denied=tuple(denied))).stand()
        [policy] = policies(admin, namespace)
        assert policy["spec"]["egress"][1]["to"][0]["ipBlock"]["except"] == ["169.254.169.254/32", *denied]


async def test_a_role_without_rights_to_policies_keeps_no_run_from_starting(control_plane, namespace, admin, caplog):
    access = Access(control_plane.url, control_plane.token("bob"), control_plane.ca.read_text())
    await Guard(Api(access, namespace), Site()).stand()
    assert policies(admin, namespace) == []
    assert "no NetworkPolicy" in caplog.text


def policies(admin, namespace: str) -> list[dict]:
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    return list(made(admin.get(path))["items"])


def granted(admin: httpx.Client, namespace: str) -> Any:
    """Give alice the documented role in a namespace; the role."""
    documents = [one for one in yaml.safe_load_all(documented()) if one["kind"] in ("Role", "RoleBinding")]
    for one in documents:
        one["metadata"]["namespace"] = namespace
        if one["kind"] == "RoleBinding":
            one["subjects"] = [{"kind": "User", "name": "alice"}]
        kind = f"{one['kind'].lower()}s"
        made(admin.post(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{kind}", json=one))
    return next(one for one in documents if one["kind"] == "Role")


def documented() -> str:
    """The objects that the guide asks the cluster's administrator for."""
    guide = (Path(__file__).parents[2] / "docs/kubernetes.md").read_text()
    return guide.partition("```yaml\n")[2].partition("```")[0]


async def test_a_namespace_that_is_not_there_refuses_a_job_with_the_servers_words(control_plane, subject, marker):
    api = Api(Access(control_plane.url, control_plane.token(), control_plane.ca.read_text()), "nowhere")
    backend = KubernetesBackend(kubernetes(control_plane, "nowhere"), api)
    answer = (await backend.submit([subject.intent(marker)]))[marker]
    await backend.aclose()
    assert isinstance(answer, SubmitRejected)
    assert "nowhere" in str(answer)


async def test_a_server_whose_certificate_is_not_the_pinned_one_is_not_spoken_to(control_plane, namespace, marker):
    api = Api(Access(control_plane.url, control_plane.token(), None), namespace)
    backend = KubernetesBackend(kubernetes(control_plane, namespace), api)
    with pytest.raises(NothingLearnt, match=r"(?i)certificate"):
        await backend.find(marker, INTENDED_AT)
    await backend.aclose()


# -- clearing away -----------------------------------------------------------------------------------------------------


async def test_what_ended_long_ago_is_cleared_away_and_what_somebody_asks_for_stays(subject, namespace):
    old, asked = marker_for(new_job_uuid(), 1), marker_for(new_job_uuid(), 1)
    ids = {await submitted(subject, marker, env={"SECRET": "x"}): marker for marker in (old, asked)}
    for marker in (old, asked):
        await subject.running(marker)
        await subject.finish(marker)

    async def all_told() -> bool:
        found = await subject.backend.observe(ids)
        return len(found) == 2 and all(one.state is RemoteState.ENDED for one in found.values())

    await eventually(all_told, "both ends are told")
    await eventually(lambda: _is_live(subject), "a watch is open")
    subject.backend._clock = lambda: datetime.now(UTC) + timedelta(days=2)
    await subject.backend.observe({remote_id: marker for remote_id, marker in ids.items() if marker == asked})
    jobs = await subject.api.list(JOBS, MANAGED)
    assert [job["metadata"]["name"] for job in jobs.items] == [asked]


async def test_variables_of_a_run_go_with_its_end(subject, namespace, marker):
    await submitted(subject, marker, env={"SECRET": "x"})
    secrets, ours = f"/api/v1/namespaces/{namespace}/secrets", {"labelSelector": _labels()}
    assert len(made(subject.admin.get(secrets, params=ours))["items"]) == 1
    await subject.running(marker)
    await subject.finish(marker)
    remote_id = await subject.backend.find(marker, INTENDED_AT)

    async def is_told() -> bool:
        found = await subject.backend.observe({remote_id: marker})
        return found[remote_id].state is RemoteState.ENDED

    await eventually(is_told, "its end is told")
    assert made(subject.admin.get(secrets, params=ours))["items"] == []


@pytest.mark.parametrize("way", ["cancel", "withdraw"])
async def test_nothing_is_kept_of_a_run_that_never_began_and_is_not_looked_at_again(subject, namespace, marker, way):
    remote_id = await submitted(subject, marker, env={"SECRET": "x"}, resources=Resources(cores_per_node=10_000))

    async def has_a_pod() -> bool:
        return bool((await subject.api.list(PODS, MANAGED)).items)

    await eventually(has_a_pod, "its pod waits")
    assert await getattr(subject.backend, way)(remote_id, marker) is (way == "withdraw")
    assert await subject.backend.unended() == {}

    async def has_gone() -> bool:
        return not await has_a_pod()

    await eventually(has_gone, "its pod is gone")
    secrets = made(subject.admin.get(f"/api/v1/namespaces/{namespace}/secrets", params={"labelSelector": _labels()}))
    assert secrets["items"] == []
    assert await getattr(subject.backend, way)(remote_id, marker) is (way == "withdraw"), (
        "who asks again hears the same"
    )
    assert await subject.backend.find(marker, INTENDED_AT) == remote_id, "its name stays taken"


async def test_a_job_that_was_deleted_before_it_had_a_condition_is_not_listed_as_running(subject, marker):
    remote_id = await submitted(subject, marker)
    await subject.backend.cancel(remote_id, marker)

    async def is_told() -> bool:
        found = await subject.backend.observe({remote_id: marker})
        return found[remote_id].state is RemoteState.ENDED

    await eventually(is_told, "its end is told")
    assert await subject.backend.unended() == {}


async def test_a_name_that_was_given_up_stays_so_for_long(subject, marker):
    assert await subject.backend.find(marker, INTENDED_AT) is None
    other = await submitted(subject, other_marker := marker_for(new_job_uuid(), 1))
    await subject.backend.observe({other: other_marker})
    await eventually(lambda: _is_live(subject), "a watch is open")
    for later, left in ((VOID_KEPT - timedelta(days=1), 1), (VOID_KEPT + timedelta(days=1), 0)):
        subject.backend._clock = lambda later=later: datetime.now(UTC) + later
        await subject.backend.observe({other: other_marker})
        assert len([job for job in (await subject.api.list(JOBS, MANAGED)).items if _is_named(job, marker)]) == left


def _labels() -> str:
    return ",".join(f"{key}={value}" for key, value in MANAGED.items())


def _is_named(job: dict, marker: Marker) -> bool:
    return job["metadata"]["name"] == marker


async def _is_live(subject: KubernetesSubject) -> bool:
    return subject.backend._sight.is_live and bool(subject.backend._sight.jobs)


# -- falling over ------------------------------------------------------------------------------------------------------


async def test_an_api_server_that_is_killed_during_a_watch_costs_nothing_but_time(rough_control_plane):
    plane = rough_control_plane
    with client(plane) as admin, own_namespace(plane, admin) as namespace:
        async with kubernetes_subject(plane, admin, namespace) as subject:
            first, second = marker_for(new_job_uuid(), 1), marker_for(new_job_uuid(), 1)
            remote_id = await submitted(subject, first)
            await subject.running(first)
            await seen(subject, remote_id, first)
            await eventually(lambda: _is_live(subject), "a watch is open")
            plane.kill("kube-apiserver")
            with pytest.raises(NothingLearnt):
                await subject.backend.observe({remote_id: first})
            lost = (await subject.backend.submit([subject.intent(second)]))[second]
            assert isinstance(lost, SubmitUncertain)
            await asyncio.to_thread(plane.start, "kube-apiserver")

            async def answers() -> bool:
                try:
                    return await subject.backend.find(second, INTENDED_AT) is None
                except NothingLearnt:
                    return False

            await eventually(answers, "the server answers again", timeout_s=60)
            assert (await seen(subject, remote_id, first)).state is RemoteState.RUNNING
            await eventually(lambda: _is_live(subject), "a watch is open again", timeout_s=60)
            await subject.finish(first, exit_code=4)

            async def has_ended() -> bool:
                return (await seen(subject, remote_id, first)).exit_code == 4

            await eventually(has_ended, "the end is seen")
            assert await subject.runs_of(first) == 1


async def test_a_history_that_was_thrown_away_is_listed_anew(rough_control_plane):
    plane = rough_control_plane
    with client(plane) as admin, own_namespace(plane, admin) as namespace:
        api = Api(Access(plane.url, plane.token(), plane.ca.read_text()), namespace)
        reflector = Reflector(api, JOBS, MANAGED)
        reflector.start()
        await eventually(lambda: _ready(reflector), "a watch is open")
        plane.kill("kube-apiserver")
        first, second = (void_job(marker_for(new_job_uuid(), 1)) for _ in range(2))
        await asyncio.to_thread(plane.start, "kube-apiserver")
        for job in (first, second):
            made(admin.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", json=job))
        await asyncio.to_thread(plane.compact_etcd)
        await asyncio.to_thread(plane.restart, "kube-apiserver")
        names = {first["metadata"]["name"], second["metadata"]["name"]}

        async def all_known() -> bool:
            return reflector.is_live and set(reflector.objects) == names

        await eventually(all_known, "what happened meanwhile is known", timeout_s=90)
        with pytest.raises(NothingLearnt, match=r"(?i)too old|required revision|compacted"):
            async for _ in api.watch(PODS, "", "1", 5):
                pass
        await reflector.aclose()
        await api.aclose()
        for name in names:
            path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
            headers = {"Content-Type": "application/merge-patch+json"}
            made(admin.patch(path, json={"metadata": {"finalizers": None}}, headers=headers))


async def _ready(reflector: Reflector) -> bool:
    return reflector.is_live
