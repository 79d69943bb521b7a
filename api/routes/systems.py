"""Systems: define, ask, change, share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query, Response

from api.context import BaseUrl, Caller, MayRepeat, ThePorts
from api.definitions import attributes_in, checked, counting, defaults, patch_body
from api.envelope import Changes, Envelope, Names, Truth, Url, answer
from api.lists import Listing, listing, selected
from api.schemas.base import Id, UserName
from api.schemas.node_facts import NodeFactsView
from api.schemas.placement import estimate_view
from api.schemas.strays import StrayView
from api.schemas.systems import (
    PATCHABLE,
    SUMMARY,
    MatchBody,
    PastJobsBody,
    PastJobsView,
    PermissionsBody,
    ProbeBody,
    SystemBody,
    SystemView,
    definition_of,
)
from api.strict import StrictRoute
from scheduler.model.probes import ProbeAsk
from scheduler.model.systems import AuthnMethod, Credential, System
from scheduler.model.users import Permission, Principal
from scheduler.security.authorize import Action
from scheduler.services import history, node_facts, placement, strays, systems
from scheduler.services.credentials import GivenCredential, credential_of, one_key
from scheduler.services.history import GivenRecord, RecordFormat

router = APIRouter(prefix="/v3/systems", tags=["systems"], route_class=StrictRoute)

FIELDS: Mapping[str, str] = {
    "id": "id",
    "owner": "owner",
    "host": "host",
    "systemType": "kind",
    "canExec": "can_exec",
    "enabled": "enabled",
    "deleted": "deleted",
    "isPublic": "is_public",
    "created": "created_at",
    "updated": "updated_at",
}
"""What systems may be searched and sorted by."""

ListType = Literal["OWNED", "SHARED_PUBLIC", "ALL"]


SystemPatch = patch_body("SystemPatch", SystemBody, PATCHABLE)


@router.get("", operation_id="getSystems", response_model=Envelope[list[dict[str, Any]]])
async def list_systems(
    ports: ThePorts,
    caller: Caller,
    asked: Annotated[Listing, Depends(listing)],
    listType: ListType = "OWNED",
    showDeleted: bool = False,
) -> Response:
    """Systems that the caller owns, or that are shared."""
    scope = systems.scope_of(caller, listType, deleted=showDeleted)
    found = await systems.list_systems(ports, caller, asked.page(FIELDS), scope, total=asked.compute_total)
    views = [SystemView.of(system, caller=caller.username) for system in found.items[: asked.most]]
    items = [selected(view.model_dump(), asked.select, SUMMARY) for view in views]
    return answer(items, "systems found", metadata=asked.metadata(len(found.items), found.total))


@router.post("", operation_id="createSystem", status_code=201, response_model=Envelope[Url])
async def create_system(
    ports: ThePorts,
    caller: Caller,
    base_url: BaseUrl,
    body: SystemBody,
    repeatable: MayRepeat,
    skipCredentialCheck: bool = False,
) -> Response:
    """Define a system. A credential in it is tried by a real login, unless that is skipped."""
    system = body.to_system(tenant=caller.tenant, caller=caller.username, uuid=str(uuid.uuid4()))
    credential = None
    if body.authnCredential is not None:
        given = GivenCredential(
            login_user=body.authnCredential.loginUser,
            private_key=body.authnCredential.privateKey,
            public_key=body.authnCredential.publicKey,
            password=body.authnCredential.password,
            access_token=body.authnCredential.accessToken,
        )
        credential = await credential_of(given, system, system.effective_user_id, check=not skipCredentialCheck)
    system_id = await systems.create(
        ports,
        caller,
        system,
        credential,
        check_credential=not skipCredentialCheck,
        repeatable=repeatable,
    )
    url = f"{base_url}/v3/systems/{system_id}"
    return answer({"url": url}, f"system '{system_id}' created", status_code=201, headers={"Location": url})


@router.post("/match/constraints", operation_id="matchConstraints", response_model=Envelope[list[SystemView]])
async def match_constraints(ports: ThePorts, caller: Caller, body: MatchBody) -> Response:
    """Systems that meet the constraints and where the caller may run jobs, soonest result first.

    What is expected of each is in its ``notes.berth.estimate``.
    """
    items = []
    for system, estimate in await placement.matching(ports, caller, body.match):
        view = SystemView.of(system, caller=caller.username).model_dump()
        if estimate is not None:
            view["notes"] = _with_estimate(system, estimate_view(estimate))
        items.append(view)
    return answer(items, f"{len(items)} systems match")


@router.post("/probe", operation_id="probeSystem", response_model=Envelope[dict[str, Any]])
async def probe(ports: ThePorts, caller: Caller, body: ProbeBody) -> Response:
    """Log in to a host and look around: a system definition to review, and what showed each fact."""
    stored = body.systemId if body.privateKey is None and body.password is None else None
    ask = ProbeAsk(
        host=body.host,
        port=body.port,
        system_id=body.systemId,
        credential=Credential(
            tenant=caller.tenant,
            system_id=body.systemId or "",
            user=caller.username,
            login_user=body.loginUser or caller.username,
            method=AuthnMethod.PASSWORD if body.password else AuthnMethod.PKI_KEYS,
            private_key=one_key(body.privateKey) if body.privateKey else None,
            password=body.password,
        ),
    )
    report = await systems.probe(ports, caller, ask, stored_credential_of=stored)
    result = {
        "definition": dict(report.definition),
        "hostKey": report.host_key,
        "evidence": dict(report.evidence),
        "warnings": list(report.warnings),
    }
    return answer(result, f"{body.host} was looked at")


@router.get("/{systemId}", operation_id="getSystem", response_model=Envelope[SystemView])
async def get_system(
    ports: ThePorts,
    caller: Caller,
    systemId: str,
    requireExecPerm: bool = False,
    select: Annotated[str, Query(max_length=4000)] = "allAttributes",
) -> Response:
    """One system."""
    action = Action.EXECUTE if requireExecPerm else Action.READ
    system = await systems.get(ports, caller, systemId, action)
    known = await systems.has_credential(ports, caller, system)
    view = SystemView.of(system, caller=caller.username, has_credentials=known)
    return answer(selected(view.model_dump(), select, SUMMARY), f"system '{systemId}' found")


@router.patch("/{systemId}", operation_id="patchSystem", response_model=Envelope[Url])
async def patch_system(
    ports: ThePorts,
    caller: Caller,
    base_url: BaseUrl,
    systemId: str,
    body: SystemPatch,  # type: ignore[valid-type]
) -> Response:
    """Change the attributes that are given; lists and objects are replaced whole."""
    changes = attributes_in(body)
    await systems.change(
        ports, caller, systemId, Action.MODIFY, "patch", lambda system: _merged(caller, system, changes)
    )
    return answer({"url": f"{base_url}/v3/systems/{systemId}"}, f"system '{systemId}' changed")


@router.put("/{systemId}", operation_id="putSystem", response_model=Envelope[Url])
async def put_system(
    ports: ThePorts,
    caller: Caller,
    base_url: BaseUrl,
    systemId: str,
    body: SystemPatch,  # type: ignore[valid-type]
    skipCredentialCheck: bool = False,
) -> Response:
    """Replace every attribute that may change; what is left out gets its default."""
    values = {**defaults(SystemBody, PATCHABLE - {"host"}), **attributes_in(body)}
    await systems.change(ports, caller, systemId, Action.MODIFY, "put", lambda system: _merged(caller, system, values))
    return answer({"url": f"{base_url}/v3/systems/{systemId}"}, f"system '{systemId}' replaced")


@router.post("/{systemId}/pastJobs", operation_id="learnPastJobs", response_model=Envelope[PastJobsView])
async def learn_past_jobs(ports: ThePorts, caller: Caller, systemId: str, body: PastJobsBody) -> Response:
    """Learn how long jobs waited from what the site's own records tell. The same text again changes nothing."""
    given = GivenRecord(
        format=RecordFormat(body.format),
        text=body.text,
        queue=body.queue,
        zone=ZoneInfo(body.timeZone) if body.timeZone else None,
    )
    learnt = await history.learn(ports, caller, systemId, given)
    message = f"{learnt.kept_jobs} of {learnt.told_jobs} jobs are kept"
    return answer(PastJobsView.of(learnt).model_dump(), message)


@router.get("/{systemId}/nodeFacts", operation_id="getNodeFacts", response_model=Envelope[list[NodeFactsView]])
async def node_facts_of(ports: ThePorts, caller: Caller, systemId: str) -> Response:
    """What the nodes of a system can do, by class, each fact with what showed it."""
    found = await node_facts.facts(ports, caller, systemId)
    return answer([NodeFactsView.of(nodes).model_dump() for nodes in found], f"{len(found)} classes of nodes")


@router.post("/{systemId}/nodeFacts", operation_id="lookAtNodes", response_model=Envelope[Changes])
async def look_at_nodes(ports: ThePorts, caller: Caller, systemId: str) -> Response:
    """Let small jobs look at the nodes again, soon; what is known holds until then."""
    await node_facts.look_again(ports, caller, systemId)
    return answer({"changes": 1}, f"the nodes of system '{systemId}' are looked at again")


@router.get("/{systemId}/strays", operation_id="getStrays", response_model=Envelope[list[StrayView]])
async def strays_of(ports: ThePorts, caller: Caller, systemId: str) -> Response:
    """Runs of Berth's kind on a system that no job and no pod waits for, as two looks at it agreed. MODIFY."""
    found = await strays.of_system(ports, caller, systemId)
    return answer([StrayView.of(stray).model_dump() for stray in found], f"{len(found)} strays")


@router.get("/{systemId}/isEnabled", operation_id="isEnabled", response_model=Envelope[Truth])
async def is_enabled(ports: ThePorts, caller: Caller, systemId: str) -> Response:
    """Whether the system takes jobs."""
    system = await systems.get(ports, caller, systemId)
    return answer({"aBool": system.enabled}, "checked")


def _switch(path: str, operation_id: str, action: Action, changed: Callable[[System], System]) -> None:
    """A route that changes one flag of a system."""

    @router.post(
        f"/{{systemId}}/{path}", operation_id=operation_id, response_model=Envelope[Changes], name=operation_id
    )
    async def switch(ports: ThePorts, caller: Caller, systemId: str) -> Response:
        """Change one flag; ``changes`` is 0 when it was so already."""
        change, made = counting(changed)
        await systems.change(ports, caller, systemId, action, path, change, deleted=path == "undelete")
        return answer({"changes": len(made)}, f"{path}: system '{systemId}'")


_switch("enable", "enableSystem", Action.MODIFY, lambda system: replace(system, enabled=True))
_switch("disable", "disableSystem", Action.MODIFY, lambda system: replace(system, enabled=False))
_switch("delete", "deleteSystem", Action.OWN, lambda system: replace(system, deleted=True))
_switch("undelete", "undeleteSystem", Action.OWN, lambda system: replace(system, deleted=False))


@router.get("/perms/{systemId}/user/{userName}", operation_id="getUserPerms", response_model=Envelope[Names])
async def get_permissions(
    ports: ThePorts,
    caller: Caller,
    systemId: str,
    userName: str,
) -> Response:
    """What a user may do with a system."""
    names = await systems.permissions(ports, caller, systemId, userName)
    return answer({"names": sorted(names)}, "permissions found")


@router.post("/perms/{systemId}/user/{userName}", operation_id="grantUserPerms", response_model=Envelope[Names])
async def grant_permissions(
    ports: ThePorts,
    caller: Caller,
    systemId: Id,
    userName: UserName,
    body: PermissionsBody,
) -> Response:
    """Give permissions."""
    await systems.grant(ports, caller, systemId, userName, _permissions(body))
    return answer({"names": body.permissions}, f"granted to {userName}")


@router.post("/perms/{systemId}/user/{userName}/revoke", operation_id="revokeUserPerms", response_model=Envelope[Names])
async def revoke_permissions(
    ports: ThePorts,
    caller: Caller,
    systemId: str,
    userName: str,
    body: PermissionsBody,
) -> Response:
    """Take permissions away."""
    await systems.grant(ports, caller, systemId, userName, _permissions(body), revoke=True)
    return answer({"names": body.permissions}, f"revoked from {userName}")


@router.delete(
    "/perms/{systemId}/user/{userName}/{permission}", operation_id="revokeUserPerm", response_model=Envelope[Names]
)
async def revoke_permission(
    ports: ThePorts,
    caller: Caller,
    systemId: str,
    userName: str,
    permission: Permission,
) -> Response:
    """Take one permission away."""
    await systems.grant(ports, caller, systemId, userName, [permission], revoke=True)
    return answer({"names": [permission]}, f"revoked from {userName}")


def _permissions(body: PermissionsBody) -> list[Permission]:
    return [Permission(name) for name in body.permissions]


def _merged(caller: Principal, system: System, changes: Mapping[str, Any]) -> System:
    """The system with some of its attributes replaced, checked as a new one would be."""
    body = checked(SystemBody, {**definition_of(system), **changes})
    whole = body.to_system(tenant=system.tenant, caller=system.owner, uuid=system.uuid)
    return replace(
        whole,
        owner=system.owner,
        root_dir=system.root_dir,
        enabled=system.enabled,
        deleted=system.deleted,
        is_public=system.is_public,
        host_key=system.host_key,
        created_at=system.created_at,
    )


def _with_estimate(system: System, estimate: Mapping[str, Any]) -> dict[str, Any]:
    return {**system.notes, "berth": {**system.berth_notes, "estimate": estimate}}
