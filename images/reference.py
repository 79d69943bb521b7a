"""How people write an image, read into records: ``str()`` writes a record so that it reads back as the same.

A reference reaches URLs, paths and command lines, so nothing passes here that is not of a known form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from scheduler.model.errors import SpecInvalid
from scheduler.model.images import PUSHED

DOCKER_HUB = "docker.io"
HUB_SERVER = "registry-1.docker.io"
LIBRARY_HOST = "library.sylabs.io"
MOST_CHARACTERS = 2048

_HUB_ALIASES = frozenset({DOCKER_HUB, "index.docker.io", HUB_SERVER})
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL}){{0,15}}|\[[0-9A-Fa-f:.]{{2,45}}\])(?::(?P<port>[0-9]{{1,5}}))?")
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LIBRARY_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")
_URL = re.compile(r"https://[!$&'()*+,;=:@A-Za-z0-9._~%/?-]+")

_FORMS = (
    "write for example python:3.12, docker://ghcr.io/org/app:1.0, oras://host/app.sif:1, oci:folder:tag, "
    "oci-archive:file, docker-archive:file, library://entity/collection/app:1, https://host/app.sif or /path/app.sif"
)


class Scheme(StrEnum):
    """What stands before the name in a registry: an OCI image, or a SIF kept there as an artifact."""

    DOCKER = "docker"
    ORAS = "oras"


class Packing(StrEnum):
    """How an image lies in files."""

    OCI = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"


_PACKINGS = frozenset(packing.value for packing in Packing)


@dataclass(frozen=True, slots=True)
class RegistryReference:
    """An image in a registry. With a digest the tag is only a hint; without either of them the tag is ``latest``."""

    host: str
    """``host[:port]`` in lower case; ``docker.io`` for Docker Hub under any of its names."""
    repository: str
    tag: str = ""
    digest: str = ""
    scheme: Scheme = Scheme.DOCKER

    def __str__(self) -> str:
        tag, digest = self.tag and f":{self.tag}", self.digest and f"@{self.digest}"
        return f"{self.scheme}://{self.host}/{self.repository}{tag}{digest}"

    def pinned(self, digest: str) -> RegistryReference:
        """The same image by its content; the tag stays to tell people where it came from."""
        return replace(self, digest=digest)


@dataclass(frozen=True, slots=True)
class ArchiveReference:
    """An image in a folder or an archive. ``tag``: which one of several; ``name:tag`` in a docker-archive."""

    packing: Packing
    path: str
    tag: str = ""

    def __str__(self) -> str:
        return f"{self.packing}:{self.path}" + (self.tag and f":{self.tag}")


@dataclass(frozen=True, slots=True)
class LibraryReference:
    """A SIF in a container library. ``name``: ``entity/collection/container``."""

    host: str
    name: str
    tag: str = "latest"

    def __str__(self) -> str:
        return f"library://{self.host}/{self.name}:{self.tag}"


@dataclass(frozen=True, slots=True)
class UrlReference:
    """A SIF or squashfs file behind an https URL; written ``url#sha256:<hex>`` where its content is pinned."""

    url: str
    digest: str = ""

    def __str__(self) -> str:
        return self.url + (self.digest and f"#{self.digest}")


@dataclass(frozen=True, slots=True)
class PathReference:
    """A SIF or squashfs file, or a tree, that lies on a system already; absolute there."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class PushedReference:
    """A file that a user pushed to Berth, by the digest of its bytes; nobody else reads it."""

    digest: str

    def __str__(self) -> str:
        return f"{PUSHED}{self.digest}"


Reference = RegistryReference | ArchiveReference | LibraryReference | UrlReference | PathReference | PushedReference


def shown(image: str) -> str:
    """An image for people and logs: without the query of a URL, which may be a signature."""
    return image.partition("?")[0][:300]


def parse_reference(text: str, field: str = "image") -> Reference:
    """The image that ``text`` names; SpecInvalid names ``field``, what is wrong with the text and how to write it."""
    try:
        return _parse(text)
    except _Wrong as wrong:
        raise SpecInvalid.of(field, f"'{_shown(text)}' {wrong.what}", wrong.fix) from None


def parse_registry(text: str, field: str = "registry") -> str:
    """The ``host[:port]`` of a registry as references write it; ``docker.io`` for Docker Hub under any of its names.

    SpecInvalid names ``field``, as ``parse_reference`` does.
    """
    try:
        return _host(text)
    except _Wrong as wrong:
        raise SpecInvalid.of(
            field, f"'{_shown(text)}' {wrong.what}", "write it as in an image's name: ghcr.io or localhost:5000"
        ) from None


def registry_at(server: str) -> str:
    """The registry that answers as ``server``: Docker Hub does so under a name that is not its own."""
    return DOCKER_HUB if server == HUB_SERVER else server


def is_digest(text: str) -> bool:
    """Whether ``text`` is a digest as we write them, ``sha256:`` and 64 hexadecimal digits in lower case."""
    return _DIGEST.fullmatch(text) is not None


class _Wrong(Exception):
    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def _refuse(what: str, fix: str = _FORMS) -> NoReturn:
    raise _Wrong(what, fix)


def _parse(text: str) -> Reference:
    if not text:
        _refuse("names no image")
    if len(text) > MOST_CHARACTERS:
        _refuse(f"is too long; at most {MOST_CHARACTERS} characters are allowed")
    if not text.isprintable() or " " in text:
        _refuse("holds a blank or a character that cannot be printed")
    if text.startswith("/"):
        return PathReference(_path(text))
    packing, colon, place = text.partition(":")
    if colon and packing in _PACKINGS and not place.startswith("//"):
        return _archive(Packing(packing), place)
    if scheme := _SCHEME.match(text):
        reader = _READERS.get(scheme[0])
        return reader(text) if reader else _refuse(f"begins with '{scheme[0]}://', which is not understood")
    return _in_registry(Scheme.DOCKER, text)


def _in_registry(scheme: Scheme, name: str) -> RegistryReference:
    name, at, digest = name.partition("@")
    if at and not is_digest(digest):
        _refuse("has no sha256 digest after '@'", "write @sha256: and 64 hexadecimal digits in lower case")
    host, repository = _split_host(name)
    repository, colon, tag = repository.partition(":")
    if colon and not _TAG.fullmatch(tag):
        _refuse("has a tag that registries do not allow", "tags are letters, digits, '_', '.' and '-', at most 128")
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    wrong = next((part for part in repository.split("/") if not _PART.fullmatch(part)), None)
    if wrong is not None:
        _refuse(
            f"has '{_shown(wrong)}' in its name, which registries do not allow" if wrong else "lacks part of its name",
            "names are lower-case letters and digits, with '.', '_' or '-' between them, and '/' between parts",
        )
    if len(repository) > 255:
        _refuse("has a name that is too long", "names in a registry have at most 255 characters")
    return RegistryReference(host, repository, tag if tag or digest else "latest", digest, scheme)


def _split_host(name: str) -> tuple[str, str]:
    """The host and the rest, by Docker's rule: a first part without dot, port or capital is a name on Docker Hub."""
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return DOCKER_HUB, name
    return _host(first), rest


def _host(text: str) -> str:
    match = _HOST.fullmatch(text)
    if match is None or (match["port"] is not None and not 1 <= int(match["port"]) <= 65535):
        _refuse(f"names a host that cannot be, '{_shown(text)}'", "write a host name, with :port where it needs one")
    return DOCKER_HUB if text.lower() in _HUB_ALIASES else text.lower()


def _archive(packing: Packing, place: str) -> ArchiveReference:
    path, colon, tag = place.partition(":")
    if not path or (colon and not tag):
        _refuse("names no file" if not path else "has nothing after the last ':'", f"write {packing}:PATH[:TAG]")
    pattern = re.compile(rf"[a-z0-9._/:-]{{0,300}}?{_TAG.pattern}") if packing is Packing.DOCKER_ARCHIVE else _TAG
    if tag and not pattern.fullmatch(tag):
        _refuse(f"has a tag that cannot be, '{_shown(tag)}'", f"write {packing}:PATH[:TAG]; paths hold no ':'")
    return ArchiveReference(packing, _path(path), tag)


def _path(text: str) -> str:
    parts = text.split("/")
    if ".." in parts or text in ("/", "."):
        _refuse("is a path that leads elsewhere", "write the path without '..' parts")
    return text


def _pushed(text: str) -> PushedReference:
    digest = text.removeprefix(PUSHED)
    if not is_digest(digest):
        _refuse("is no file that was pushed", "write berth://sha256: and 64 digits, as berth images push prints it")
    return PushedReference(digest)


def _library(text: str) -> LibraryReference:
    parts = text.removeprefix("library://").lstrip("/").split("/")
    has_host = len(parts) > 1 and ("." in parts[0] or ":" in parts[0] or parts[0] == "localhost")
    host = _host(parts.pop(0)) if has_host else LIBRARY_HOST
    last, colon, tag = parts[-1].partition(":")
    names = [*parts[:-1], last]
    if (
        len(names) > 3
        or not all(_LIBRARY_PART.fullmatch(name) for name in names)
        or (colon and not _TAG.fullmatch(tag))
    ):
        _refuse("is not a name in a library", "write library://[host/]entity/collection/container[:tag]")
    names = ["library", "default"][: 3 - len(names)] + names if len(names) != 2 else [names[0], "default", names[1]]
    return LibraryReference(host, "/".join(names), tag or "latest")


def _web(text: str) -> UrlReference:
    url, hash_, digest = text.partition("#")
    if hash_ and not is_digest(digest):
        _refuse("has no sha256 digest after '#'", "write #sha256: and 64 hexadecimal digits in lower case")
    parts = _url_parts(url)
    if "@" in parts.netloc:
        _refuse("carries a login in its URL", "leave it out; only files that anyone may read are fetched so")
    _host(parts.netloc)
    if not parts.path.strip("/"):
        _refuse("names no file on that host", "write https://host/path/app.sif")
    return UrlReference(url, digest)


def _url_parts(url: str) -> SplitResult:
    try:
        if _URL.fullmatch(url):
            return urlsplit(url)
    except ValueError:
        pass
    _refuse("is not a URL", "write https://host/path/app.sif, special characters as %XX")


_READERS: Mapping[str, Callable[[str], Reference]] = MappingProxyType(
    {
        "docker": lambda text: _in_registry(Scheme.DOCKER, text.removeprefix("docker://")),
        "oras": lambda text: _in_registry(Scheme.ORAS, text.removeprefix("oras://")),
        "library": _library,
        "berth": _pushed,
        "https": _web,
        "http": lambda _: _refuse("would come over plain http, where anyone may change it", "write https://"),
    }
)


def _shown(text: str) -> str:
    """Hostile text as an error may show it: short, and nothing that moves a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:120])
