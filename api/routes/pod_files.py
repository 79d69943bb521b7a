"""Files into running pods."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api.context import Caller, ThePorts
from api.envelope import Envelope, Message, answer
from api.strict import StrictRoute
from api.uploads import described, form_of, said_bytes
from scheduler.model.errors import SpecInvalid
from scheduler.model.pod_catalog import PodLevel
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.services import pods

router = APIRouter(prefix="/v3/pods", tags=["pods"], route_class=StrictRoute)

PodId = Annotated[str, Path(max_length=120)]

MOST_BYTES = 100 * 1024 * 1024
"""Of a file that is written inside a pod: it is held in memory on its way."""

JUPYTER_HOME = "/home/jovyan"
"""Where the notebooks of Jupyter's images lie."""


@router.post(
    "/{pod_id}/upload_to_pod",
    operation_id="upload_to_pod",
    response_model=Envelope[Message],
    openapi_extra=dict(described("dest_path")),
)
async def upload_to_pod(request: Request, ports: ThePorts, caller: Caller, pod_id: PodId) -> Response:
    """Write a file inside a running pod, at most 100 MB. ADMIN."""
    return await _upload(request, ports, caller, pod_id, "dest_path")


@router.post(
    "/jupyter/{pod_id}/upload",
    operation_id="upload_to_jupyter",
    response_model=Envelope[Message],
    openapi_extra=dict(described("path")),
)
async def upload_to_jupyter(request: Request, ports: ThePorts, caller: Caller, pod_id: PodId) -> Response:
    """Write a file into the notebooks' directory of a running Jupyter pod, or at an absolute path. ADMIN."""
    return await _upload(request, ports, caller, pod_id, "path", JUPYTER_HOME)


async def _upload(
    request: Request, ports: Ports, caller: Principal, pod_id: str, field: str, base: str = ""
) -> Response:
    await pods.get(ports, caller, pod_id, PodLevel.ADMIN)
    if (said_bytes(request) or 0) > MOST_BYTES:
        raise SpecInvalid.of("file", f"is larger than {MOST_BYTES} bytes", "use a volume")
    file, texts = await form_of(request, field)
    content = await file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise SpecInvalid.of("file", f"is larger than {MOST_BYTES} bytes", "use a volume")
    path = texts[field] if texts[field].startswith("/") or not base else f"{base}/{texts[field]}"
    await pods.upload(ports, caller, pod_id, path, content)
    return answer({"message": f"{len(content)} bytes written to {path}"}, "file written")
