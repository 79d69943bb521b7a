"""What marker directories tell of pods, asked in one call for many."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from backends.beside import Commands, run_beside
from scheduler.model.errors import UnexpectedReply
from scheduler.model.ids import Marker, checked_marker
from scheduler.model.pods import PodSeen

CALL_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorFacts:
    """What the door of an instance wrote when it opened.

    socket: a path on its node. addresses: host and port under which other nodes may reach it, the likeliest first.
    """

    secret: bytes = field(repr=False)
    socket: str
    addresses: tuple[tuple[str, int], ...]
    node: str
    network: str
    ports: tuple[int, ...]
    listening: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What a marker directory of a pod shows. exit_code: how it ended; None while it has not."""

    begun: bool = False
    door: DoorFacts | None = None
    refused: str = ""
    exit_code: int | None = None


async def traces_of(commands: Commands, root: str, markers: Sequence[Marker]) -> Mapping[Marker, Traces]:
    """What is known under each marker; one that was never heard of is left out."""
    if not markers:
        return {}
    request = {"root": root, "markers": [checked_marker(marker) for marker in markers]}
    said = await run_beside(commands, _program(), json.dumps(request).encode("ascii"), CALL_TIMEOUT_S)
    try:
        return {Marker(marker): _traces(told) for marker, told in json.loads(said).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnexpectedReply(f"what the marker directory of a pod holds is not understood: {error!r}") from None


def seen(traces: Traces) -> PodSeen:
    """Traces in the words of ``PodHost.look``."""
    if traces.exit_code is not None:
        return PodSeen(phase="Ended", reason=traces.refused or f"exit code {traces.exit_code}", node=_node(traces))
    if traces.refused:
        return PodSeen(phase="Refused", reason=traces.refused)
    if traces.door is None:
        words = "its image and its directories are being prepared" if traces.begun else "waits for its turn"
        return PodSeen(phase="Preparing" if traces.begun else "Waiting", waits_for=words)
    door = traces.door
    details = {"network": door.network, "listening": list(door.listening)}
    return PodSeen(phase="Running", is_ready=set(door.ports) <= set(door.listening), node=door.node, details=details)


def _node(traces: Traces) -> str:
    return traces.door.node if traces.door else ""


@cache
def _program() -> bytes:
    return files("backends.pods.programs").joinpath("facts.py").read_bytes()


def _traces(told: Mapping[str, Any]) -> Traces:
    refused, exit_code = told["refused"], told["ended"]
    return Traces(
        begun=bool(told["begun"]),
        door=_door(told["door"]) if told["door"] is not None else None,
        refused=str(refused["why"]) if refused is not None else "",
        exit_code=int(exit_code) if exit_code is not None else None,
    )


def _door(told: Mapping[str, Any]) -> DoorFacts:
    return DoorFacts(
        secret=bytes.fromhex(told["secret"]),
        socket=str(told["socket"]),
        addresses=tuple((str(host), int(port)) for host, port in told["tcp"]),
        node=str(told["node"]),
        network=str(told["network"]),
        ports=tuple(int(port) for port in told["ports"]),
        listening=tuple(int(port) for port in told["listening"]),
    )
