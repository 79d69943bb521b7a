"""The one map from an error to what the caller sees of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.envelope import failure
from api.schemas.placement import rejection_view
from scheduler.model import errors

log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """How one kind of error is answered. ``key`` begins the message where Tapis's clients know a word for it."""

    status: int
    slug: str
    title: str
    key: str = ""


PROBLEMS: Mapping[type[errors.BerthError], Kind] = {
    errors.SpecInvalid: Kind(400, "spec-invalid", "The request cannot be meant"),
    errors.NoFeasibleSystem: Kind(400, "no-matching-system", "No system can run this job", "JOBS_NO_MATCHING_SYSTEM"),
    errors.LoginRefused: Kind(400, "login-refused", "The login was refused"),
    errors.CredentialRefused: Kind(400, "credential-refused", "The system refused the credential"),
    errors.FileRefused: Kind(400, "file-refused", "The system refused to do this with the file"),
    errors.Unauthenticated: Kind(401, "unauthenticated", "A valid token is needed"),
    errors.Forbidden: Kind(403, "forbidden", "Not allowed"),
    errors.NotFound: Kind(404, "not-found", "Not found"),
    errors.FileMissing: Kind(404, "file-missing", "No such file"),
    errors.AlreadyExists: Kind(409, "already-exists", "The name is taken"),
    errors.InUse: Kind(409, "in-use", "Others need it"),
    errors.KeyReused: Kind(409, "key-reused", "The Idempotency-Key was used with another request"),
    errors.IllegalMove: Kind(409, "illegal-move", "Not possible in this state"),
    errors.Stale: Kind(409, "changed-meanwhile", "Changed meanwhile; try again"),
    errors.TooManyLogins: Kind(429, "too-many-logins", "Too many logins were refused"),
    errors.PortClosed: Kind(503, "port-closed", "The pod does not answer"),
    errors.NothingLearnt: Kind(503, "system-unavailable", "The system cannot be asked now"),
    errors.SubmitError: Kind(503, "system-unavailable", "The system cannot be asked now"),
}
"""Each error is answered by the nearest of its classes here; one without any is a bug and answers 500."""

UNFORESEEN = Kind(500, "internal-error", "A bug in Berth")

EXPLANATIONS: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field; leave it out or check its spelling",
    "string_pattern_mismatch": "does not have the form {pattern}",
    "json_invalid": "is not JSON ({error})",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "string_too_short": "is too short; at least {min_length} are needed",
    "string_too_long": "is too long; at most {max_length} are allowed",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be more than {gt}",
    "too_long": "is too long; at most {max_length} are allowed",
    "too_short": "is too short; at least {min_length} are needed",
    "none_required": "is not supported; leave it out",
}
"""pydantic's kinds of errors in words that say what to do; for other kinds its own words serve."""


def kind_of(error: Exception) -> Kind:
    """The row of the table for an error, by the nearest of its classes."""
    return next((PROBLEMS[cls] for cls in type(error).__mro__ if cls in PROBLEMS), UNFORESEEN)


def install(app: FastAPI) -> None:
    """Give every error of the application its envelope."""
    app.add_exception_handler(errors.BerthError, _berth_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)


def problem_answer(kind: Kind, detail: str, headers: Mapping[str, str] | None = None, **extras: Any) -> Response:
    """An error answer of one kind."""
    problem = {
        "type": f"urn:berth:problem:{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        **extras,
    }
    return failure(kind.status, f"{kind.key} {detail}".strip(), problem, headers=headers)


def invalid(problems: Sequence[errors.Problem]) -> Response:
    """A validation error: 400 with all problems in one string, and each in ``metadata.problem.problems``."""
    fields = [{"field": p.field, "wrong": p.wrong, "fix": p.fix} for p in problems]
    return problem_answer(PROBLEMS[errors.SpecInvalid], "; ".join(map(str, problems)), problems=fields)


def problems_of(validation: Sequence[Mapping[str, Any]]) -> list[errors.Problem]:
    """pydantic's findings as ours, each under the field as the caller wrote it."""
    found: dict[tuple[str, str], errors.Problem] = {}
    for entry in validation:
        where = [str(part) for part in entry["loc"]]
        if len(where) > 1 and where[0] in ("body", "query", "path", "header"):
            del where[0]
        field = _dotted(where) if entry["type"] != "json_invalid" else ""
        context = entry.get("ctx") or {}
        if entry["type"] == "value_error" and isinstance(context.get("error"), Exception):
            wrong = str(context["error"])
        else:
            wrong = EXPLANATIONS.get(entry["type"], entry["msg"]).format_map(_Context(context))
        found[field, wrong] = errors.Problem(field or "body", wrong)
    return list(found.values())


async def _berth_error(_request: Request, error: Exception) -> Response:
    kind = kind_of(error)
    match error:
        case errors.SpecInvalid():
            return invalid(error.problems)
        case errors.NoFeasibleSystem():
            rejections = [rejection_view(rejection) for rejection in error.rejections]
            return problem_answer(kind, str(error), rejections=rejections)
        case errors.Unauthenticated():
            return problem_answer(kind, str(error), {"WWW-Authenticate": "Bearer"})
        case errors.TooManyLogins():
            return problem_answer(kind, str(error), {"Retry-After": str(error.retry_after_s)})
    if kind is UNFORESEEN:
        log.error("an error without a row in PROBLEMS: %r", error)
    return problem_answer(kind, str(error) or kind.title)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    about_body = any(entry["loc"][:1] == ("body",) for entry in error.errors())
    if about_body and content_type != "application/json" and request.headers.get("content-length", "0") != "0":
        detail = f"the body is '{content_type or 'untyped'}'; send JSON with Content-Type: application/json"
        return problem_answer(Kind(415, "unsupported-media-type", "JSON is needed"), detail)
    return invalid(problems_of(error.errors()))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    kind = Kind(error.status_code, phrase.lower().replace(" ", "-"), phrase)
    detail = error.detail if error.detail != phrase else f"{phrase}: {request.method} {request.url.path}"
    return problem_answer(kind, str(detail), error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    log.exception("unforeseen error in %s %s", request.method, request.url.path, exc_info=error)
    return problem_answer(UNFORESEEN, "an unforeseen error; the server's log has the details")


class _Context(dict[str, Any]):
    """What a message may name; names that are not there stand for themselves."""

    def __missing__(self, name: str) -> str:
        return "{" + name + "}"


def _dotted(parts: Sequence[str]) -> str:
    """``("fileInputs", "0", "name")`` as ``fileInputs[0].name``, without pydantic's own steps."""
    text = ""
    for part in parts:
        if part.isdigit():
            text += f"[{part}]"
        elif part.replace("_", "").isalnum():
            text += f".{part}" if text else part
    return text
