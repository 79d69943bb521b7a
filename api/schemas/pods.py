"""Pods on the wire: what is asked of one, and what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictBool, StrictInt

from api.schemas.base import Body, CommandWord, Line, View, showing
from scheduler.model.pod_names import host_name
from scheduler.model.pods import Desired, Pod
from scheduler.services.pod_definitions import fields_of
from scheduler.services.pods import Ran

Number = Annotated[StrictInt, Field(ge=-(2**31), le=2**31 - 1)]
Words = Annotated[list[CommandWord], Field(max_length=1000)]
Command = Annotated[list[CommandWord], Field(min_length=1, max_length=1000)]
Status = Literal["ON", "OFF", "RESTART"]


@dataclass(frozen=True, slots=True)
class Outside:
    """Where a tenant's pods are reached: the domain of their names, and the port of the gateway in front of all.

    trouble: why clients refuse these names; empty: they do not.
    """

    domain: str
    port: int
    trouble: str = ""

    def message_of(self, pod: Pod) -> str:
        """Why a pod stands where it does, and why its names are refused."""
        is_named = any(net.is_outside for net in pod.definition.nets)
        return "; ".join(words for words in (pod.message, self.trouble if is_named else "") if words)


class NetBody(Body):
    """A port of a pod and how the outside speaks to it. Berth sets ``url``, and its gateway's port, ``url_port``."""

    output_only: ClassVar[frozenset[str]] = frozenset({"url", "url_port"})

    protocol: Line = "http"
    port: Number = 5000
    ip_allow_list: Annotated[list[Line], Field(max_length=100, default_factory=list)]
    tapis_auth: StrictBool = False
    tapis_auth_response_headers: Annotated[dict[Line, Line], Field(max_length=50, default_factory=dict)]
    tapis_auth_allowed_users: Annotated[list[Line], Field(max_length=1000, default_factory=lambda: ["*"])]
    tapis_auth_return_path: Line = "/"
    cors_allow_origins: Annotated[list[Line], Field(max_length=100, default_factory=list)]
    cors_allow_methods: Annotated[list[Line], Field(max_length=20, default_factory=list)]
    cors_allow_headers: Annotated[list[Line], Field(max_length=100, default_factory=list)]
    cors_allow_credentials: StrictBool = False
    cors_max_age: Annotated[StrictInt, Field(ge=0, le=86_400)] = 100
    tapis_ui_uri: Line = ""
    tapis_ui_uri_redirect: StrictBool = False
    tapis_ui_uri_description: Line = ""


class ResourcesBody(Body):
    """What a pod asks for: thousandths of a core, MiB, GPUs."""

    cpu_request: Number | None = None
    cpu_limit: Number | None = None
    mem_request: Number | None = None
    mem_limit: Number | None = None
    ephemeral_storage_request: Number | None = None
    ephemeral_storage_limit: Number | None = None
    gpus: Number | None = None


class MountBody(Body):
    """A mount: by volume (``mount_path`` says where), or by path (``source_id`` says what)."""

    type: Line = ""
    mount_path: Line = ""
    source_id: Line | None = None
    sub_path: Line = ""
    read_only: StrictBool = False
    config_content: Annotated[str, Field(max_length=65_536)] | None = None
    config_permissions: Line = "0644"
    config_filename: Line | None = None
    config_update_mode: Line = "always"


class PodFields(Body):
    """What may be said of a pod, in a request, in a change and in a template."""

    image: Line | None = None
    description: Line | None = None
    command: Words | None = None
    arguments: Words | None = None
    environment_variables: dict[Line, CommandWord] | None = None
    volume_mounts: dict[Line, MountBody | None] | None = None
    time_to_stop_default: Number | None = None
    time_to_stop_instance: Number | None = None
    networking: dict[Line, NetBody | None] | None = None
    resources: ResourcesBody | None = None
    compute_queue: Line | None = None

    def fields(self) -> dict[str, Any]:
        """What was said, and nothing else."""
        return self.model_dump(exclude_unset=True)


class NewPod(PodFields):
    """A pod that is asked for. ``pod_template``, ``data_requests`` and ``roles_required`` are older clients' words."""

    model_config = showing(
        {"pod_id": "docpod", "template": "neo4j", "description": "A graph"},
        {"pod_id": "web", "image": "python:3.12", "command": ["python3", "-m", "http.server", "5000"]},
    )
    output_only: ClassVar[frozenset[str]] = frozenset(
        {"time_to_stop_ts", "status", "status_container", "status_message", "creation_ts", "update_ts"}
        | {"start_instance_ts", "data_attached", "roles_inherited", "url"}
    )

    pod_id: Line
    template: Line | None = None
    pod_template: Line | None = None
    status_requested: Status | None = None
    data_requests: list[Line] | None = None
    roles_required: list[Line] | None = None


class UpdatePod(PodFields):
    """What is to change. What runs stays as it is until its next start, but for when it stops."""

    output_only: ClassVar[frozenset[str]] = NewPod.output_only | {"pod_id", "data_requests", "roles_required"}

    template: Line | None = None
    status_requested: Status | None = None


class ExecBody(Body):
    """Commands to run inside a pod: one, as its words, or several."""

    model_config = showing({"commands": ["ls", "/"]}, {"commands": [["sleep", "1"], ["date"]], "command_timeout": 10})

    commands: Command | Annotated[list[Command], Field(min_length=1, max_length=100)]
    total_timeout: Annotated[StrictInt, Field(ge=1, le=3600)] = 300
    command_timeout: Annotated[StrictInt, Field(ge=1, le=3600)] = 60
    fail_on_non_success: StrictBool = True

    @property
    def each(self) -> list[list[str]]:
        """Every command as its words."""
        words = [word for word in self.commands if isinstance(word, str)]
        return [words] if words else [list(command) for command in self.commands if not isinstance(command, str)]


class PermissionBody(Body):
    """A level for a user; ``*`` and ``TENANT`` are every user of the tenant."""

    model_config = showing({"user": "bob", "level": "READ"})

    user: Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9._@-]{0,59}|\*)$")]
    level: Annotated[Line, Field(max_length=30)]


class PermissionsView(View):
    permissions: list[str]


class CredentialsView(View):
    user_username: str
    user_password: str


class LogsView(View):
    logs: str
    action_logs: list[str]


class RanView(View):
    """A command that was run. ``exit_code`` is null where it did not come to its end; ``message`` says why."""

    command: list[str]
    exit_code: int | None
    stdout: str
    stderr: str
    duration: float
    message: str

    @classmethod
    def of(cls, ran: Ran) -> RanView:
        done = ran.executed
        return cls(
            command=list(ran.command),
            exit_code=done.exit_code if done else None,
            stdout=done.stdout.decode("utf-8", "replace") if done else "",
            stderr=done.stderr.decode("utf-8", "replace") if done else "",
            duration=round(ran.took_s, 3),
            message=ran.message,
        )


class ExecView(View):
    success: bool
    results: list[RanView]

    @classmethod
    def of(cls, ran: Sequence[Ran]) -> ExecView:
        return cls(success=all(each.succeeded for each in ran), results=[RanView.of(each) for each in ran])


class PodView(View):
    """A pod. ``networking``, ``resources``, ``volume_mounts`` and ``time_to_stop_default`` are what is run, its
    template's share included; the other fields are the pod's own, but in ``derived``."""

    pod_id: str
    image: str
    template: str
    description: str
    command: list[str] | None
    arguments: list[str] | None
    environment_variables: dict[str, str]
    status_requested: str
    volume_mounts: dict[str, dict[str, Any]]
    time_to_stop_default: int
    time_to_stop_instance: int | None
    networking: dict[str, dict[str, Any]]
    resources: dict[str, int]
    compute_queue: str
    time_to_stop_ts: str | None
    status: str
    status_message: str
    status_container: dict[str, Any]
    creation_ts: str
    update_ts: str
    start_instance_ts: str | None
    data_attached: list[str]
    data_requests: list[str]
    roles_inherited: list[str]
    roles_required: list[str]
    url: str | None

    @classmethod
    def of(cls, pod: Pod, outside: Outside, container: Mapping[str, Any], *, derived: bool = False) -> PodView:
        run = fields_of(pod.definition)
        own = run if derived else {**EMPTY, **{name: pod.asked[name] for name in EMPTY if pod.asked.get(name)}}
        nets = {
            net.name: {
                **NetBody.model_validate({}).model_dump(),
                **((pod.asked.get("networking") or {}).get(net.name) or {}),
                **run["networking"][net.name],
                "url": host_name(pod.id, net.name, outside.domain) if net.is_outside else "",
                "url_port": outside.port if net.is_outside else None,
            }
            for net in pod.definition.nets
        }
        return cls(
            pod_id=pod.id,
            image=own["image"],
            template=pod.template,
            description=pod.description,
            command=own["command"],
            arguments=own["arguments"],
            environment_variables=own["environment_variables"],
            status_requested=pod.desired if pod.delete_requested_at is None else Desired.OFF,
            volume_mounts=run["volume_mounts"],
            time_to_stop_default=pod.asked.get("time_to_stop_default") or run["time_to_stop_default"],
            time_to_stop_instance=(run if derived else pod.asked).get("time_to_stop_instance"),
            networking=nets,
            resources=run["resources"],
            compute_queue=run["compute_queue"],
            time_to_stop_ts=naive(pod.stop_at),
            status=pod.status,
            status_message=outside.message_of(pod),
            status_container=dict(container),
            creation_ts=str(naive(pod.created_at)),
            update_ts=str(naive(pod.updated_at)),
            start_instance_ts=naive(pod.started_at),
            data_attached=[],
            data_requests=[],
            roles_inherited=[],
            roles_required=[],
            url=next((net["url"] for name, net in nets.items() if name == "default"), None),
        )


EMPTY: Mapping[str, Any] = {"image": "", "command": None, "arguments": None, "environment_variables": {}}
"""The pod's own fields where it says nothing."""


def naive(at: datetime | None) -> str | None:
    """An instant as the Pods API writes it: UTC, without saying so."""
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%S.%f")
