"""Pods: long-lived containers with ports that have names. Start, stop and restart are GET, as Tapis's clients ask."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from api.context import Caller, MayRepeat, TheEdge, ThePorts
from api.envelope import Envelope, answer, told
from api.permissions import permission_routes
from api.schemas.pod_catalog import SaveAsTag, TagView
from api.schemas.pods import CredentialsView, ExecBody, ExecView, LogsView, NewPod, Outside, PodView, UpdatePod
from api.strict import StrictRoute
from scheduler.model.pages import WHOLE_LIST
from scheduler.model.pod_catalog import PodKind
from scheduler.model.pods import Desired, Pod
from scheduler.ports import Ports
from scheduler.services import pod_requests, pods

router = APIRouter(prefix="/v3/pods", tags=["pods"], route_class=StrictRoute)

PodId = Annotated[str, Path(max_length=120)]
NOT_KEPT = {"Cache-Control": "no-store"}
"""On answers to GET requests that change something: nothing may answer in Berth's place."""


async def _outside(edge: TheEdge, caller: Caller) -> Outside:
    domain = await pod_requests.domain(edge.ports, caller, edge.options.pods_domain)
    return Outside(domain, edge.options.pods_port, edge.options.name_trouble(domain))


TheOutside = Annotated[Outside, Depends(_outside)]


@router.get("", operation_id="list_pods", response_model=Envelope[list[PodView]])
async def list_pods(ports: ThePorts, caller: Caller, outside: TheOutside) -> Response:
    """The pods that the caller may READ."""
    found = await pods.list_pods(ports, caller, WHOLE_LIST)
    behind = await pods.containers(ports, found)
    return answer([PodView.of(pod, outside, behind[pod.uuid]) for pod in found], "pods found")


@router.post("", operation_id="create_pod", response_model=Envelope[PodView])
async def create_pod(
    edge: TheEdge, caller: Caller, outside: TheOutside, body: NewPod, repeatable: MayRepeat
) -> Response:
    """Make a pod from a template or an image; it starts at once unless ``status_requested`` is OFF."""
    default = edge.options.default_pod_template
    pod = await pod_requests.create(edge.ports, caller, body.fields(), default_template=default, repeatable=repeatable)
    return await _shown(edge.ports, pod, outside, f"pod '{pod.id}' created")


@router.get("/jupyter/ensure", operation_id="ensure_jupyter_pod", response_model=Envelope[PodView])
async def ensure_jupyter_pod(ports: ThePorts, caller: Caller, outside: TheOutside) -> Response:
    """The caller's Jupyter pod, made or started if need be. Its token is the password of its credentials."""
    pod = await pod_requests.ensure_jupyter(ports, caller)
    return await _shown(ports, pod, outside, f"pod '{pod.id}' is asked for", headers=NOT_KEPT)


@router.get("/{pod_id}", operation_id="get_pod", response_model=Envelope[PodView])
async def get_pod(ports: ThePorts, caller: Caller, outside: TheOutside, pod_id: PodId) -> Response:
    """A pod and where it stands. READ."""
    return await _shown(ports, await pods.get(ports, caller, pod_id), outside, f"pod '{pod_id}' found")


@router.put("/{pod_id}", operation_id="update_pod", response_model=Envelope[PodView])
async def update_pod(ports: ThePorts, caller: Caller, outside: TheOutside, pod_id: PodId, body: UpdatePod) -> Response:
    """Change the fields that are given; null takes one back. What runs changes with the next start."""
    pod = await pod_requests.update(ports, caller, pod_id, body.fields())
    return await _shown(ports, pod, outside, f"pod '{pod_id}' changed; what runs changes with its next start")


@router.delete("/{pod_id}", operation_id="delete_pod", response_model=Envelope[str])
async def delete_pod(ports: ThePorts, caller: Caller, pod_id: PodId) -> Response:
    """Remove a pod; its name is free once it is proven that nothing of it runs. ADMIN."""
    await pods.remove(ports, caller, pod_id)
    return told(f"pod '{pod_id}' is being deleted")


@router.get("/{pod_id}/derived", operation_id="get_derived_pod", response_model=Envelope[PodView])
async def get_derived_pod(ports: ThePorts, caller: Caller, outside: TheOutside, pod_id: PodId) -> Response:
    """A pod with every field that is run, its templates' share included; secrets stay placeholders. READ."""
    pod = await pods.get(ports, caller, pod_id)
    return await _shown(ports, pod, outside, f"pod '{pod_id}' found", derived=True)


@router.get("/{pod_id}/credentials", operation_id="get_pod_credentials", response_model=Envelope[CredentialsView])
async def get_pod_credentials(ports: ThePorts, caller: Caller, pod_id: PodId) -> Response:
    """The user and password that Berth made up for the pod. USER."""
    made = await pods.credentials(ports, caller, pod_id)
    view = CredentialsView(user_username=pod_id, user_password=made.user_password)
    return answer(view, "credentials found", headers=NOT_KEPT)


@router.get("/{pod_id}/logs", operation_id="get_pod_logs", response_model=Envelope[LogsView])
async def get_pod_logs(ports: ThePorts, caller: Caller, pod_id: PodId) -> Response:
    """The newest 10 MB of what the pod wrote, and what was done with it. READ."""
    logs, actions = await pods.logs(ports, caller, pod_id)
    return answer(LogsView(logs=logs, action_logs=list(actions)), "logs found")


@router.get("/{pod_id}/start", operation_id="start_pod", response_model=Envelope[PodView])
async def start_pod(ports: ThePorts, caller: Caller, outside: TheOutside, pod_id: PodId) -> Response:
    """Start a pod that is at rest; 409 for any other."""
    pod = await pod_requests.want(ports, caller, pod_id, Desired.ON)
    return await _shown(ports, pod, outside, f"pod '{pod_id}' is to start", headers=NOT_KEPT)


@router.get("/{pod_id}/stop", operation_id="stop_pod", response_model=Envelope[PodView])
async def stop_pod(ports: ThePorts, caller: Caller, outside: TheOutside, pod_id: PodId) -> Response:
    """Stop a pod; answers at once, and the pod is STOPPED once it is proven that nothing of it runs."""
    pod = await pod_requests.want(ports, caller, pod_id, Desired.OFF)
    return await _shown(ports, pod, outside, f"pod '{pod_id}' is to stop", headers=NOT_KEPT)


@router.get("/{pod_id}/restart", operation_id="restart_pod", response_model=Envelope[PodView])
async def restart_pod(
    ports: ThePorts,
    caller: Caller,
    outside: TheOutside,
    pod_id: PodId,
    grab_latest_template_tag: Annotated[bool, Query(description="With what its template's tag says now")] = False,
) -> Response:
    """Stop a pod and start it again."""
    pod = await pod_requests.restart(ports, caller, pod_id, grab_latest=grab_latest_template_tag)
    return await _shown(ports, pod, outside, f"pod '{pod_id}' is to restart", headers=NOT_KEPT)


@router.post("/{pod_id}/exec", operation_id="exec_pod_commands", response_model=Envelope[ExecView])
async def exec_pod_commands(ports: ThePorts, caller: Caller, pod_id: PodId, body: ExecBody) -> Response:
    """Run commands inside a pod, one after the other, and wait for them. ADMIN."""
    ran = await pods.execute(
        ports,
        caller,
        pod_id,
        body.each,
        total_timeout_s=body.total_timeout,
        command_timeout_s=body.command_timeout,
        fail_on_non_success=body.fail_on_non_success,
    )
    return answer(ExecView.of(ran), f"{len(ran)} of {len(body.each)} commands were run")


@router.post(
    "/{pod_id}/save_pod_as_template_tag", operation_id="save_pod_as_template_tag", response_model=Envelope[TagView]
)
async def save_pod_as_template_tag(ports: ThePorts, caller: Caller, pod_id: PodId, body: SaveAsTag) -> Response:
    """Keep what a pod says under a tag of a template. ADMIN on the pod, USER on the template."""
    tag = await pod_requests.save_as_tag(ports, caller, pod_id, body.template_id, body.tag, body.commit_message)
    return answer(TagView.of(tag), f"kept as '{tag.template_id}:{tag.tag_timestamp}'")


permission_routes(router, PodKind.POD, "/{name}")


async def _shown(
    ports: Ports,
    pod: Pod,
    outside: Outside,
    message: str,
    *,
    derived: bool = False,
    headers: dict[str, str] | None = None,
) -> Response:
    behind = await pods.containers(ports, [pod])
    return answer(PodView.of(pod, outside, behind[pod.uuid], derived=derived), message, headers=headers)
