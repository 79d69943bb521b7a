"""What a system's notes say of its Kubernetes: ``notes.berth.k8s``, and how a login reaches it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any, TypeVar

from scheduler.model.errors import NotAuthorised, Problem, SpecInvalid
from scheduler.model.systems import Credential, System

FIELD = "notes.berth.k8s"
NAMESPACE = "default"
DAY_S = 86_400
HELPER_IMAGE = "docker.io/library/busybox:1"

Front = TypeVar("Front")


@dataclass(frozen=True, slots=True)
class Access:
    """Where an API server is, and how a login is known to it. ``ca``: PEM; None: whom this host trusts."""

    server: str
    token: str = field(repr=False)
    ca: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """Names of pods at the cluster's own proxy. class_name, tls_secret: None: as the cluster does by default."""

    domain: str
    class_name: str | None = None
    tls_secret: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Names of pods at a Gateway. namespace: None: where pods are. listener: None: all that take them."""

    domain: str
    name: str
    namespace: str | None = None
    listener: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """How Berth uses one Kubernetes. ``volume``: the claim on which job directories live; None: they go with the pod.

    run_as: user and group id of every container. helper_image: of the pod through which files of the volume are
    reached; it has a shell and the tools of busybox. queue: the Kueue LocalQueue that lets jobs start. keep_s: how
    long what has ended stays. guards: whether Berth makes a NetworkPolicy. denied: networks that no run may reach.
    admitted, admitted_namespaces: from where ports of pods are reached, beside this namespace. node_ports: whether
    Berth reaches them by the nodes. ingress, gateway: None: pods have no name at that proxy of the cluster's own.
    """

    namespace: str = NAMESPACE
    volume: str | None = None
    service_account: str | None = None
    run_as: int = 1000
    helper_image: str = HELPER_IMAGE
    queue: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    gpu_resource: str = "nvidia.com/gpu"
    gpu_model_label: str = "nvidia.com/gpu.product"
    ca: str | None = field(default=None, repr=False)
    keep_s: int = DAY_S
    guards: bool = True
    denied: tuple[str, ...] = ()
    admitted: tuple[str, ...] = ()
    admitted_namespaces: tuple[str, ...] = ()
    node_ports: bool = False
    ingress: Ingress | None = None
    gateway: Gateway | None = None

    @property
    def has_ways(self) -> bool:
        """Whether pods get a Service."""
        return self.node_ports or self.ingress is not None or self.gateway is not None


def site_of(system: System) -> Site:
    """What the notes mean. SpecInvalid, naming each field, where they cannot be meant."""
    notes = system.berth_notes.get("k8s", {})
    if not isinstance(notes, Mapping):
        raise SpecInvalid.of(FIELD, "is not an object", 'write {"namespace": "berth-jobs"}')
    problems = [
        Problem(f"{FIELD}.{str(key)[:80]}", "is not known", f"known are {', '.join(_KEYS)}")
        for key in notes.keys() - _KEYS.keys()
    ]
    read: dict[str, Any] = {}
    for key, (name, reader) in _KEYS.items():
        if notes.get(key) is None:
            continue
        try:
            read[name] = reader(f"{FIELD}.{key}", notes[key])
        except SpecInvalid as error:
            problems += error.problems
    if problems:
        raise SpecInvalid(*sorted(problems, key=lambda problem: problem.field))
    return Site(**read)


def access_of(system: System, credential: Credential) -> Access:
    """How this login reaches the API server of the system: a bearer token, over TLS that proves the server."""
    if credential.password is None:
        words = f"system '{system.id}' is a Kubernetes; its credential is a bearer token, given as accessToken"
        raise NotAuthorised(words)
    host = f"[{system.host}]" if ":" in system.host else system.host
    return Access(f"https://{host}:{system.port}", credential.password, site_of(system).ca)


# -- readers of values -----------------------------------------------------------------------------------------------

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_KEY = re.compile(rf"({_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


def _text(pattern: str, fix: str) -> Callable[[str, Any], str]:
    known = re.compile(pattern)

    def read(name: str, value: Any) -> str:
        if not isinstance(value, str) or len(value) > 65_536 or known.fullmatch(value) is None:
            raise SpecInvalid.of(name, "is no such name", fix)
        return value

    return read


def _whole(least: int, most: int) -> Callable[[str, Any], int]:
    def read(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise SpecInvalid.of(name, "is no such number", f"write a whole number from {least} to {most}")
        return value

    return read


def _labels(name: str, value: Any) -> Mapping[str, str]:
    fix = 'write labels of nodes, as {"pool": "batch"}'
    if not isinstance(value, Mapping):
        raise SpecInvalid.of(name, "is not an object", fix)
    for key, text in value.items():
        if _KEY.fullmatch(str(key)) is None or not isinstance(text, str) or _VALUE.fullmatch(text) is None:
            raise SpecInvalid.of(f"{name}.{str(key)[:80]}", "is no label of a node", fix)
    return MappingProxyType(dict(value))


def _names(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise SpecInvalid.of(name, "is not a list of names", 'write them as ["one", "another"]')
    return tuple(_object_name(name, each) for each in value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SpecInvalid.of(name, "is neither true nor false", "write true or false")
    return value


def _networks(name: str, value: Any) -> tuple[str, ...]:
    fix = 'write networks, as ["10.0.0.0/8"]'
    if not isinstance(value, list) or len(value) > 100 or not all(isinstance(each, str) for each in value):
        raise SpecInvalid.of(name, "is not a list of networks", fix)
    try:
        return tuple(str(ip_network(each)) for each in value)
    except ValueError as error:
        raise SpecInvalid.of(name, str(error)[:200], fix) from None


_object_name = _text(rf"{_LABEL}", "use at most 63 lower-case letters, digits and -")
_domain = _text(rf"(?=.{{1,200}}$){_LABEL}(\.{_LABEL})*", "write a domain in lower case, like pods.example.org")
_label_key = _text(_KEY.pattern, "write it as kubectl shows it, like nvidia.com/gpu")


def _front(kind: type[Front], fields: Mapping[str, str], needed: Set[str], fix: str) -> Callable[[str, Any], Front]:
    """Reads a proxy of the cluster's. fields: key -> field; all but the domain name objects of the cluster."""

    def read(name: str, value: Any) -> Front:
        if not isinstance(value, Mapping) or value.keys() - fields or needed - value.keys():
            raise SpecInvalid.of(name, f"is not what Berth knows of {kind.__name__}", fix)
        given = {key: each for key, each in value.items() if each is not None or key in needed}
        readers = {key: _domain if key == "domain" else _object_name for key in given}
        return kind(**{fields[key]: readers[key](f"{name}.{key}", each) for key, each in given.items()})

    return read


_ingress = _front(
    Ingress,
    {"domain": "domain", "className": "class_name", "tlsSecret": "tls_secret"},
    {"domain"},
    'write {"domain": "pods.example.org", "className": "nginx", "tlsSecret": "pods-tls"}; only domain must be',
)
_gateway = _front(
    Gateway,
    {"domain": "domain", "name": "name", "namespace": "namespace", "listener": "listener"},
    {"domain", "name"},
    'write {"domain": "pods.example.org", "name": "shared", "namespace": "infra", "listener": "https"}; '
    "only domain and name must be",
)

_KEYS: Mapping[str, tuple[str, Callable[[str, Any], Any]]] = MappingProxyType(
    {
        "namespace": ("namespace", _object_name),
        "volume": ("volume", _object_name),
        "serviceAccount": ("service_account", _object_name),
        "runAsUser": ("run_as", _whole(1, 2**31 - 2)),
        "helperImage": ("helper_image", _text(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,500}", "write an image reference")),
        "localQueue": ("queue", _object_name),
        "nodeSelector": ("node_selector", _labels),
        "imagePullSecrets": ("pull_secrets", _names),
        "gpuResource": ("gpu_resource", _label_key),
        "gpuModelLabel": ("gpu_model_label", _label_key),
        "caCert": ("ca", _text(r"\s*-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=-]+", "paste the PEM text")),
        "networkPolicy": ("guards", _flag),
        "denyEgress": ("denied", _networks),
        "admitNetworks": ("admitted", _networks),
        "admitNamespaces": ("admitted_namespaces", _names),
        "nodePorts": ("node_ports", _flag),
        "ingress": ("ingress", _ingress),
        "gateway": ("gateway", _gateway),
        "keepFinishedS": ("keep_s", _whole(60, 365 * DAY_S)),
    }
)
"""Each key with the field that it sets and how its value is read."""
