"""How images are fetched on this machine: mirrors and plain registries as skopeo and Podman are told of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Registries:
    """mirrors: of a registry, places that are asked before it, each ``host[:port][/prefix]``.

    plain_http: ``host[:port]`` of registries and mirrors that are asked without TLS.
    """

    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    plain_http: Collection[str] = ()

    def conf(self) -> str:
        """The same as a ``registries.conf`` (version 2). Source: containers-registries.conf(5)."""
        blocks = [self._block(registry) for registry in sorted({*self.mirrors, *self.plain_http})]
        return "\n".join(["unqualified-search-registries = []", *blocks])

    def _block(self, registry: str) -> str:
        lines = ["[[registry]]", *self._place("location", registry)]
        for mirror in self.mirrors.get(registry, ()):
            lines += ["[[registry.mirror]]", *self._place("location", mirror)]
        return "\n".join(lines)

    def _place(self, key: str, place: str) -> list[str]:
        is_plain = place.partition("/")[0] in self.plain_http
        return [f"{key} = {json.dumps(place)}", *(["insecure = true"] if is_plain else [])]
