"""A blob over HTTP: taken up where a connection broke, checked while it is read, and whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

import httpx

from images.errors import BlobCorrupt, RegistryMisbehaves, RegistryUnavailable
from images.exchange import Exchange
from images.manifests import Descriptor
from images.sources import PIECE_BYTES, Proof, Sink
from images.threads import in_thread_wholly

PROGRESS_BYTES = 256 * 1024
"""A try that comes less than this further than any before counts as one that failed."""

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")

Opening = Callable[[Mapping[str, str]], AbstractAsyncContextManager[httpx.Response]]
"""Asks for the blob with these headers; raises for every status but 200, 206 and 416."""


async def transfer(
    blob: Descriptor, sink: Sink, host: str, opened: Opening, exchange: Exchange, is_patient: bool = True
) -> None:
    """Bring a blob into ``sink``, which may hold its beginning, and commit it.

    host: who sends it, for errors. BlobCorrupt: its bytes are others, and the sink is empty. RegistryUnavailable: it
    broke off too often, and the sink keeps what came. Not patient: once is too often.
    """
    for is_last in (False, True):
        proof = Proof(blob, sink, host)
        try:
            await _read(blob, proof, host, opened, exchange, exchange.rules.attempts if is_patient else 1)
            await in_thread_wholly(proof.commit)
            return
        except BlobCorrupt:
            await in_thread_wholly(proof.restart)
            if is_last or not proof.is_pieced:  # once more from the beginning: a joint may have been bad
                raise


async def _read(blob: Descriptor, proof: Proof, host: str, opened: Opening, exchange: Exchange, attempts: int) -> None:
    """Ask until the blob is whole."""
    await in_thread_wholly(proof.resume)
    furthest_bytes, failed = proof.offset_bytes, 0
    while not proof.is_whole:
        trouble = await _read_some(blob, proof, opened)
        if proof.is_whole:
            return
        is_progress = proof.offset_bytes >= furthest_bytes + PROGRESS_BYTES
        furthest_bytes, failed = max(furthest_bytes, proof.offset_bytes), 0 if is_progress else failed + 1
        if failed >= attempts:
            raise RegistryUnavailable(
                f"{host} breaks off after {proof.offset_bytes} of {blob.size_bytes} bytes of {blob.digest}{trouble}; "
                "what came is kept for the next try"
            )
        await exchange.pause(failed)


async def _read_some(blob: Descriptor, proof: Proof, opened: Opening) -> str:
    """Read one answer to its end or to where it breaks; what broke it, to go into a sentence."""
    offset_bytes, trouble = proof.offset_bytes, ""
    async with opened({"Range": f"bytes={offset_bytes}-"} if offset_bytes else {}) as response:
        if offset_bytes and not _continues(response, offset_bytes, blob.size_bytes):
            await in_thread_wholly(proof.restart)
        if response.status_code == 416:
            return ", for it does not have the rest"
        proof.is_pieced |= proof.offset_bytes > 0
        held = bytearray()
        try:
            async for piece in response.aiter_raw():
                held += piece
                if len(held) >= PIECE_BYTES:
                    await in_thread_wholly(proof.take, held)
                    held = bytearray()
        except httpx.TransportError as error:
            trouble = f" ({str(error) or type(error).__name__})"
        await in_thread_wholly(proof.take, held)
    return trouble


def _continues(response: httpx.Response, offset_bytes: int, size_bytes: int) -> bool:
    """Whether the answer goes on where we stopped; False when it begins again, or has nothing to go on with."""
    if response.status_code != 206:
        return False
    match = _RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None or int(match[1]) != offset_bytes or match[3] not in ("*", str(size_bytes)):
        raise RegistryMisbehaves(f"{response.url.host} sends another part of a blob than was asked for")
    return True
