"""Every place that images come from, behind the one interface: a reference is asked where its kind is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from images.access import Access
from images.credentials import Logins, no_logins
from images.downloads import Library, WebFiles
from images.exchange import Exchange
from images.layouts import Layouts
from images.manifests import Descriptor
from images.platforms import Platform
from images.pushed import never_pushed
from images.reference import (
    ArchiveReference,
    LibraryReference,
    PushedReference,
    Reference,
    RegistryReference,
    UrlReference,
)
from images.registry import Registry
from images.sources import Resolved, Sink, Source
from scheduler.model.errors import SpecInvalid


class Origins:
    """Registries, libraries, files on the web, and files of this host below ``folders``; all but what users pushed."""

    def __init__(self, exchange: Exchange, logins: Logins = no_logins, folders: Sequence[Path] = ()) -> None:
        self._by_kind: dict[type[Any], Source[Any]] = {
            RegistryReference: Registry(Access(exchange, logins)),
            ArchiveReference: Layouts(folders),
            LibraryReference: Library(exchange),
            UrlReference: WebFiles(exchange),
        }

    async def resolve(self, reference: Reference, target: Platform) -> Resolved[Reference]:
        """What ``reference`` means now; SpecInvalid for a file that lies on a system, where only jobs see it."""
        return await self._of(reference).resolve(reference, target)

    async def fetch(self, reference: Reference, blob: Descriptor, sink: Sink) -> None:
        """Bring a blob of the image into ``sink``."""
        await self._of(reference).fetch(reference, blob, sink)

    def _of(self, reference: Reference) -> Source[Any]:
        if isinstance(reference, PushedReference):
            raise never_pushed(reference)
        source = self._by_kind.get(type(reference))
        if source is None:
            raise SpecInvalid.of(
                "image", f"'{reference}' lies on a system, where only its runtime reads it", "name it in a registry"
            )
        return source
