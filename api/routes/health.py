"""Whether the services answer. No token needed; 503 when the database does not."""

from __future__ import annotations

import itertools
from typing import Any

from fastapi import APIRouter, Response

from api.context import ThePorts
from api.envelope import Envelope, Health, answer
from api.problems import Kind, problem_answer
from api.strict import StrictRoute
from scheduler.services import auth

router = APIRouter(tags=["health"], route_class=StrictRoute)

NOT_READY = Kind(503, "not-ready", "The database does not answer")

CHECKS = (
    ("/v3/healthcheck", "healthcheck"),
    ("/v3/systems/healthcheck", "systems_healthCheck"),
    ("/v3/systems/readycheck", "systems_readyCheck"),
    ("/v3/apps/healthcheck", "apps_healthCheck"),
    ("/v3/apps/readycheck", "apps_readyCheck"),
    ("/v3/files/healthcheck", "files_healthCheck"),
    ("/v3/files/readycheck", "files_readyCheck"),
    ("/v3/jobs/healthcheck", "checkHealth"),
    ("/v3/jobs/ready", "ready"),
    ("/v3/jobs/readycheck", "readycheck"),
    ("/v3/jobs/hello", "sayHello"),
    ("/v3/oauth2/hello", "oauth2_hello"),
    ("/v3/oauth2/ready", "oauth2_ready"),
    ("/v3/tenants/hello", "tenants_hello"),
    ("/v3/tenants/ready", "tenants_ready"),
)

_numbers = itertools.count(1)


async def check(ports: ThePorts) -> Response:
    """Ready when the database answers."""
    try:
        await auth.all_tenants(ports)
    except Exception as unreachable:
        return problem_answer(NOT_READY, f"the database does not answer ({type(unreachable).__name__})")
    result: dict[str, Any] = {
        "checkNum": next(_numbers),
        "databaseAccess": True,
        "tenantsAccess": True,
        "queueAccess": True,
    }
    return answer(result, "ready")


for path, operation_id in CHECKS:
    router.add_api_route(path, check, operation_id=operation_id, response_model=Envelope[Health])
