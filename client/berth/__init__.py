"""Berth's Python client: ``Client`` speaks to a server, job files and ``#SBATCH`` scripts become submit requests.

>>> from berth import Client, request_from_job
>>> with Client("http://127.0.0.1:8080") as client:
...     client.login("alice", "secret")
...     job = client.jobs.submit(request_from_job({"image": "docker://busybox", "command": ["echo", "hello"]}))
...     print(client.jobs.wait(job.uuid).status)

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from berth.client import Client as Client
    from berth.errors import ApiError as ApiError
    from berth.errors import BerthError as BerthError
    from berth.jobfile import request_from_job as request_from_job
    from berth.records import Job as Job

__version__ = "0.1.0"
__all__ = ["ApiError", "BerthError", "Client", "Job", "__version__", "request_from_job"]

_HOMES = {
    "Client": "berth.client",
    "ApiError": "berth.errors",
    "BerthError": "berth.errors",
    "Job": "berth.records",
    "request_from_job": "berth.jobfile",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'berth' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
