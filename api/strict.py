"""Reading JSON as the standard says, for every route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute


class StrictRequest(Request):
    """Reads JSON as the standard says: no NaN, no half surrogates, no NUL, which databases cannot hold."""

    async def json(self) -> Any:
        if not hasattr(self, "_strict_json"):
            body = await self.body()
            content = orjson.loads(body)
            if b"\\u0000" in body and _holds_nul(content):
                raise orjson.JSONDecodeError("a NUL character is in a text; leave it out", body.decode(), 0)
            self._strict_json = content
        return self._strict_json


class StrictRoute(APIRoute):
    """A route whose handler reads strict JSON."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            response: Response = await handler(StrictRequest(request.scope, request.receive))
            return response

        return strict


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(child) for key, child in value.items())
    return isinstance(value, list) and any(map(_holds_nul, value))
