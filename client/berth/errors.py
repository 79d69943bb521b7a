"""Every error that the client raises on purpose. Each knows its exit code, and a fix."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """How a `berth` command ended; the value is the process's exit code."""

    OK = 0
    JOB_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_AUTHENTICATED = 4
    REFUSED = 5
    UNREACHABLE = 6
    TIMED_OUT = 7
    NOT_INSTALLED = 8
    INTERRUPTED = 130


EXIT_MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.JOB_FAILED: "a job or image that was waited for ended as FAILED or CANCELLED, or `doctor` found a fault",
    ExitCode.USAGE: "the command line cannot be meant",
    ExitCode.NOT_FOUND: "no such job, system, app, image, user or file",
    ExitCode.NOT_AUTHENTICATED: "not logged in, wrong password, or the token no longer holds",
    ExitCode.REFUSED: "the server refused the request, or a job file or definition is invalid",
    ExitCode.UNREACHABLE: "the server cannot be reached, or failed (5xx)",
    ExitCode.TIMED_OUT: "what was waited for did not happen in the time given",
    ExitCode.NOT_INSTALLED: "this command needs the server, which is not installed here",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C); a submitted job goes on",
}
"""The table of docs/cli.md and `berth help exit-codes`."""


class BerthError(Exception):
    """Root of the client's errors. ``fix`` says what to do, in one sentence; it may be empty."""

    exit_code = ExitCode.REFUSED

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message, self.fix = message, fix


class UsageError(BerthError):
    """A combination of options that cannot be meant."""

    exit_code = ExitCode.USAGE


class InvalidInput(BerthError):
    """A job file, script, definition or key that cannot be used; the message names the field or line."""


class NotLoggedIn(BerthError):
    """There is no token to send."""

    exit_code = ExitCode.NOT_AUTHENTICATED


class Unreachable(BerthError):
    """No answer came from the server."""

    exit_code = ExitCode.UNREACHABLE


class TimedOut(BerthError):
    """What was waited for did not happen in the time given."""

    exit_code = ExitCode.TIMED_OUT


class NotInstalled(BerthError):
    """The server's code is not in this environment."""

    exit_code = ExitCode.NOT_INSTALLED


class ApiError(BerthError):
    """The server answered with an error.

    ``status`` is the HTTP status, ``message`` the server's own words, ``problem`` the RFC 9457 members beside them.
    """

    def __init__(self, status: int, message: str, problem: Mapping[str, Any] | None = None, fix: str = "") -> None:
        super().__init__(message, fix)
        self.status, self.problem = status, dict(problem or {})

    @property
    def rejections(self) -> list[Mapping[str, Any]]:
        """Why each system was impossible, when that is what the error is about; else empty."""
        found = self.problem.get("rejections")
        return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


class NotFound(ApiError):
    """404: no such thing, or not for this user to know."""

    exit_code = ExitCode.NOT_FOUND


class Unauthenticated(ApiError):
    """401: the token is missing or no longer holds."""

    exit_code = ExitCode.NOT_AUTHENTICATED


class ServerFailed(ApiError):
    """5xx: the server, or a system behind it, could not do it now."""

    exit_code = ExitCode.UNREACHABLE


def api_error(status: int, message: str, problem: Mapping[str, Any] | None = None) -> ApiError:
    """The error class that fits an HTTP status."""
    if status == 401:
        return Unauthenticated(status, message, problem, fix="log in again: berth login")
    if status == 404:
        return NotFound(status, message, problem)
    return (ServerFailed if status >= 500 else ApiError)(status, message, problem)
