"""Images in files: OCI layouts as folders or archives, and the archives of ``docker save``.

Whoever made the file is a stranger: only what lies below the allowed folders is opened, documents are read within
bounds, and each blob must have the digest that named it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images.documents import read_json
from images.errors import BlobCorrupt, ImageUnknown, ImageUnusable, TagMoved
from images.manifests import (
    CONFIG_TYPES,
    MANIFEST_TYPES,
    MAX_CONFIG_BYTES,
    MAX_DOCUMENT_BYTES,
    MAX_LAYERS,
    Descriptor,
    Index,
    Manifest,
    choose,
    parse_config,
    parse_document,
)
from images.members import Archive, Files, Folder, open_file
from images.platforms import Platform
from images.reference import ArchiveReference, Packing
from images.sources import Proof, Resolved, Sink
from images.threads import Halt, in_thread
from scheduler.model.errors import FileRefused

_MAX_DEPTH = 3
"""An index.json may name an index, which names manifests."""

_NAME = "org.opencontainers.image.ref.name"
_LAYER_TYPES: Mapping[bytes, str] = {
    b"\x1f\x8b": "application/vnd.oci.image.layer.v1.tar+gzip",
    b"\x28\xb5": "application/vnd.oci.image.layer.v1.tar+zstd",
}
_TAR_TYPE = "application/vnd.oci.image.layer.v1.tar"


class Layouts:
    """Images in files below ``roots``, which relative paths are looked for in, in their order."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = [root.resolve() for root in roots]

    async def resolve(self, reference: ArchiveReference, target: Platform) -> Resolved[ArchiveReference]:
        """The image in the file. ImageUnknown, ImageUnusable, BlobCorrupt or FileRefused say why not."""
        return await asyncio.to_thread(self._resolve, reference, target)

    async def fetch(self, reference: ArchiveReference, blob: Descriptor, sink: Sink) -> None:
        """Copy a blob of the image; TagMoved when the file has changed so that it is not there any more."""
        await in_thread(lambda halt: self._fetch(reference, blob, sink, halt))

    def _resolve(self, reference: ArchiveReference, target: Platform) -> Resolved[ArchiveReference]:
        name = str(reference)
        with self._opened(reference) as files:
            if reference.packing is Packing.DOCKER_ARCHIVE:
                saved = _saved(files, reference)
                manifest_digest, index_digest, manifest = saved.digest, None, saved.manifest
            else:
                manifest_digest, index_digest, manifest = _found(files, reference, target)
            if not manifest.is_image:
                raise ImageUnusable(name, "is no image but an artifact", "name an image")
            config = _verified(files, _blob_name(files, reference, manifest.config), manifest.config, MAX_CONFIG_BYTES)
        return Resolved(
            reference=reference,
            index_digest=index_digest,
            manifest_digest=manifest_digest,
            manifest=manifest,
            config=parse_config(config, name),
        )

    def _fetch(self, reference: ArchiveReference, blob: Descriptor, sink: Sink, halt: Halt) -> None:
        proof = Proof(blob, sink, str(reference))
        with self._opened(reference) as files:
            name = _blob_name(files, reference, blob)
            proof.restart()
            try:
                for piece in files.pieces(name):
                    halt.check()
                    proof.take(piece)
                proof.commit()
            except BlobCorrupt:
                proof.restart()
                raise

    @contextmanager
    def _opened(self, reference: ArchiveReference) -> Iterator[Files]:
        name = str(reference)
        place = self._place(reference)
        try:
            if reference.packing is Packing.OCI:
                yield Folder(place)
            else:
                with open_file(place) as file:
                    yield Archive(file, name)
        except FileNotFoundError as error:
            raise ImageUnknown(name, f"'{error.filename or error}' is not there; check the path") from None
        except OSError as error:
            raise FileRefused(f"{name}: {error.strerror or error}") from None
        except (tarfile.TarError, RecursionError, UnicodeError) as error:
            raise ImageUnusable(name, f"is not a tar archive ({error})", "make it again, uncompressed") from None

    def _place(self, reference: ArchiveReference) -> Path:
        places = [(root / reference.path).resolve() for root in self._roots]
        inside = [place for place in places if any(place.is_relative_to(root) for root in self._roots)]
        if not inside:
            raise FileRefused(f"{reference}: it does not lie in a folder that images may be read from")
        return next((place for place in inside if place.exists()), inside[0])


def _read(files: Files, name: str, limit_bytes: int) -> bytes:
    if files.size_bytes(name) > limit_bytes:
        raise BlobCorrupt(f"{name[:200]} is larger than {limit_bytes >> 20} MiB; it was not read")
    return b"".join(files.pieces(name))


def _verified(files: Files, name: str, blob: Descriptor, limit_bytes: int) -> bytes:
    raw = _read(files, name, limit_bytes)
    if len(raw) != blob.size_bytes or f"sha256:{hashlib.sha256(raw).hexdigest()}" != blob.digest:
        raise BlobCorrupt(f"the file {name[:200]} is not {blob.digest}; make the image again")
    return raw


# -- OCI layouts -----------------------------------------------------------------------------------------------------


def _found(files: Files, reference: ArchiveReference, target: Platform) -> tuple[str, str | None, Manifest]:
    """Digest of the manifest, of the index that led to it, and the manifest."""
    name = str(reference)
    document = parse_document(_read(files, "index.json", MAX_DOCUMENT_BYTES), name)
    if not isinstance(document, Index):
        raise ImageUnusable(name, "is not an OCI layout: its index.json is no index", "make it again")
    document, index_digest = _tagged(document, reference), None
    for _ in range(_MAX_DEPTH):
        entry = choose(document, target, name)
        raw = _verified(files, _in_layout(entry.digest), entry, MAX_DOCUMENT_BYTES)
        inner = parse_document(raw, name, entry.media_type)
        if isinstance(inner, Manifest):
            return entry.digest, index_digest, inner
        document, index_digest = inner, entry.digest
    raise ImageUnusable(name, "is an index of indexes of indexes", "make it again, with one level")


def _tagged(index: Index, reference: ArchiveReference) -> Index:
    """The entries of the tag; without one, all of them if they are one image."""
    tags = sorted({entry.annotations[_NAME] for entry in index.manifests if _NAME in entry.annotations})
    if reference.tag and reference.tag not in tags:
        raise ImageUnknown(str(reference), f"it has {_listed(tags)}; check the tag")
    if not reference.tag and len(tags) > 1:
        raise ImageUnknown(str(reference), f"it has {_listed(tags)}; say which, {reference.packing}:PATH:TAG")
    wanted = reference.tag or (tags[0] if tags else None)
    return Index(tuple(entry for entry in index.manifests if entry.annotations.get(_NAME) == wanted))


def _in_layout(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _blob_name(files: Files, reference: ArchiveReference, blob: Descriptor) -> str:
    if reference.packing is not Packing.DOCKER_ARCHIVE:
        return _in_layout(blob.digest)
    name = _saved(files, reference).names.get(blob.digest)
    if name is None:
        raise TagMoved(f"{reference} does not hold {blob.digest} any more: the file has changed; submit again")
    return name


def _listed(tags: Sequence[str]) -> str:
    return ", ".join(tag[:100] for tag in tags[:20]) or "no tags"


# -- archives of docker save -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Saved:
    """An image of a docker-archive under a manifest made for it; ``names``: digest -> file in the archive."""

    digest: str
    manifest: Manifest
    names: Mapping[str, str]


def _saved(files: Files, reference: ArchiveReference) -> _Saved:
    """Such archives hold neither a manifest nor digests, so the same files are given the same ones here."""
    entry = _saved_entry(files, reference)
    try:
        config_name, layer_names = entry["Config"], entry["Layers"]
        if not isinstance(layer_names, list) or len(layer_names) > MAX_LAYERS:
            raise ValueError("Layers")
        config = _read(files, str(config_name), MAX_CONFIG_BYTES)
        diff_ids = parse_config(config, str(reference)).diff_ids
        if len(diff_ids) != len(layer_names):
            raise ValueError("diff_ids")
    except (KeyError, TypeError, ValueError) as error:
        raise _not_saved(reference, f"its manifest.json has a wrong {error}") from None
    config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    layers = [_layer(files, str(name), diff_id) for name, diff_id in zip(layer_names, diff_ids, strict=True)]
    parts = [Descriptor(CONFIG_TYPES[0], config_digest, len(config)), *layers]
    described = [{"mediaType": one.media_type, "digest": one.digest, "size": one.size_bytes} for one in parts]
    document = {"schemaVersion": 2, "mediaType": MANIFEST_TYPES[0], "config": described[0], "layers": described[1:]}
    raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    manifest = parse_document(raw, str(reference))
    assert isinstance(manifest, Manifest)
    names = [str(config_name), *map(str, layer_names)]
    return _Saved(
        digest=f"sha256:{hashlib.sha256(raw).hexdigest()}",
        manifest=manifest,
        names={part.digest: name for part, name in zip(parts, names, strict=True)},
    )


def _saved_entry(files: Files, reference: ArchiveReference) -> Mapping[str, object]:
    try:
        entries = read_json(_read(files, "manifest.json", MAX_DOCUMENT_BYTES))
        by_tag = {str(tag): entry for entry in entries for tag in (entry.get("RepoTags") or ())}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise _not_saved(reference, "its manifest.json cannot be read") from None
    if reference.tag in by_tag:
        return dict(by_tag[reference.tag])
    if reference.tag or len(entries) != 1:
        raise ImageUnknown(str(reference), f"it has {_listed(sorted(by_tag))}; say which, docker-archive:PATH:NAME:TAG")
    return dict(entries[0])


def _layer(files: Files, name: str, diff_id: str) -> Descriptor:
    """A layer as it lies there: a plain tar has the digest that the config names, a compressed one must be read."""
    first = next(files.pieces(name), b"")
    media_type = _LAYER_TYPES.get(first[:2], _TAR_TYPE)
    if media_type == _TAR_TYPE:
        return Descriptor(media_type, diff_id, files.size_bytes(name))
    digest = hashlib.sha256()
    for piece in files.pieces(name):
        digest.update(piece)
    return Descriptor(media_type, f"sha256:{digest.hexdigest()}", files.size_bytes(name))


def _not_saved(reference: ArchiveReference, why: str) -> ImageUnusable:
    return ImageUnusable(
        str(reference), f"is no archive of docker save: {why}", "make it again: docker save -o FILE NAME"
    )
