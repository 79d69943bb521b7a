"""Templates of pods with their tags, and the images that pods may run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import AlreadyExists, NotFound
from scheduler.model.pod_catalog import AllowedImage, PodTemplate, TemplateTag
from scheduler.store import schema
from scheduler.store.statements import changed, insert_new

templates, tags, images = schema.pod_templates, schema.pod_template_tags, schema.pod_images

TAG_COLUMNS = [tags.c[field.name] for field in fields(TemplateTag)]


class PodTemplateStore:
    """The templates that users of a tenant made."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def add(self, template: PodTemplate) -> None:
        """AlreadyExists when the tenant has one of this name."""
        if not await insert_new(self._db, templates, _row(template)):
            raise AlreadyExists("template", template.id)

    async def get(self, tenant: str, template_id: str) -> PodTemplate:
        """NotFound when there is none."""
        found = await self._db.execute(select(templates).where(_is(tenant, template_id)))
        row = found.mappings().one_or_none()
        if row is None:
            raise NotFound("template", template_id)
        return PodTemplate(**row)

    async def list(self, tenant: str, names: Collection[str] | None = None) -> Sequence[PodTemplate]:
        """Templates by id; only those of these names, unless it is None."""
        query = select(templates).where(templates.c.tenant == tenant).order_by(templates.c.id)
        query = query if names is None else query.where(templates.c.id.in_(names))
        return [PodTemplate(**row) for row in (await self._db.execute(query)).mappings()]

    async def replace(self, template: PodTemplate) -> None:
        """Write what describes a template. NotFound when it is gone."""
        query = update(templates).where(_is(template.tenant, template.id)).values(**_row(template))
        if changed(await self._db.execute(query)) != 1:
            raise NotFound("template", template.id)

    async def remove(self, tenant: str, template_id: str) -> None:
        """Forget a template and all its tags. NotFound when there is none."""
        mine = tags.c.tenant == tenant, tags.c.template_id == template_id
        await self._db.execute(delete(tags).where(*mine))
        if changed(await self._db.execute(delete(templates).where(_is(tenant, template_id)))) != 1:
            raise NotFound("template", template_id)

    async def add_tag(self, tag: TemplateTag) -> None:
        """Keep a definition. AlreadyExists for a second one of the same tag within a second."""
        if not await insert_new(self._db, tags, asdict(tag)):
            raise AlreadyExists("template tag", f"{tag.template_id}:{tag.tag_timestamp}")

    async def tags(self, tenant: str, template_ids: Collection[str], tag: str | None = None) -> Sequence[TemplateTag]:
        """Everything that was kept under these templates, or under one tag of theirs, the newest first."""
        query = select(*TAG_COLUMNS).where(tags.c.tenant == tenant, tags.c.template_id.in_(template_ids))
        query = query if tag is None else query.where(tags.c.tag == tag)
        query = query.order_by(tags.c.template_id, tags.c.created_at.desc(), tags.c.tag)
        return [TemplateTag(**row) for row in (await self._db.execute(query)).mappings()]


class PodImageStore:
    """The images that pods of a tenant may run."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    async def add(self, image: AllowedImage) -> bool:
        """False, with nothing changed, when it is listed already."""
        return await insert_new(self._db, images, asdict(image))

    async def serving(self, tenant: str) -> Sequence[AllowedImage]:
        """What pods of this tenant may run, and what its own admins listed, by name."""
        found = (await self._db.execute(select(images).order_by(images.c.image))).mappings()
        listed = [AllowedImage(**row) for row in found]
        return [image for image in listed if image.tenant == tenant or image.serves(tenant)]

    async def remove(self, tenant: str, image: str) -> None:
        """NotFound when the tenant's admins did not list it."""
        query = delete(images).where(images.c.tenant == tenant, images.c.image == image)
        if changed(await self._db.execute(query)) != 1:
            raise NotFound("image", image)


def _is(tenant: str, template_id: str) -> ColumnElement[bool]:
    return and_(templates.c.tenant == tenant, templates.c.id == template_id)


def _row(template: PodTemplate) -> dict[str, Any]:
    row = asdict(template)
    del row["is_built_in"]
    return row
