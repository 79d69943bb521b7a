"""Apps and their versions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError, create_model

from api.context import BaseUrl, Caller, MayRepeat, ThePorts
from api.envelope import Changes, Envelope, Truth, Url, answer
from api.lists import Listing, listing, selected
from api.schemas.apps import PATCHABLE, SUMMARY, AppBody, AppView, definition_of
from api.schemas.base import Body
from scheduler.model.apps import App
from scheduler.security.authorize import Action
from scheduler.services import apps

router = APIRouter(prefix="/v3/apps", tags=["apps"])

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


class AppPut(Body):
    """Base of the two bodies that change an app; what may not change is taken and ignored, as in Tapis."""

    output_only = AppBody.output_only | (AppBody.model_fields.keys() - PATCHABLE)


def _loose(name: str) -> Any:
    """A field of AppBody that may be left out; its value is checked when the whole app is."""
    return AppBody.model_fields[name].annotation | None, None  # type: ignore[operator]


AppPatch = create_model("AppPatch", __base__=AppPut, **{name: _loose(name) for name in sorted(PATCHABLE)})


@router.get("", operation_id="getApps", response_model=Envelope[list[dict[str, Any]]])
async def list_apps(
    ports: ThePorts,
    caller: Caller,
    asked: Annotated[Listing, Depends(listing)],
    listType: ListType = "OWNED",  # noqa: N803 - the wire's word
    showDeleted: bool = False,  # noqa: N803 - the wire's word
) -> Response:
    """Versions of apps that the caller owns, or that are shared."""
    found = await apps.list_apps(
        ports, caller, asked.page(FIELDS), kind=listType, deleted=showDeleted, total=asked.compute_total
    )
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
    appId: str,  # noqa: N803 - the wire's word
    requireExecPerm: bool = False,  # noqa: N803 - the wire's word
    select: Annotated[str, Query(max_length=4000)] = "allAttributes",
) -> Response:
    """The version made last of those that are enabled."""
    app = await apps.latest(ports, caller, appId, Action.EXECUTE if requireExecPerm else Action.READ)
    return answer(selected(AppView.of(app).model_dump(), select, SUMMARY), f"app '{appId}' found")


@router.get("/{appId}/isEnabled", operation_id="apps_isEnabled", response_model=Envelope[Truth])
async def is_enabled(
    ports: ThePorts,
    caller: Caller,
    appId: str,  # noqa: N803 - the wire's word
    version: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Whether the app (or one version of it) may be run."""
    enabled = await apps.is_enabled(ports, caller, appId, version)
    return answer({"aBool": enabled}, "checked")


@router.get("/{appId}/{appVersion}", operation_id="getApp", response_model=Envelope[AppView])
async def get_app(
    ports: ThePorts,
    caller: Caller,
    appId: str,  # noqa: N803 - the wire's word
    appVersion: str,  # noqa: N803 - the wire's word
    requireExecPerm: bool = False,  # noqa: N803 - the wire's word
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
    appId: str,  # noqa: N803 - the wire's word
    appVersion: str,  # noqa: N803 - the wire's word
    body: AppPatch,  # type: ignore[valid-type]
) -> Response:
    """Change the attributes that are given; inside ``jobAttributes`` too, lists are replaced whole."""
    changes: dict[str, Any] = body.model_dump(exclude_unset=True)  # type: ignore[attr-defined]
    await apps.change_version(ports, caller, appId, appVersion, "patch", lambda app: _merged(app, changes))
    return answer({"url": f"{base_url}/v3/apps/{appId}/{appVersion}"}, f"app '{appId}' {appVersion} changed")


@router.put("/{appId}/{appVersion}", operation_id="putApp", response_model=Envelope[Url])
async def put_app(
    ports: ThePorts,
    caller: Caller,
    base_url: BaseUrl,
    appId: str,  # noqa: N803 - the wire's word
    appVersion: str,  # noqa: N803 - the wire's word
    body: AppPatch,  # type: ignore[valid-type]
) -> Response:
    """Replace every attribute that may change; what is left out gets its default."""
    given: dict[str, Any] = body.model_dump(exclude_unset=True)  # type: ignore[attr-defined]
    defaults = {name: AppBody.model_fields[name].get_default() for name in PATCHABLE - {"containerImage"}}
    await apps.change_version(
        ports, caller, appId, appVersion, "put", lambda app: _merged(app, {**defaults, **given}, whole=True)
    )
    return answer({"url": f"{base_url}/v3/apps/{appId}/{appVersion}"}, f"app '{appId}' {appVersion} replaced")


def _switch_all(path: str, operation_id: str, field: str, value: bool) -> None:
    """A route that sets one flag of all versions of an app."""

    @router.post(f"/{{appId}}/{path}", operation_id=operation_id, response_model=Envelope[Changes], name=operation_id)
    async def switch(ports: ThePorts, caller: Caller, appId: str) -> Response:  # noqa: N803 - the wire's word
        changes = await apps.change_all(
            ports, caller, appId, path, lambda app: replace(app, **{field: value}), deleted=field == "deleted"
        )
        return answer({"changes": changes}, f"{path}: app '{appId}'")


def _switch_version(path: str, operation_id: str, field: str, value: bool) -> None:
    """A route that sets one flag of one version of an app."""

    @router.post(
        f"/{{appId}}/{{appVersion}}/{path}",
        operation_id=operation_id,
        response_model=Envelope[Changes],
        name=operation_id,
    )
    async def switch(
        ports: ThePorts,
        caller: Caller,
        appId: str,  # noqa: N803 - the wire's word
        appVersion: str,  # noqa: N803 - the wire's word
    ) -> Response:
        changes = 0

        def set_flag(app: App) -> App:
            nonlocal changes
            changes = int(getattr(app, field) is not value)
            return replace(app, **{field: value})

        await apps.change_version(ports, caller, appId, appVersion, path, set_flag, locked_too=True)
        return answer({"changes": changes}, f"{path}: app '{appId}' {appVersion}")


for _path, _operation, _field, _value in (
    ("enable", "enableApp", "enabled", True),
    ("disable", "disableApp", "enabled", False),
    ("delete", "deleteApp", "deleted", True),
    ("undelete", "undeleteApp", "deleted", False),
):
    _switch_all(_path, _operation, _field, _value)

for _path, _operation, _field, _value in (
    ("enable", "enableAppVersion", "version_enabled", True),
    ("disable", "disableAppVersion", "version_enabled", False),
    ("lock", "lockApp", "locked", True),
    ("unlock", "unlockApp", "locked", False),
):
    _switch_version(_path, _operation, _field, _value)


def _merged(app: App, changes: Mapping[str, Any], *, whole: bool = False) -> App:
    """The app with some of its attributes replaced, checked as a new one would be."""
    before = definition_of(app)
    attributes = changes.get("jobAttributes")
    if attributes is not None and not whole:
        changes = {**changes, "jobAttributes": {**before["jobAttributes"], **attributes}}
    try:
        body = AppBody.model_validate({**before, **changes})
    except ValidationError as wrong:
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in wrong.errors()]) from None
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
