"""Names of pods at the cluster's own proxy: an Ingress, or routes of a Gateway, to the Service of a pod."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backends.k8s.api import INGRESSES, ROUTES, Object
from backends.k8s.objects import MANAGED, MARKER
from backends.k8s.site import Gateway, Ingress, Site
from scheduler.model.ids import Marker

Outside = Mapping[int, Sequence[str]]
"""The ports of a pod that clients from outside may reach, with the host names that anyone may ask them by."""


def fronts(marker: Marker, owner: Object, outside: Outside, site: Site) -> Iterator[tuple[Any, Object]]:
    """Each object with its kind; none for ports that Berth must stand before."""
    web = {port: names for port, names in outside.items() if names}
    if site.ingress is not None and web:
        yield INGRESSES, _ingress(marker, owner, web, site.ingress)
    if site.gateway is not None:
        for port, names in web.items():
            yield ROUTES, _route(marker, owner, port, names, site.gateway)


def about(name: str, marker: Marker, owner: Object) -> Object:
    """What each object of a pod says of itself; it goes with its owner, the pod's Job."""
    return {"name": name, "labels": {**MANAGED, MARKER: marker}, "ownerReferences": [owner]}


def _ingress(marker: Marker, owner: Object, web: Outside, asked: Ingress) -> Object:
    hosts = {f"{name}.{asked.domain}": port for port, names in web.items() for name in names}
    rules = []
    for host, port in hosts.items():
        backend = {"service": {"name": marker, "port": {"number": port}}}
        rules.append({"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}})
    spec: Object = {"rules": rules}
    if asked.class_name is not None:
        spec["ingressClassName"] = asked.class_name
    if asked.tls_secret is not None:
        spec["tls"] = [{"hosts": list(hosts), "secretName": asked.tls_secret}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": about(marker, marker, owner),
        "spec": spec,
    }


def _route(marker: Marker, owner: Object, port: int, names: Sequence[str], asked: Gateway) -> Object:
    """All names of a route lead to the same port, so each port has one of its own."""
    parent = {"name": asked.name, "namespace": asked.namespace, "sectionName": asked.listener}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": about(f"{marker}-{port}", marker, owner),
        "spec": {
            "parentRefs": [{key: value for key, value in parent.items() if value is not None}],
            "hostnames": [f"{name}.{asked.domain}" for name in names],
            "rules": [{"backendRefs": [{"name": marker, "port": port}]}],
        },
    }
