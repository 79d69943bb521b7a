"""Layers made by hand: archives of a few entries, with the digests that they are known by."""

from __future__ import annotations

import hashlib
import io
import tarfile

from images.layers import PackedLayer

FILE, LINK, SYMLINK, FOLDER, FIFO, DEVICE = (
    tarfile.REGTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
)


def entry(name, content=b"", *, kind=FILE, link="", mode=0o644, mtime=7, **more):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, link, mode, mtime
    info.size = len(content) if kind == FILE else 0
    for name_, value in more.items():
        setattr(info, name_, value)
    return info, content


def folder(name, mode=0o755, **more):
    return entry(name, kind=FOLDER, mode=mode, **more)


def tar(*entries, format=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def layer(plain, packed=None):
    packed = plain if packed is None else packed
    return PackedLayer(digest(packed), digest(plain), io.BytesIO(packed))
