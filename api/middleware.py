"""What happens to every request before routing: paths in one spelling, bodies within bounds, a tracking id kept."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Kind, problem_answer

MAX_BODY_BYTES = 1024 * 1024

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Of records of past jobs: about 150,000 jobs as sacct prints them."""

MAX_FILE_BYTES = 1024 * 1024 * 1024
"""Of a file for a system, a volume or a pod; read to the disk, and only for those who may write there."""

DRAINED_BYTES = 16 * 1024 * 1024
DRAINED_S = 10.0
"""What is read, and not kept, of a body that is refused, at most; nothing of one that is said to be larger. Where a
connection closes while a client still sends, most clients tell of the broken connection and never read why."""

_SLASHES = re.compile(r"/{2,}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_ESCAPE = re.compile(rb"%(?:[01][0-9a-fA-F]|7[fF])")
_PAST_JOBS = re.compile(r"/v3/systems/[^/]+/pastJobs")
_PUSHED = re.compile(r"/v3/images/files/[^/]+")
"""Counted where it is written to the disk: how much may come is the operator's word."""
_POD_FILES = re.compile(r"/v3/pods/(volumes/[^/]+/upload/.+|[^/]+/upload_to_pod|jupyter/[^/]+/upload)")
_SYSTEM_FILES = re.compile(r"/v3/files/ops/[^/]+/.+")
_TRACKING_ID = re.compile(r"[A-Za-z0-9._~:@-]{1,126}\.[A-Za-z0-9._~:@-]{1,126}")

LARGER = ((_PAST_JOBS, MAX_RECORD_BYTES), (_POD_FILES, MAX_FILE_BYTES), (_SYSTEM_FILES, MAX_FILE_BYTES))
"""Where more than MAX_BODY_BYTES may come by POST: JSON, as with PUT, is in memory before anybody asks who sends it."""

BAD_PATH = Kind(400, "bad-path", "The address cannot be meant")
BAD_HEADER = Kind(400, "bad-header", "A header cannot be meant")
TOO_LARGE = Kind(413, "body-too-large", "The body is too large")


class OneSpelling:
    """Collapses repeated slashes and a trailing one in place, as Tapis's clients expect; refuses control characters."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if _CONTROL.search(scope["path"]) or _CONTROL_ESCAPE.search(scope["query_string"]):
                refusal = problem_answer(BAD_PATH, "the address holds a control character; leave it out")
                await refusal(scope, receive, send)
                return
            path = _SLASHES.sub("/", scope["path"])
            scope["path"] = path.rstrip("/") or "/"
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses a body above the limit: at once where its length is said, else when it has grown too large."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "PUT" and _PUSHED.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        larger = LARGER if scope["method"] == "POST" else ()
        max_bytes = next((most for path, most in larger if path.fullmatch(scope["path"])), MAX_BODY_BYTES)
        detail = f"the body is larger than {max_bytes} bytes"
        said = Headers(scope=scope).get("content-length", "0")
        if not said.isdecimal() or int(said) > max_bytes:
            if said.isdecimal() and int(said) <= DRAINED_BYTES:
                await _drain(scope, receive)
            await problem_answer(TOO_LARGE, detail, {"Connection": "close"})(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                if message.get("more_body", False):
                    await _drain(scope, receive)
                raise HTTPException(413, detail, {"Connection": "close"})
            return message

        await self._app(scope, bounded, send)


async def _drain(scope: Scope, receive: Receive) -> None:
    """Read on, within bounds, so that the client comes to its answer. Who asks before sending is answered at once."""
    if "expect" in Headers(scope=scope):
        return
    drained = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAINED_S):
            while drained <= DRAINED_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


class TrackingId:
    """Takes ``X-Tapis-Tracking-ID`` in, puts it into ``scope['state']`` and back into the answer."""

    HEADER = "x-tapis-tracking-id"

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tracking_id = Headers(scope=scope).get(self.HEADER) if scope["type"] == "http" else None
        if tracking_id is None:
            await self._app(scope, receive, send)
            return
        if _TRACKING_ID.fullmatch(tracking_id) is None:
            detail = "X-Tapis-Tracking-ID: must have the form namespace.id, of letters, digits and . _ ~ : @ -"
            await problem_answer(BAD_HEADER, detail)(scope, receive, send)
            return
        scope.setdefault("state", {})["tracking_id"] = tracking_id

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[self.HEADER] = tracking_id
            await send(message)

        await self._app(scope, receive, answered)
