"""Named ports of pods as the store would say them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from scheduler.model.ids import RemoteId, marker_for
from scheduler.model.pods import InstanceState, NetProtocol, OpenNet, PodInstance, PodNet, PodStatus
from scheduler.model.runs import RunSpec

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOMAINS = {"berth": "pods.localhost"}
UUID = "0e0b1b5e-3f0a-4d1c-9f0e-2f1f3c4d5e6f-007"


def open_net(
    pod_id: str = "web",
    of_net: PodNet | None = None,
    status: PodStatus = PodStatus.AVAILABLE,
    behind: PodInstance | None = None,
    **more: Any,
) -> OpenNet:
    """One row of ``open_nets``; behind: its instance, the first where none is said."""
    of_net = of_net or net()
    found = {"tenant": "berth", "owner": "ada", "port": of_net.port, **more}
    return OpenNet(pod_id=pod_id, net=of_net, status=status, instance=behind or instance(), **found)


def net(name: str = "default", protocol: NetProtocol = NetProtocol.HTTP, port: int = 5000, **more: Any) -> PodNet:
    return PodNet(name=name, protocol=protocol, port=port, **more)


def instance(number: int = 1, remote_id: str | None = "r1") -> PodInstance:
    run = RunSpec(job_uuid=UUID, name="web", image="web", ports=(5000,), exec_dir="/x", input_dir="/x", output_dir="/x")
    return PodInstance(
        pod_uuid=UUID,
        number=number,
        marker=marker_for(UUID, number),
        tenant="berth",
        system_id="local",
        owner="berth",
        queue=None,
        run=run,
        state=InstanceState.RUNNING,
        remote_id=None if remote_id is None else RemoteId(remote_id),
        intended_at=NOW,
    )
