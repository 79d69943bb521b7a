"""Files that users pushed, on the wire."""

from __future__ import annotations

from collections.abc import Mapping

from api.schemas.base import View
from images.reference import PushedReference
from scheduler.model.images import PushedImage
from scheduler.model.units import zulu

FIELDS: Mapping[str, str] = {
    "digest": "digest",
    "kind": "kind",
    "size": "size_bytes",
    "name": "name",
    "created": "created_at",
}
"""What files may be searched and sorted by."""


class PushedView(View):
    """A pushed file. ``reference``: its name for jobs. ``kind``: ``sif``, ``oci-archive`` or ``docker-archive``."""

    reference: str
    digest: str
    kind: str
    size: int
    name: str
    created: str

    @classmethod
    def of(cls, image: PushedImage) -> PushedView:
        return cls(
            reference=str(PushedReference(image.digest)),
            digest=image.digest,
            kind=image.kind,
            size=image.size_bytes,
            name=image.name,
            created=zulu(image.created_at),
        )
