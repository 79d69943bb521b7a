"""OCI images as directory trees, for bubblewrap: found by digest, unpacked once, and never trusted.

A layer is an archive made by a stranger. Every name in it is resolved inside the tree, links included, so that nothing
is ever written, linked or deleted outside; device nodes are left out and set-uid bits dropped. A tree is kept under the
digest of all that went into it, each part checked, so that no image can pass itself off as another's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import posixpath
import re
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from backends.launchers.bubblewrap import UnpackedImage
from scheduler.model.errors import SpecInvalid

MAX_IMAGE_BYTES = 64 * 2**30
"""Most bytes that the files of one image may hold when unpacked."""

MAX_DOCUMENT_BYTES = 16 * 2**20
"""Most bytes read of an index, a manifest or a config."""

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LINKS_FOLLOWED = 40

Blobs = Callable[[str], IO[bytes]]
"""Opens a file of an image by its name there."""


def unpacked(reference: str, cache: Path) -> UnpackedImage:
    """The image's tree below ``cache``, made if it is not there; SpecInvalid says what is wrong with the image.

    reference: ``oci:DIR[:TAG]``, ``oci-archive:FILE`` or ``docker-archive:FILE``.
    """
    try:
        with _opened(reference) as image:
            home = cache / image.key
            if not (home / "tree").exists():
                _unpack(image, home)
    except (KeyError, IndexError, ValueError, tarfile.TarError, EOFError, OSError) as error:
        raise SpecInvalid.of("image", f"'{reference[:200]}' cannot be unpacked: {error}", "check the image") from error
    return _described(home)


def is_unpackable(reference: str) -> bool:
    """Whether ``unpacked`` understands this kind of reference."""
    return reference.startswith(("oci:", "oci-archive:", "docker-archive:"))


# -- reading an image ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Image:
    """Config and layers (from the lowest up) by their names in the image, with the digest that each must have."""

    blobs: Blobs
    key: str
    config: str
    layers: tuple[str, ...]
    digests: Mapping[str, str]


@contextlib.contextmanager
def _opened(reference: str) -> Iterator[_Image]:
    kind, _, place = reference.partition(":")
    if kind == "oci":
        path, _, tag = (place, "", "") if Path(place).is_dir() else place.rpartition(":")
        yield _oci(lambda name: (Path(path) / name).open("rb"), tag)
    else:
        with tarfile.open(place) as archive:
            blobs = _archived(archive)
            yield _oci(blobs, "") if kind == "oci-archive" else _docker(blobs)


def _archived(archive: tarfile.TarFile) -> Blobs:
    def open_member(name: str) -> IO[bytes]:
        file = archive.extractfile(name)
        if file is None:
            raise ValueError(f"{name} in the archive is not a file")
        return file

    return open_member


def _oci(blobs: Blobs, tag: str) -> _Image:
    index = json.loads(_content(blobs, "index.json"))
    for _ in range(3):  # an index may hold an index, one manifest per platform
        name, digest = _named(_chosen(index["manifests"], tag))
        _verify(blobs, name, digest)
        document = json.loads(_content(blobs, name))
        if "layers" in document:
            parts = [_named(part) for part in (document["config"], *document["layers"])]
            names = tuple(name for name, _ in parts)
            return _Image(blobs, digest, names[0], names[1:], dict(parts))
        index, tag = document, ""
    raise ValueError("no manifest was found in the index")


def _docker(blobs: Blobs) -> _Image:
    """An archive of ``docker save`` names no digests, so the parts themselves say what they are."""
    manifest = json.loads(_content(blobs, "manifest.json"))[0]
    names = (manifest["Config"], *manifest["Layers"])
    digests = {name: _digest(blobs, name) for name in names}
    key = hashlib.sha256("".join(digests[name] for name in names).encode()).hexdigest()
    return _Image(blobs, key, names[0], names[1:], digests)


def _chosen(manifests: list[dict[str, Any]], tag: str) -> dict[str, Any]:
    """The manifest of that tag, and of this machine's architecture where manifests say theirs."""
    ours = _ARCHITECTURES.get(platform.machine(), platform.machine())
    for manifest in manifests:
        named = manifest.get("annotations", {}).get("org.opencontainers.image.ref.name")
        if (not tag or tag == named) and manifest.get("platform", {}).get("architecture", ours) == ours:
            return manifest
    raise ValueError(f"no manifest for tag '{tag or 'any'}' and architecture {ours}")


def _named(descriptor: Mapping[str, Any]) -> tuple[str, str]:
    """The name of a blob, and its digest in hex."""
    match = re.fullmatch(r"sha256:([0-9a-f]{64})", descriptor["digest"])
    if match is None:
        raise ValueError(f"'{descriptor['digest'][:80]}' is not a sha256 digest")
    return f"blobs/sha256/{match[1]}", match[1]


def _verify(blobs: Blobs, name: str, digest: str) -> None:
    if (found := _digest(blobs, name)) != digest:
        raise ValueError(f"the content of {name[:120]} has another digest, {found}")


def _digest(blobs: Blobs, name: str) -> str:
    digest = hashlib.sha256()
    with blobs(name) as file:
        while piece := file.read(1024 * 1024):
            digest.update(piece)
    return digest.hexdigest()


def _content(blobs: Blobs, name: str) -> bytes:
    with blobs(name) as file:
        return file.read(MAX_DOCUMENT_BYTES)


def _described(home: Path) -> UnpackedImage:
    config = json.loads((home / "config.json").read_bytes()).get("config") or {}
    tree = home / "tree"
    return UnpackedImage(
        root=str(tree),
        top={path.name: str(path.readlink()) if path.is_symlink() else None for path in tree.iterdir()},
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        env=dict(entry.split("=", 1) for entry in config.get("Env") or () if "=" in entry),
    )


# -- unpacking -------------------------------------------------------------------------------------------------------


def _unpack(image: _Image, home: Path) -> None:
    """Unpack beside the final place, which appears whole; whoever comes second finds it and drops its own."""
    home.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="unpacking.", dir=home.parent))
    try:
        tree = Tree(fresh / "tree")
        for name, digest in image.digests.items():
            _verify(image.blobs, name, digest)
        for layer in image.layers:
            with image.blobs(layer) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
                for member in archive:
                    tree.add(member, archive)
        tree.close()
        (fresh / "config.json").write_bytes(_content(image.blobs, image.config))
        fresh.chmod(0o755)
        fresh.rename(home)
    except OSError:
        if not (home / "tree").exists():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


class Tree:
    """A directory that layers are laid into. No entry reaches out of it."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self._root = str(root)
        self._bytes = 0
        self._directory_modes = {str(root): 0o755}

    def add(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        """Lay one entry of a layer; whiteouts delete what lower layers brought."""
        name = posixpath.normpath("/" + member.name).lstrip("/")
        if not name:
            return
        folder, base = self._inside(posixpath.dirname(name)), posixpath.basename(name)
        if base == OPAQUE:
            self._empty(folder)
        elif base.startswith(WHITEOUT):
            self._remove(self._child(folder, base.removeprefix(WHITEOUT)))
        else:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - strings all through: names need not be UTF-8
            self._lay(self._child(folder, base), member, archive)

    def close(self) -> None:
        """Make room for the host's resolver, and give directories their modes, last: they may forbid writing."""
        if stat.S_ISDIR(_mode(f"{self._root}/etc")):
            resolver = f"{self._root}/etc/resolv.conf"
            self._remove(resolver)
            os.close(os.open(resolver, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        for path, mode in self._directory_modes.items():
            if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
                os.chmod(path, mode)  # noqa: PTH101

    def _lay(self, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        if member.isdir() and stat.S_ISDIR(_mode(path)):
            pass  # merges with what a lower layer has there
        else:
            self._remove(path)
        if member.isdir():
            os.makedirs(path, mode=0o755, exist_ok=True)  # noqa: PTH103
            self._directory_modes[path] = (member.mode & 0o777) | 0o755
        elif member.issym():
            os.symlink(member.linkname, path)  # noqa: PTH211 - followed only by _inside, which knows the root
        elif member.islnk():
            linked = posixpath.normpath("/" + member.linkname).lstrip("/")
            source = self._child(self._inside(posixpath.dirname(linked)), posixpath.basename(linked))
            os.link(source, path, follow_symlinks=False)
        elif member.isreg():
            self._write(path, member, archive)
        # Devices and pipes are left out: the container gets its own /dev.

    def _write(self, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        self._bytes += member.size
        if self._bytes > MAX_IMAGE_BYTES:
            raise ValueError(f"it holds more than {MAX_IMAGE_BYTES >> 30} GiB")
        source = archive.extractfile(member)
        assert source is not None
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as target:
            shutil.copyfileobj(source, target, 1024 * 1024)
            os.fchmod(target.fileno(), (member.mode & 0o777) | 0o644)

    def _inside(self, name: str) -> str:
        """The path of a directory of the tree, every link on the way read as if the tree were the whole file system."""
        todo, here, followed = [part for part in name.split("/") if part][::-1], self._root, 0
        while todo:
            part = todo.pop()
            if part in (".", ".."):
                here = here if part == "." or here == self._root else posixpath.dirname(here)
                continue
            step = f"{here}/{part}"
            if not stat.S_ISLNK(_mode(step)):
                here = step
                continue
            followed += 1
            if followed > _LINKS_FOLLOWED:
                raise ValueError(f"too many links in '{name}'")
            target = os.readlink(step)  # noqa: PTH115
            here = self._root if target.startswith("/") else here
            todo += [part for part in target.split("/") if part][::-1]
        return here

    def _child(self, folder: str, base: str) -> str:
        if base in ("", ".", "..") or "/" in base:
            raise ValueError(f"'{base}' is not a name")
        return f"{folder}/{base}"

    def _empty(self, folder: str) -> None:
        if stat.S_ISDIR(_mode(folder)):
            for name in os.listdir(folder):  # noqa: PTH208
                self._remove(f"{folder}/{name}")

    def _remove(self, path: str) -> None:
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
        elif mode:
            os.unlink(path)  # noqa: PTH108


def _mode(path: str) -> int:
    """Kind and permissions of a name, not following a link; 0 when there is none."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
