"""What an API server must know of routes of a Gateway before it takes any: the part of their kind that Berth writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from testbed.host import wait_until

_GROUP, _PLURAL = "gateway.networking.k8s.io", "httproutes"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def _record(needed: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": needed, "properties": properties}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": of}


_TEXT = {"type": "string", "minLength": 1}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_ROUTE = _record(
    ["spec"],
    spec=_record(
        ["parentRefs", "hostnames", "rules"],
        parentRefs=_list(_record(["name"], name=_TEXT, namespace=_TEXT, sectionName=_TEXT)),
        hostnames=_list(_TEXT),
        rules=_list(_record([], backendRefs=_list(_record(["name"], name=_TEXT, port=_PORT)))),
    ),
)


@contextmanager
def known_to(admin: httpx.Client) -> Iterator[None]:
    """While this holds the API server takes such routes, checks them, and drops what it knows nothing of."""
    name = f"{_PLURAL}.{_GROUP}"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"}},
        "spec": {
            "group": _GROUP,
            "scope": "Namespaced",
            "names": {"plural": _PLURAL, "singular": "httproute", "kind": "HTTPRoute", "listKind": "HTTPRouteList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": _ROUTE}}],
        },
    }
    admin.post(_DEFINITIONS, json=definition).raise_for_status()
    try:
        wait_until(lambda: admin.get(f"/apis/{_GROUP}/v1/{_PLURAL}").is_success, "the API server knows routes", 30)
        yield
    finally:
        admin.delete(f"{_DEFINITIONS}/{name}").raise_for_status()
