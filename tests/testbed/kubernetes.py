"""What the tests of the Kubernetes testbed ask of its API."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from testbed.host import wait_until
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.fake_nodes import PREFIX

Object = dict[str, Any]


@contextmanager
def own_namespace(plane: ControlPlane, api: httpx.Client) -> Iterator[str]:
    """A namespace for one test, ready for pods, and removed in the background afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    made(api.post("/api/v1/namespaces", json={"metadata": {"name": name}}))
    wait_until(lambda: plane.starts_pods(name), f"pods can be started in {name}")
    try:
        yield name
    finally:
        made(api.delete(f"/api/v1/namespaces/{name}"))


def made(answer: httpx.Response) -> Object:
    """The object in an answer that must be a success; the API's own words when it is not."""
    assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
    content: Object = answer.json()
    return content


def pod_spec(image: str, *command: str) -> Object:
    """A pod of one container ``main`` that is not started again."""
    container = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}
    return {"restartPolicy": "Never", "containers": [container | ({"command": list(command)} if command else {})]}


def job(name: str, spec: Object, *, pods: int = 1, retries: int = 0, **notes: str) -> Object:
    """A Job. notes: annotations of its pods for fake nodes, with _ for -."""
    annotations = {PREFIX + key.replace("_", "-"): text for key, text in notes.items()}
    template = {"metadata": {"annotations": annotations}, "spec": spec}
    counts = {"completions": pods, "parallelism": pods, "backoffLimit": retries}
    return {"metadata": {"name": name}, "spec": {**counts, "template": template}}


def create_job(api: httpx.Client, namespace: str, body: Object) -> Object:
    """Create a Job and return it."""
    return made(api.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", json=body))


def ended(api: httpx.Client, namespace: str, name: str, timeout_s: float = 60) -> str:
    """Wait until a Job has ended; ``Complete`` or ``Failed``."""
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
    return wait_for(lambda: _end_of(made(api.get(path))), f"job {name} has ended", timeout_s)


def pods_of(api: httpx.Client, namespace: str, job_name: str) -> list[Object]:
    """The pods of a Job."""
    found = made(api.get(f"/api/v1/namespaces/{namespace}/pods", params={"labelSelector": f"job-name={job_name}"}))
    pods: list[Object] = found["items"]
    return pods


def wait_for(look: Callable[[], Any], what: str, timeout_s: float = 60) -> Any:
    """Look until there is something to see, and return it."""
    seen: list[Any] = []

    def there() -> bool:
        seen[:] = [look()]
        return bool(seen[0])

    wait_until(there, what, timeout_s)
    return seen[0]


def _end_of(found: Object) -> str:
    conditions = found["status"].get("conditions", [])
    true = [condition["type"] for condition in conditions if condition["status"] == "True"]
    return next((kind for kind in true if kind in ("Complete", "Failed")), "")
