"""Apps and their versions."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from api.context import BaseUrl, Caller, MayRepeat, ThePorts
from api.definitions import attributes_in, checked, counting, defaults, patch_body
from api.envelope import Changes, Envelope, Truth, Url, answer
from api.lists import Listing, listing, selected
from api.schemas.apps import PATCHABLE, SUMMARY, AppBody, AppView, definition_of
from api.strict import StrictRoute
from scheduler.model.apps import App
from scheduler.security.authorize import Action
from scheduler.services import apps
from scheduler.services.systems import scope_of

router = APIRouter(prefix="/v3/apps", tags=["apps"], route_class=StrictRoute)

FIELDS: Mapping[str, str] = {
    "id": "id",
    "version": "version",
    "owner": "owner",
    "enabled": "enabled",
    "versionEnabled": "version_enabled",
    "deleted": "deleted",
    "isPublic": "is_public",
    "created": "created_at",
    "updated": "updated_at",
}
"""What apps may be searched and sorted by."""

ListType = Literal["OWNED", "SHARED_PUBLIC", "SHARED_DIRECT", "READ_PERM", "MINE", "ALL"]


AppPatch = patch_body("AppPatch", AppBody, PATCHABLE)


@router.get("", operation_id="getApps", response_model=Envelope[list[dict[str, Any]]])
async def list_apps(
    ports: ThePorts,
    caller: Caller,
    asked: Annotated[Listing, Depends(listing)],
    listType: ListType = "OWNED",
    showDeleted: bool = False,
) -> Response:
    """Versions of apps that the caller owns, or that are shared."""
    scope = scope_of(caller, listType, deleted=showDeleted)
    found = await apps.list_apps(ports, caller, asked.page(FIELDS), scope, total=asked.compute_total)
    items = [selected(AppView.of(app).model_dump(), asked.select, SUMMARY) for app in found.items[: asked.most]]
    return answer(items, "apps found", metadata=asked.metadata(len(found.items), found.total))


@router.post("", operation_id="createAppVersion", status_code=201, response_model=Envelope[Url])
async def create_app_version(
    ports: ThePorts, caller: Caller, base_url: BaseUrl, body: AppBody, repeatable: MayRepeat
) -> Response:
    """Define a version of an app."""
    app = body.to_app(tenant=caller.tenant, caller=caller.username, uuid=str(uuid.uuid4()))
    app_id, version = await apps.create(ports, caller, app, repeatable)
    url = f"{base_url}/v3/apps/{app_id}/{version}"
    return answer({"url": url}, f"app '{app_id}' {version} created", status_code=201, headers={"Location": url})


@router.get("/{appId}", operation_id="getAppLatestVersion", response_model=Envelope[AppView])
async def get_latest(
    ports: ThePorts,
    caller: Caller,
    appId: str,
    requireExecPerm: bool = False,
    select: Annotated[str, Query(max_length=4000)] = "allAttributes",
) -> Response:
    """The version made last of those that are enabled."""
    app = await apps.latest(ports, caller, appId, Action.EXECUTE if requireExecPerm else Action.READ)
    return answer(selected(AppView.of(app).model_dump(), select, SUMMARY), f"app '{appId}' found")


@router.get("/{appId}/isEnabled", operation_id="apps_isEnabled", response_model=Envelope[Truth])
async def is_enabled(
    ports: ThePorts,
    caller: Caller,
    appId: str,
    version: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Whether the app (or one version of it) may be run."""
    enabled = await apps.is_enabled(ports, caller, appId, version)
    return answer({"aBool": enabled}, "checked")


@router.get("/{appId}/{appVersion}", operation_id="getApp", response_model=Envelope[AppView])
async def get_app(
    ports: ThePorts,
    caller: Caller,
    appId: str,
    appVersion: str,
    requireExecPerm: bool = False,
    select: Annotated[str, Query(max_length=4000)] = "allAttributes",
) -> Response:
    """One version of an app."""
    app = await apps.get(ports, caller, appId, appVersion, Action.EXECUTE if requireExecPerm else Action.READ)
    return answer(selected(AppView.of(app).model_dump(), select, SUMMARY), f"app '{appId}' {appVersion} found")


@router.patch("/{appId}/{appVersion}", operation_id="patchApp", response_model=Envelope[Url])
async def patch_app(
    ports: ThePorts,
    caller: Caller,
    base_url: BaseUrl,
    appId: str,
    appVersion: str,
    body: AppPatch,  # type: ignore[valid-type]
) -> Response:
    """Change the attributes that are given; inside ``jobAttributes`` too, lists are replaced whole."""
    changes = attributes_in(body)
    await apps.change_version(ports, caller, appId, appVersion, "patch", lambda app: _merged(app, changes))
    return answer({"url": f"{base_url}/v3/apps/{appId}/{appVersion}"}, f"app '{appId}' {appVersion} changed")


@router.put("/{appId}/{appVersion}", operation_id="putApp", response_model=Envelope[Url])
async def put_app(
    ports: ThePorts,
    caller: Caller,
    base_url: BaseUrl,
    appId: str,
    appVersion: str,
    body: AppPatch,  # type: ignore[valid-type]
) -> Response:
    """Replace every attribute that may change; what is left out gets its default."""
    values = {**defaults(AppBody, PATCHABLE - {"containerImage"}), **attributes_in(body)}
    await apps.change_version(ports, caller, appId, appVersion, "put", lambda app: _merged(app, values, whole=True))
    return answer({"url": f"{base_url}/v3/apps/{appId}/{appVersion}"}, f"app '{appId}' {appVersion} replaced")


def _switch_all(path: str, operation_id: str, changed: Callable[[App], App]) -> None:
    """A route that changes one flag of all versions of an app."""

    @router.post(f"/{{appId}}/{path}", operation_id=operation_id, response_model=Envelope[Changes], name=operation_id)
    async def switch(ports: ThePorts, caller: Caller, appId: str) -> Response:
        """Change one flag of every version; ``changes`` counts those that were not so already."""
        changes = await apps.change_all(ports, caller, appId, path, changed, deleted=path == "undelete")
        return answer({"changes": changes}, f"{path}: app '{appId}'")


def _switch_version(path: str, operation_id: str, changed: Callable[[App], App]) -> None:
    """A route that changes one flag of one version of an app."""

    @router.post(
        f"/{{appId}}/{{appVersion}}/{path}",
        operation_id=operation_id,
        response_model=Envelope[Changes],
        name=operation_id,
    )
    async def switch(
        ports: ThePorts,
        caller: Caller,
        appId: str,
        appVersion: str,
    ) -> Response:
        """Change one flag of this version; ``changes`` is 0 when it was so already."""
        change, made = counting(changed)
        await apps.change_version(ports, caller, appId, appVersion, path, change, locked_too=True)
        return answer({"changes": len(made)}, f"{path}: app '{appId}' {appVersion}")


_switch_all("enable", "enableApp", lambda app: replace(app, enabled=True))
_switch_all("disable", "disableApp", lambda app: replace(app, enabled=False))
_switch_all("delete", "deleteApp", lambda app: replace(app, deleted=True))
_switch_all("undelete", "undeleteApp", lambda app: replace(app, deleted=False))
_switch_version("enable", "enableAppVersion", lambda app: replace(app, version_enabled=True))
_switch_version("disable", "disableAppVersion", lambda app: replace(app, version_enabled=False))
_switch_version("lock", "lockApp", lambda app: replace(app, locked=True))
_switch_version("unlock", "unlockApp", lambda app: replace(app, locked=False))


def _merged(app: App, changes: Mapping[str, Any], *, whole: bool = False) -> App:
    """The app with some of its attributes replaced, checked as a new one would be."""
    before = definition_of(app)
    attributes = changes.get("jobAttributes")
    if attributes is not None and not whole:
        changes = {**changes, "jobAttributes": {**before["jobAttributes"], **attributes}}
    body = checked(AppBody, {**before, **changes})
    made = body.to_app(tenant=app.tenant, caller=app.owner, uuid=app.uuid)
    return replace(
        made,
        owner=app.owner,
        enabled=app.enabled,
        version_enabled=app.version_enabled,
        locked=app.locked,
        is_public=app.is_public,
        deleted=app.deleted,
        created_at=app.created_at,
    )
