"""The images that pods may run: any while none is listed for a tenant, else those listed and of built-in templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from images.reference import ArchiveReference, PathReference, RegistryReference, parse_reference
from scheduler.model.errors import AlreadyExists, Forbidden, NotFound, SpecInvalid
from scheduler.model.pod_catalog import AllowedImage
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.security.authorize import demand_admin
from scheduler.services.pod_built_in import built_in
from scheduler.store.pod_catalog import PodImageStore
from scheduler.store.requests import AuditStore
from scheduler.store.tenants import TenantStore


async def list_images(ports: Ports, caller: Principal) -> Sequence[AllowedImage]:
    """What pods of the caller's tenant may run."""
    async with ports.reading() as db:
        return await PodImageStore(db).serving(caller.tenant)


async def get(ports: Ports, caller: Principal, image: str) -> AllowedImage:
    """NotFound when it is not listed."""
    for listed in await list_images(ports, caller):
        if listed.image == image:
            return listed
    raise NotFound("image", image)


async def add(
    ports: Ports, caller: Principal, images: Sequence[AllowedImage], *, skip_duplicates: bool = False
) -> Sequence[AllowedImage]:
    """List images, all or none; those that were new. AlreadyExists for one that is listed, unless it may be skipped.

    For other tenants than the caller's only by an admin of the site's own tenant.
    """
    demand_admin(caller, "list images for pods")
    for image in images:
        _check_name(image.image)
    now = ports.clock()
    async with ports.transaction() as db:
        await _check_tenants(db, caller, images)
        added = []
        for image in images:
            if await PodImageStore(db).add(image):
                added.append(image)
                detail = {"tenants": list(image.tenants)}
                await AuditStore(db).add(caller.tenant, caller.username, "pod-image.add", image.image, detail, now)
            elif not skip_duplicates:
                raise AlreadyExists("image", image.image)
    return added


async def remove(ports: Ports, caller: Principal, image: str) -> None:
    """Take an image off the list. Pods that run it go on."""
    demand_admin(caller, "change which images pods may run")
    async with ports.transaction() as db:
        await PodImageStore(db).remove(caller.tenant, image)
        await AuditStore(db).add(caller.tenant, caller.username, "pod-image.remove", image, {}, ports.clock())


async def check_allowed(db: Any, caller: Principal, image: str) -> None:
    """SpecInvalid when pods of the caller's tenant may not run it.

    A path of the place where it runs only where it is listed: a directory there would show the pod all that its login
    may read.
    """
    serving = [each for each in await PodImageStore(db).serving(caller.tenant) if each.serves(caller.tenant)]
    is_path = isinstance(parse_reference(image), PathReference | ArchiveReference)
    if not serving and not (is_path and not caller.is_admin):
        return
    known = {name_of(each.image) for each in serving} | _of_templates()
    if name_of(image) not in known:
        raise SpecInvalid.of(
            "image", f"'{image[:120]}' is not among the images that pods may run", "GET /v3/pods/images lists them"
        )


def name_of(image: str) -> str:
    """An image without its tag, in one spelling."""
    reference = parse_reference(image)
    return f"{reference.host}/{reference.repository}" if isinstance(reference, RegistryReference) else str(reference)


def _of_templates() -> frozenset[str]:
    return frozenset(name_of(tag.definition["image"]) for each in built_in().values() for tag in each.tags)


def _check_name(image: str) -> None:
    reference = parse_reference(image)
    said = image.rpartition("/")[2]
    if isinstance(reference, RegistryReference) and (":" in said or "@" in said):
        raise SpecInvalid.of("image", f"'{image[:120]}' has a tag or digest", "leave it out: every tag is meant")


async def _check_tenants(db: Any, caller: Principal, images: Sequence[AllowedImage]) -> None:
    foreign = sorted({name for image in images for name in image.tenants} - {caller.tenant, f"-{caller.tenant}"})
    if not foreign:
        return
    sites = {site.id: site for site in await TenantStore(db).sites()}
    tenant = next((each for each in await TenantStore(db).tenants() if each.id == caller.tenant), None)
    site = sites.get(tenant.site_id) if tenant else None
    if site is None or site.admin_tenant_id != caller.tenant:
        raise Forbidden(f"tenants: only an admin of the site's own tenant may list images for '{foreign[0]}'")
