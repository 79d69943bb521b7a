"""Files in multipart forms, read only once it is known who sends them, and to the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile

from scheduler.model.errors import SpecInvalid

PIECE_BYTES = 256 * 1024
FORM_BYTES = 64 * 1024
"""More than a form adds to its file."""


def described(*texts: str) -> Mapping[str, Any]:
    """The OpenAPI description of a form with ``file`` and these texts."""
    names = ("file", *texts)
    properties = {name: {"type": "string", **({"format": "binary"} if name == "file" else {})} for name in names}
    schema = {"type": "object", "required": list(names), "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def said_bytes(request: Request) -> int | None:
    """How large the file is at least, where the request says its length."""
    said = request.headers.get("content-length", "")
    return max(int(said) - FORM_BYTES, 0) if said.isdecimal() and len(said) < 19 else None


async def form_of(request: Request, *texts: str) -> tuple[UploadFile, Mapping[str, str]]:
    """``file`` and these texts, which may come as files too, as some clients send them. SpecInvalid."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise SpecInvalid.of("body", "is no form", "send multipart/form-data with the part file")
    form = await request.form(max_files=8, max_fields=8)
    found: dict[str, str] = {}
    for name in texts:
        part = form.get(name)
        text = (await part.read(4097)).decode("utf-8", "replace") if isinstance(part, UploadFile) else part
        if not text or len(text) > 4096 or "\0" in text:
            raise SpecInvalid.of(name, "is missing or too long", "send it as a part of the form")
        found[name] = text
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise SpecInvalid.of("file", "is missing", "send it as a part of the form, with a file name")
    return file, found


async def pieces_of(file: UploadFile) -> AsyncIterator[bytes]:
    """The file's bytes."""
    while piece := await file.read(PIECE_BYTES):
        yield piece
