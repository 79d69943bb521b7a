"""Templates of pods, and the images that pods may run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Response

from api.context import Caller, ThePorts
from api.envelope import Envelope, answer, told
from api.permissions import permission_routes
from api.schemas.pod_catalog import (
    AllowedImageView,
    NewImage,
    NewTag,
    NewTemplate,
    TaggedTemplateView,
    TagView,
    TemplateView,
    UpdateTemplate,
)
from api.strict import StrictRoute
from scheduler.model.pod_catalog import AllowedImage, PodKind, PodTemplate
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.services import pod_images, pod_templates

router = APIRouter(prefix="/v3/pods", tags=["pods"], route_class=StrictRoute)

TemplateId = Annotated[str, Path(max_length=120)]
TagId = Annotated[str, Path(max_length=200, description="tag, or tag@timestamp")]
ImageId = Annotated[str, Path(max_length=300)]
Full = Annotated[bool, Query(description="With what each tag holds")]


@router.get("/templates", operation_id="list_templates", response_model=Envelope[list[TemplateView]])
async def list_templates(ports: ThePorts, caller: Caller) -> Response:
    """The templates that come with Berth, and those that the caller may READ."""
    found = await pod_templates.list_templates(ports, caller)
    return answer([TemplateView.of(template) for template in found], "templates found")


@router.post("/templates", operation_id="add_template", response_model=Envelope[TemplateView])
async def add_template(ports: ThePorts, caller: Caller, body: NewTemplate) -> Response:
    """Make a template; ``add_template_tag`` gives it a definition."""
    now = ports.clock()
    template = PodTemplate(
        tenant=caller.tenant,
        id=body.template_id,
        owner=caller.username,
        description=body.description,
        metatags=tuple(body.metatags),
        archive_message=body.archive_message,
        created_at=now,
        updated_at=now,
    )
    made = await pod_templates.add(ports, caller, template)
    return answer(TemplateView.of(made), f"template '{made.id}' created")


@router.get(
    "/templates/tags", operation_id="list_templates_and_tags", response_model=Envelope[list[TaggedTemplateView]]
)
async def list_templates_and_tags(ports: ThePorts, caller: Caller, full: Full = True) -> Response:
    """Every template that the caller may READ, with its tags."""
    found = await pod_templates.all_tags(ports, caller)
    return answer([TaggedTemplateView.with_tags(*each, full=full) for each in found], "templates found")


@router.get("/templates/{template_id}", operation_id="get_template", response_model=Envelope[TemplateView])
async def get_template(ports: ThePorts, caller: Caller, template_id: TemplateId) -> Response:
    """A template. READ."""
    return answer(TemplateView.of(await pod_templates.get(ports, caller, template_id)), "template found")


@router.put("/templates/{template_id}", operation_id="update_template", response_model=Envelope[TemplateView])
async def update_template(ports: ThePorts, caller: Caller, template_id: TemplateId, body: UpdateTemplate) -> Response:
    """Change what describes a template. USER."""
    newer = await pod_templates.update(ports, caller, template_id, body.changes())
    return answer(TemplateView.of(newer), f"template '{template_id}' changed")


@router.delete("/templates/{template_id}", operation_id="delete_template", response_model=Envelope[str])
async def delete_template(ports: ThePorts, caller: Caller, template_id: TemplateId) -> Response:
    """Forget a template and its tags; pods that were made from it stay. ADMIN."""
    await pod_templates.remove(ports, caller, template_id)
    return told(f"template '{template_id}' deleted")


@router.get("/templates/{template_id}/tags", operation_id="list_template_tags", response_model=Envelope[list[TagView]])
async def list_template_tags(ports: ThePorts, caller: Caller, template_id: TemplateId, full: Full = True) -> Response:
    """All that was kept under a template, the newest first. READ."""
    found = await pod_templates.tags(ports, caller, template_id)
    return answer([TagView.of(tag, full=full) for tag in found], "tags found")


@router.post("/templates/{template_id}/tags", operation_id="add_template_tag", response_model=Envelope[TagView])
async def add_template_tag(ports: ThePorts, caller: Caller, template_id: TemplateId, body: NewTag) -> Response:
    """Keep a definition under a tag; the earlier one of this tag stays under its timestamp. USER."""
    fields = body.pod_definition.fields()
    stateful = fields.pop("stateful", None)
    tag = await pod_templates.add_tag(ports, caller, template_id, body.tag, fields, body.commit_message, stateful)
    return answer(TagView.of(tag), f"kept as '{template_id}:{tag.tag_timestamp}'")


@router.get(
    "/templates/{template_id}/tags/{tag_id}", operation_id="get_template_tag", response_model=Envelope[list[TagView]]
)
async def get_template_tag(ports: ThePorts, caller: Caller, template_id: TemplateId, tag_id: TagId) -> Response:
    """What was kept under a tag, the newest first. READ."""
    found = await pod_templates.tag(ports, caller, template_id, tag_id)
    return answer([TagView.of(tag) for tag in found], "tag found")


permission_routes(router, PodKind.TEMPLATE, "/templates/{name}")


@router.get("/images", operation_id="get_images", response_model=Envelope[list[AllowedImageView]])
async def get_images(ports: ThePorts, caller: Caller) -> Response:
    """What pods of the caller's tenant may run. While nothing is listed, they may run any image."""
    found = await pod_images.list_images(ports, caller)
    return answer([AllowedImageView.of(image) for image in found], "images found")


@router.post("/images", operation_id="add_image", response_model=Envelope[AllowedImageView])
async def add_image(ports: ThePorts, caller: Caller, body: NewImage) -> Response:
    """List an image; from the first on, pods run nothing but what is listed. For admins."""
    (added,) = await pod_images.add(ports, caller, [_image(ports, caller, body)])
    return answer(AllowedImageView.of(added), f"image '{added.image}' listed")


@router.post("/images/bulk", operation_id="add_images", response_model=Envelope[list[AllowedImageView]])
async def add_images(
    ports: ThePorts,
    caller: Caller,
    body: Annotated[list[NewImage], Body(max_length=1000)],
    skip_duplicates: bool = False,
) -> Response:
    """List several images, all or none; those that are listed already may be skipped. For admins."""
    images = [_image(ports, caller, each) for each in body]
    added = await pod_images.add(ports, caller, images, skip_duplicates=skip_duplicates)
    return answer([AllowedImageView.of(image) for image in added], f"{len(added)} images listed")


@router.get("/images/{image_id:path}", operation_id="get_image", response_model=Envelope[AllowedImageView])
async def get_image(ports: ThePorts, caller: Caller, image_id: ImageId) -> Response:
    """One image of the list."""
    return answer(AllowedImageView.of(await pod_images.get(ports, caller, image_id)), "image found")


@router.delete("/images/{image_id:path}", operation_id="delete_image", response_model=Envelope[str])
async def delete_image(ports: ThePorts, caller: Caller, image_id: ImageId) -> Response:
    """Take an image off the list. For admins."""
    await pod_images.remove(ports, caller, image_id)
    return told(f"image '{image_id}' is not listed any more")


def _image(ports: Ports, caller: Principal, body: NewImage) -> AllowedImage:
    return AllowedImage(
        tenant=caller.tenant,
        image=body.image,
        tenants=tuple(body.tenants) or (caller.tenant,),
        description=body.description,
        added_by=caller.username,
        created_at=ports.clock(),
    )
