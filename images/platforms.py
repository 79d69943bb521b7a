"""What machine an image is for, as registries, manifests and configs say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Platform:
    """In Go's words: ``linux``, ``amd64`` or ``arm64``, and a variant such as ``v3`` or ``v8`` where one is said."""

    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))
