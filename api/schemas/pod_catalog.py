"""What stands around pods, on the wire: templates and their tags, the list of allowed images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, StrictBool

from api.schemas.base import Body, Line, Text, View, showing
from api.schemas.pods import PodFields, naive
from scheduler.model.pod_catalog import AllowedImage, PodTemplate, TemplateTag

Description = Annotated[Line, Field(max_length=2048)]
Metatag = Annotated[Line, Field(max_length=126)]
Metatags = Annotated[list[Metatag], Field(max_length=100)]
TenantName = Annotated[str, Field(pattern=r"^(\*{1,2}|-?[a-z][a-z0-9_-]{0,23})$")]


class NewTemplate(Body):
    """A name for definitions of pods."""

    model_config = showing({"template_id": "mygraph", "description": "Our graph", "metatags": ["graph"]})

    template_id: Line
    description: Description = ""
    metatags: Metatags = Field(default_factory=list)
    archive_message: Description = ""


class UpdateTemplate(Body):
    """What describes a template, and is to change."""

    description: Description | None = None
    metatags: Metatags | None = None
    archive_message: Description | None = None

    def changes(self) -> dict[str, Any]:
        """What was said."""
        said = {name: value for name, value in self.model_dump(exclude_unset=True).items() if value is not None}
        return {**said, "metatags": tuple(said["metatags"])} if "metatags" in said else said


class DefinitionBody(PodFields):
    """A part of a pod. ``stateful``: whether its files may have one writer only."""

    template: Line | None = None
    stateful: StrictBool | None = None


class NewTag(Body):
    """A definition to keep under a tag."""

    model_config = showing(
        {"pod_definition": {"template": "neo4j", "resources": {"mem_limit": 8192}}, "commit_message": "More memory"}
    )

    pod_definition: DefinitionBody
    commit_message: Text
    tag: Line = "latest"


class SaveAsTag(Body):
    """Where to keep what a pod says."""

    template_id: Line
    commit_message: Text
    tag: Line = "latest"


class TemplateView(View):
    template_id: str
    description: str
    metatags: list[str]
    archive_message: str
    creation_ts: str
    update_ts: str

    @classmethod
    def of(cls, template: PodTemplate) -> TemplateView:
        return cls(
            template_id=template.id,
            description=template.description,
            metatags=list(template.metatags),
            archive_message=template.archive_message,
            creation_ts=str(naive(template.created_at)),
            update_ts=str(naive(template.updated_at)),
        )


class TagView(View):
    template_id: str
    pod_definition: dict[str, Any]
    commit_message: str
    tag: str
    tag_timestamp: str
    added_by: str
    creation_ts: str

    @classmethod
    def of(cls, tag: TemplateTag, *, full: bool = True) -> TagView:
        stateful = {} if tag.is_stateful is None else {"stateful": tag.is_stateful}
        return cls(
            template_id=tag.template_id,
            pod_definition={**tag.definition, **stateful} if full else {},
            commit_message=tag.commit_message,
            tag=tag.tag,
            tag_timestamp=tag.tag_timestamp,
            added_by=tag.added_by,
            creation_ts=str(naive(tag.created_at)),
        )


class TaggedTemplateView(TemplateView):
    tags: list[TagView]

    @classmethod
    def with_tags(cls, template: PodTemplate, tags: Sequence[TemplateTag], *, full: bool) -> TaggedTemplateView:
        """A template and all that was kept under it."""
        return cls(**TemplateView.of(template).__dict__, tags=[TagView.of(tag, full=full) for tag in tags])


class NewImage(Body):
    """An image, without a tag, that pods may run. ``tenants``: for whom; the caller's when nobody is named."""

    model_config = showing({"image": "python", "description": "Any tag of it"})

    image: Annotated[Line, Field(min_length=1)]
    tenants: Annotated[list[TenantName], Field(max_length=100)] = Field(default_factory=list)
    description: Description = ""


class AllowedImageView(View):
    image: str
    tenants: list[str]
    description: str
    creation_ts: str
    added_by: str

    @classmethod
    def of(cls, image: AllowedImage) -> AllowedImageView:
        return cls(
            image=image.image,
            tenants=list(image.tenants),
            description=image.description,
            creation_ts=str(naive(image.created_at)),
            added_by=image.added_by,
        )
