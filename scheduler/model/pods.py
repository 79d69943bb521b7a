"""Pods: long-lived containers with ports that have names. Status words are those of the Tapis v3 Pods API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from scheduler.model.errors import IllegalMove
from scheduler.model.ids import LoginKey, Marker, RemoteId
from scheduler.model.runs import Ending, JobType, RunSpec


class PodStatus(StrEnum):
    """Where a pod stands, as the wire says it."""

    REQUESTED = "REQUESTED"
    SPAWNER_SETUP = "SPAWNER SETUP"
    """It has a place; an instance is being prepared there."""
    SUBMITTED = "SUBMITTED"
    """The place has taken the instance, which waits for its turn."""
    CREATING = "CREATING"
    """The instance has its turn, and does not answer yet, or no longer."""
    AVAILABLE = "AVAILABLE"
    """Every port that has a name answered at the last look."""
    COMPLETE = "COMPLETE"
    """The container ended by itself with exit code 0."""
    DELETING = "DELETING"
    """It is being ended."""
    STOPPED = "STOPPED"
    ERROR = "ERROR"


class Desired(StrEnum):
    """What its owner wants of a pod: the wire's ``status_requested``. RESTART turns to ON once the pod has stopped."""

    ON = "ON"
    OFF = "OFF"
    RESTART = "RESTART"


class PodEvent(StrEnum):
    """What happened to a pod."""

    WANTED = "WANTED"
    PLACED = "PLACED"
    ACCEPTED = "ACCEPTED"
    STARTED = "STARTED"
    ANSWERED = "ANSWERED"
    SILENT = "SILENT"
    """It answered before, and does not now."""
    REQUEUED = "REQUEUED"
    """The place took its turn away; it waits again."""
    UNPLACED = "UNPLACED"
    """Its instance is proven gone though it is wanted: it gets another place."""
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    STOPPING = "STOPPING"
    GONE = "GONE"
    """It is proven that no instance of it runs or ever will."""


P, E = PodStatus, PodEvent

AT_REST = frozenset({P.STOPPED, P.COMPLETE, P.ERROR})
"""Nothing of the pod runs, and nothing is done until somebody wants something."""
ON_ITS_WAY = frozenset({P.REQUESTED, P.SPAWNER_SETUP, P.SUBMITTED, P.CREATING, P.AVAILABLE})

POD_MOVES: Mapping[tuple[PodStatus, PodEvent], PodStatus] = MappingProxyType(
    {
        **{(status, E.WANTED): P.REQUESTED for status in AT_REST},
        (P.REQUESTED, E.PLACED): P.SPAWNER_SETUP,
        (P.SPAWNER_SETUP, E.ACCEPTED): P.SUBMITTED,
        (P.SUBMITTED, E.STARTED): P.CREATING,
        (P.CREATING, E.ANSWERED): P.AVAILABLE,
        (P.AVAILABLE, E.SILENT): P.CREATING,
        **{(status, E.REQUEUED): P.SUBMITTED for status in (P.CREATING, P.AVAILABLE)},
        **{(status, E.UNPLACED): P.REQUESTED for status in ON_ITS_WAY - {P.REQUESTED}},
        **{(status, E.COMPLETED): P.COMPLETE for status in (P.SUBMITTED, P.CREATING, P.AVAILABLE)},
        **{(status, E.FAILED): P.ERROR for status in ON_ITS_WAY},
        **{(status, E.STOPPING): P.DELETING for status in ON_ITS_WAY},
        (P.DELETING, E.GONE): P.STOPPED,
    }
)


def pod_move(status: PodStatus, event: PodEvent) -> PodStatus:
    """The status after ``event``; raises IllegalMove when no row allows it."""
    try:
        return POD_MOVES[status, event]
    except KeyError:
        raise IllegalMove(status, event) from None


# -- what a pod is -----------------------------------------------------------------------------------------------


class NetProtocol(StrEnum):
    """How the outside speaks to a port. LOCAL_ONLY has no name outside: only other pods may reach it."""

    HTTP = "http"
    TCP = "tcp"
    POSTGRES = "postgres"
    LOCAL_ONLY = "local_only"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodNet:
    """One named port of a pod. ``name`` ``default`` leaves no trace in the host name.

    ip_allow: networks from which it may be reached; empty: any. needs_login: the proxy asks Berth who it is, lets
    ``allowed_users`` in (``*``: anyone of the tenant) and adds ``login_headers`` (header: a template) to requests.
    cors: the ``cors_*`` fields of the wire as they came, or empty.
    """

    name: str
    protocol: NetProtocol
    port: int
    ip_allow: tuple[str, ...] = ()
    needs_login: bool = False
    allowed_users: tuple[str, ...] = ("*",)
    login_headers: Mapping[str, str] = field(default_factory=dict)
    return_path: str = "/"
    cors: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_outside(self) -> bool:
        """Whether it has a name outside."""
        return self.protocol is not NetProtocol.LOCAL_ONLY

    @property
    def is_plain_web(self) -> bool:
        """Whether any proxy may carry it: it speaks HTTP, and nothing has to be known of its clients, nor added."""
        return self.protocol is NetProtocol.HTTP and not (self.needs_login or self.ip_allow or self.cors)


class VolumeKind(StrEnum):
    """What is mounted into a pod."""

    VOLUME = "tapisvolume"
    SNAPSHOT = "tapissnapshot"
    PVC = "pvc"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodMount:
    """Something made visible inside a pod. ``source`` names the volume, snapshot or claim; empty for EPHEMERAL.

    content: for a small file written there at each start (or once, as ``content_once`` says), with its permissions.
    """

    kind: VolumeKind
    target: str
    source: str = ""
    sub_path: str = ""
    read_only: bool = False
    content: str | None = None
    content_name: str = ""
    content_mode: str = "0644"
    content_once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PodResources:
    """What a pod asks of a place: what it is given for sure, and the most that it may take."""

    request_millicores: int = 250
    limit_millicores: int = 2000
    request_memory_mib: int = 256
    limit_memory_mib: int = 3072
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PodDefinition:
    """What is run: the pod's own fields over those of its template, with every placeholder resolved but secrets.

    command: in place of the image's entry point; None: the image's own. arguments: in place of the image's command.
    is_stateful: its files may have one writer only, so that a new instance starts when the old one is proven gone.
    Otherwise a new one may overlap with the old. time_to_stop_s: from its start; -1: never.
    time_to_stop_default_s: the same without ``time_to_stop_instance``; None where that is not said.
    """

    image: str
    command: tuple[str, ...] | None = None
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[PodMount, ...] = ()
    nets: tuple[PodNet, ...] = ()
    resources: PodResources = field(default_factory=PodResources)
    compute_queue: str = "default"
    time_to_stop_s: int = 43_200
    time_to_stop_default_s: int | None = None
    is_stateful: bool = True

    @property
    def ports(self) -> tuple[int, ...]:
        """Every port that it listens to, once."""
        return tuple(dict.fromkeys(net.port for net in self.nets))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod as the store keeps it. ``asked``: the request's fields as they came, checked, in the wire's words.

    uuid: of this pod alone; a later one of the same name has another, and so other markers. instance_number: of its
    newest instance, 0 before the first. message: why it stands where it does, for people. stop_at: when
    ``time_to_stop`` ends it. delete_requested_at: it goes once nothing of it runs. wanted_at: when somebody last wanted
    it to run; how it ended before that counts no more. held_until: its instance is being replaced, and connections may
    wait for the next until then. version guards every write.
    """

    tenant: str
    id: str
    uuid: str
    owner: str
    asked: Mapping[str, Any]
    definition: PodDefinition
    description: str = ""
    template: str = ""
    desired: Desired = Desired.ON
    status: PodStatus = PodStatus.REQUESTED
    message: str = ""
    instance_number: int = 0
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    stop_at: datetime | None = None
    delete_requested_at: datetime | None = None
    wanted_at: datetime | None = None
    held_until: datetime | None = None
    next_look_at: datetime | None = None
    version: int = 0

    @property
    def is_ending(self) -> bool:
        """Whether somebody wants no instance of it, or not this one."""
        return self.desired is not Desired.ON or self.delete_requested_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRequest:
    """A new pod as somebody asked for it: the fields as they came, and what they come to."""

    pod_id: str
    asked: Mapping[str, Any]
    definition: PodDefinition
    description: str = ""
    template: str = ""
    desired: Desired = Desired.ON


def stop_time(definition: PodDefinition, started_at: datetime) -> datetime | None:
    """When a pod that started then is stopped; None: never."""
    return None if definition.time_to_stop_s < 0 else started_at + timedelta(seconds=definition.time_to_stop_s)


class InstanceState(StrEnum):
    """Where one instance of a pod stands at its place."""

    INTENDED = "INTENDED"
    """It may or may not have reached the place."""
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    ENDED = "ENDED"
    """Proven: nothing of it runs, and nothing under its marker ever will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodInstance:
    """One start of a pod at one place, under a marker of its own; the row is written before the place hears of it.

    owner: of the login under which it runs. seen: its containers as they were last seen, for ``status_container``.
    answered_at: when all its ports last answered. unwanted_at: it is being ended, or will be then. go_on_until: when
    its walltime ends. missing_since: its place answers, and does not name it. wait_p90_s: how long it was expected to
    wait for its turn at most, in nine of ten cases.
    """

    pod_uuid: str
    number: int
    marker: Marker
    tenant: str
    system_id: str
    owner: str
    queue: str | None
    run: RunSpec
    state: InstanceState = InstanceState.INTENDED
    remote_id: RemoteId | None = None
    intended_at: datetime
    started_at: datetime | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    unwanted_at: datetime | None = None
    go_on_until: datetime | None = None
    missing_since: datetime | None = None
    wait_p90_s: float = 0.0
    ending: Ending | None = None
    exit_code: int | None = None
    message: str = ""
    seen: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0

    @property
    def is_live(self) -> bool:
        """Whether something of it may run, or may yet."""
        return self.state is not InstanceState.ENDED

    def answers_at(self, at: datetime) -> bool:
        """Whether all its ports answered lately enough to say so."""
        fresh = self.answered_at is not None and at - self.answered_at <= ANSWER_HOLDS
        return self.state is InstanceState.RUNNING and fresh

    def port_of(self, net: PodNet, nets: Iterable[PodNet]) -> int | None:
        """Where a net of now leads: to the port that it had when the instance was started, until the next start.

        nets: all of now. A port that another of them names is that one's, with that one's rules. None: the instance was
        started without a port for it.
        """
        started = next((way.port for way in self.run.ways if way.net == net.name), None)
        if started is not None and started not in {each.port for each in nets if each.name != net.name}:
            return started
        return net.port if net.port in self.run.ports else None

    @property
    def login(self) -> LoginKey:
        return LoginKey(self.tenant, self.system_id, self.owner)

    @property
    def job_type(self) -> JobType:
        return self.run.job_type


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCredentials:
    """What Berth made up for a pod: its user (named like the pod) and the service user ``podsservice``."""

    user_password: str = field(repr=False)
    service_password: str = field(repr=False)


ANSWER_HOLDS = timedelta(seconds=10)
"""How long after its last answer a pod is called AVAILABLE at most, whoever should have asked it since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodAction:
    """A line of what was done with a pod, for people."""

    at: datetime
    words: str

    def __str__(self) -> str:
        return f"{self.at:%y/%m/%d %H:%M}: {self.words}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenNet:
    """A net that has a name outside, and what stands behind it now; ``instance`` None: nothing that answers.

    port: of the instance, see ``PodInstance.port_of``; None: it has none for this net. held_until: the next instance
    is on its way, and connections may wait for it until then.
    """

    tenant: str
    pod_id: str
    owner: str
    net: PodNet
    instance: PodInstance | None
    port: int | None
    status: PodStatus
    message: str = ""
    held_until: datetime | None = None


SERVICE_USER = "podsservice"
"""The second user of a pod's software, for Berth itself."""


# -- what a place says of an instance ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSeen:
    """An instance's containers as its place sees them now. ``phase`` and ``reason`` are the place's own words.

    is_ready: as far as the place knows; whether its ports answer is for Berth to try. waits_for: why it does not run
    yet, in words for people (an image that cannot be pulled, no room, a quota); empty where nothing is known.
    """

    phase: str
    reason: str = ""
    waits_for: str = ""
    is_ready: bool = False
    restarts: int = 0
    node: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """What a command inside a pod wrote, and its exit code."""

    exit_code: int
    stdout: bytes
    stderr: bytes
