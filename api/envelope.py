"""The envelope around every JSON answer, as Tapis's clients parse it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

import orjson
from fastapi import Response
from pydantic import BaseModel, Field

API_VERSION = "1.0.0"

Result = TypeVar("Result")


class Envelope(BaseModel, Generic[Result]):
    """What an answer looks like; used to describe answers, while ``answer`` writes them."""

    status: Literal["success", "error"] = "success"
    message: str
    version: str = API_VERSION
    commit: str = ""
    build: str = ""
    result: Result
    metadata: dict[str, Any] = Field(default_factory=dict)


class Changes(BaseModel):
    changes: int


class Url(BaseModel):
    url: str


class Truth(BaseModel):
    aBool: bool


class Message(BaseModel):
    message: str


class Names(BaseModel):
    names: list[str]


class Health(BaseModel):
    checkNum: int
    databaseAccess: bool
    tenantsAccess: bool
    queueAccess: bool


def answer(
    result: Any,
    message: str = "ok",
    *,
    status_code: int = 200,
    metadata: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A success. ``result`` is an object, a list of objects or a text: clients cannot read bare scalars."""
    return _json(status_code, "success", message, result, metadata or {}, headers)


def told(message: str) -> Response:
    """A success that gives back a text, as some of the Pods API do: never an empty one, for clients."""
    return answer(message, message)


def failure(
    status_code: int,
    message: str,
    problem: Mapping[str, Any],
    *,
    result: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error: the message for people, the RFC 9457 members in ``metadata.problem`` for programs."""
    return _json(status_code, "error", message, result, {"problem": problem}, headers)


def _json(
    status_code: int,
    status: str,
    message: str,
    result: Any,
    metadata: Mapping[str, Any],
    headers: Mapping[str, str] | None,
) -> Response:
    content = {
        "status": status,
        "message": message,
        "version": API_VERSION,
        "commit": "",
        "build": "",
        "result": result,
        "metadata": metadata,
    }
    body = orjson.dumps(content, default=_model)
    return Response(body, status_code, dict(headers or {}), "application/json")


def _model(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.__dict__
    raise TypeError(f"{type(value).__name__} has no JSON form")
