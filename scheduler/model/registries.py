"""How users are known to registries of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLogin:
    """One user's login for one registry, shown there for that user's images alone. ``repr`` hides the secret."""

    tenant: str
    user: str
    registry: str
    """``host[:port]``, as references write it."""
    username: str
    secret: str = field(repr=False)
    """A password or an access token."""
    verified_at: datetime | None = None
    """When the registry took it; None: not asked, or it asks nobody."""
    created_at: datetime | None = None
