"""What registries and layouts say of an image: indexes, manifests and configs, read within bounds. Pure.

Formats: OCI image-spec 1.1 and Docker's image manifest version 2, schema 2. A document is what its bytes hash to; what
it claims beyond that is checked for shape here and for truth by those who use it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from images.documents import read_json
from images.errors import ImageUnusable
from images.platforms import Platform
from images.reference import is_digest

MAX_DOCUMENT_BYTES = 4 * 2**20
"""Most bytes read of an index or manifest: what the distribution specification lets registries refuse beyond."""

MAX_CONFIG_BYTES = 8 * 2**20
MAX_IMAGE_BYTES = 256 * 2**30
"""Most bytes that the layers of one image may hold together, as they are stored."""

MAX_LAYERS = 512
MAX_PLATFORMS = 1024

_OCI, _DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
INDEX_TYPES = (f"{_OCI}index.v1+json", f"{_DOCKER}distribution.manifest.list.v2+json")
MANIFEST_TYPES = (f"{_OCI}manifest.v1+json", f"{_DOCKER}distribution.manifest.v2+json")
CONFIG_TYPES = (f"{_OCI}config.v1+json", f"{_DOCKER}container.image.v1+json")
SIF_TYPE = "application/vnd.sylabs.sif.layer.v1.sif"
_SCHEMA_1 = re.compile(re.escape(_DOCKER) + r"distribution\.manifest\.v1\+(json|prettyjws)")

_DEFAULT_VARIANT: Mapping[str, str] = MappingProxyType({"amd64": "v1", "arm": "v7", "arm64": "v8"})
"""What an architecture means where no variant is said."""

_VARIANT = re.compile(r"v(\d{1,2})(?:\.(\d{1,2}))?")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob or document by content: its digest and exact size, and what it claims to be."""

    media_type: str
    digest: str
    size_bytes: int
    platform: Platform | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_attestation(self) -> bool:
        """Whether it tells how the image was made, and is no image itself."""
        unknown = self.platform is not None and "unknown" in (self.platform.os, self.platform.architecture)
        return unknown or "vnd.docker.reference.type" in self.annotations


@dataclass(frozen=True, slots=True)
class Index:
    """One image for several platforms, or the artifacts that refer to an image."""

    manifests: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform, or an artifact such as a SIF. ``layers``: from the lowest up."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """What a transfer of all layers moves."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def is_image(self) -> bool:
        """Whether its config is that of an image; artifacts have configs of their own kinds."""
        return self.config.media_type in CONFIG_TYPES

    @property
    def sif(self) -> Descriptor | None:
        """The SIF that the artifact holds, where it holds exactly one."""
        found = [layer for layer in self.layers if layer.media_type == SIF_TYPE]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the builder of an image says of it. ``diff_ids``: digests of its layers as uncompressed tars."""

    platform: Platform
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    working_dir: str = ""
    diff_ids: tuple[str, ...] = ()


def parse_document(raw: bytes, name: str, media_type: str = "") -> Index | Manifest:
    """The index or manifest in ``raw``; ImageUnusable says what is wrong with it.

    name: the image, for errors. media_type: what the registry or the descriptor called it; "" when it did not.
    """
    value = _object(raw, MAX_DOCUMENT_BYTES, name, "manifest")
    said = value.get("mediaType") or media_type
    if value.get("schemaVersion") == 1 or _SCHEMA_1.fullmatch(str(said)):
        raise ImageUnusable(
            name,
            "is stored in Docker's schema 1, which registries gave up in 2017",
            "push it again with a current tool, for example: skopeo copy --format v2s2",
        )
    is_index, is_manifest = "manifests" in value, "layers" in value or "config" in value
    if is_index == is_manifest or (said in INDEX_TYPES and is_manifest) or (said in MANIFEST_TYPES and is_index):
        raise _broken(name, "its manifest can be read as more than one kind of document, or as none")
    try:
        return _index(value) if is_index else _manifest(value)
    except _Malformed as error:
        raise _broken(name, f"its manifest {error}") from None


def parse_config(raw: bytes, name: str) -> Config:
    """The config of an image; ImageUnusable says what is wrong with it."""
    value = _object(raw, MAX_CONFIG_BYTES, name, "config")
    try:
        run = _mapping(value.get("config"), "config")
        rootfs = _mapping(value.get("rootfs"), "rootfs")
        return Config(
            platform=_platform(value),
            entrypoint=_strings(run.get("Entrypoint"), "Entrypoint"),
            command=_strings(run.get("Cmd"), "Cmd"),
            env=dict(_variable(line) for line in _strings(run.get("Env"), "Env")),
            labels=_texts(run.get("Labels"), "Labels"),
            user=_text(run.get("User"), "User"),
            working_dir=_text(run.get("WorkingDir"), "WorkingDir"),
            diff_ids=tuple(_digest(one) for one in _strings(rootfs.get("diff_ids"), "diff_ids")),
        )
    except _Malformed as error:
        raise _broken(name, f"its config {error}") from None


def choose(index: Index, target: Platform, name: str) -> Descriptor:
    """The manifest for the target: the highest variant that runs there, the first of equals.

    A target without a variant gets what its architecture means by default. ImageUnusable lists what is offered.
    """
    offered = [entry for entry in index.manifests if not entry.is_attestation]
    fitting = [entry for entry in offered if entry.platform and runs_on(entry.platform, target)]
    if fitting:
        return max(fitting, key=lambda entry: _variant(entry.platform or target))
    if len(offered) == 1 and offered[0].platform is None:
        return offered[0]  # layouts name no platform; the config does
    platforms = ", ".join(sorted({str(entry.platform) for entry in offered if entry.platform})[:20]) or "none"
    raise ImageUnusable(
        name, f"has no manifest for {target}; it has {platforms}", "choose another tag, or a system of that platform"
    )


def runs_on(image: Platform, target: Platform) -> bool:
    """Whether an image of this platform may be chosen for the target: same architecture, no higher variant."""
    if (image.os, image.architecture) != (target.os, target.architecture):
        return False
    return image.variant == target.variant or () < _variant(image) <= _variant(target)


def _variant(platform: Platform) -> tuple[int, ...]:
    """A variant as numbers that compare; () when it is of no known form, so that it fits only its own name."""
    match = _VARIANT.fullmatch(platform.variant or _DEFAULT_VARIANT.get(platform.architecture, "v1"))
    return tuple(int(number or 0) for number in match.groups()) if match else ()


# -- the shape of documents ------------------------------------------------------------------------------------------


class _Malformed(ValueError):
    """What of a document is not as the specification says; completes a sentence."""


def _broken(name: str, why: str) -> ImageUnusable:
    return ImageUnusable(name, f"is not a valid image: {why}", "push it again, or ask whoever made it")


def _object(raw: bytes, limit_bytes: int, name: str, what: str) -> dict[str, Any]:
    if len(raw) > limit_bytes:
        raise _broken(name, f"its {what} is larger than {limit_bytes >> 20} MiB")
    try:
        value = read_json(raw)
    except (ValueError, RecursionError):
        raise _broken(name, f"its {what} is not JSON") from None
    if not isinstance(value, dict):
        raise _broken(name, f"its {what} is not a JSON object")
    return value


def _index(value: Mapping[str, Any]) -> Index:
    return Index(tuple(_descriptor(entry) for entry in _list(value["manifests"], "manifests", MAX_PLATFORMS)))


def _manifest(value: Mapping[str, Any]) -> Manifest:
    subject = value.get("subject")
    manifest = Manifest(
        config=_descriptor(value.get("config")),
        layers=tuple(_descriptor(entry) for entry in _list(value.get("layers"), "layers", MAX_LAYERS)),
        artifact_type=_text(value.get("artifactType"), "artifactType"),
        subject=None if subject is None else _descriptor(subject),
        annotations=_texts(value.get("annotations"), "annotations"),
    )
    if manifest.size_bytes > MAX_IMAGE_BYTES:
        raise _Malformed(f"names layers of more than {MAX_IMAGE_BYTES >> 30} GiB together")
    if manifest.is_image and manifest.config.size_bytes > MAX_CONFIG_BYTES:
        raise _Malformed(f"names a config of more than {MAX_CONFIG_BYTES >> 20} MiB")
    return manifest


def _descriptor(value: object) -> Descriptor:
    if not isinstance(value, dict):
        raise _Malformed("lacks a descriptor")
    size_bytes = value.get("size")
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or not 0 <= size_bytes < 2**63:
        raise _Malformed("has a descriptor without a size")
    platform = value.get("platform")
    return Descriptor(
        media_type=_text(value.get("mediaType"), "mediaType"),
        digest=_digest(value.get("digest")),
        size_bytes=size_bytes,
        platform=None if platform is None else _platform(_mapping(platform, "platform")),
        artifact_type=_text(value.get("artifactType"), "artifactType"),
        annotations=_texts(value.get("annotations"), "annotations"),
    )


def _platform(value: Mapping[str, Any]) -> Platform:
    os, architecture, variant = (_text(value.get(key), key) for key in ("os", "architecture", "variant"))
    return Platform(os or "linux", architecture or "unknown", variant or None)


def _variable(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name, value


def _digest(value: object) -> str:
    if not isinstance(value, str) or not is_digest(value):
        raise _Malformed("has a digest that is not sha256 and 64 hexadecimal digits")
    return value


def _text(value: object, key: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise _Malformed(f"has a '{key}' that is not text")
    return value


def _mapping(value: object, key: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _Malformed(f"has a '{key}' that is not an object")
    return value


def _texts(value: object, key: str) -> Mapping[str, str]:
    return {name: _text(text, key) for name, text in _mapping(value, key).items()}


def _strings(value: object, key: str) -> tuple[str, ...]:
    return tuple(_text(one, key) for one in _list(value, key, 10_000))


def _list(value: object, key: str, limit: int) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > limit:
        raise _Malformed(f"has a '{key}' that is not a list of at most {limit}")
    return value
