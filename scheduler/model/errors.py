"""Every error that crosses a layer, named for what the caller may do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.model.plan import Rejection


class BerthError(Exception):
    """Root of the errors that Berth raises on purpose; the edges map each subclass to an answer."""


# -- what the caller of a use case got wrong ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: the field as the caller wrote it, what is wrong, and how to fix it."""

    field: str
    wrong: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.wrong}" + (f"; {self.fix}" if self.fix else "")


class SpecInvalid(BerthError):
    """The request cannot be meant; nothing was stored."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems

    @classmethod
    def of(cls, field: str, wrong: str, fix: str = "") -> SpecInvalid:
        return cls(Problem(field, wrong, fix))


class NotFound(BerthError):
    """No such thing in this tenant, or not for this user to know."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} '{name}' was not found")
        self.kind, self.name = kind, name


class AlreadyExists(BerthError):
    """A thing of this name exists; nothing was changed."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} '{name}' already exists")
        self.kind, self.name = kind, name


class InUse(BerthError):
    """Others need it; nothing was changed."""


class KeyReused(BerthError):
    """An Idempotency-Key came again with another body; nothing was stored."""


class Unauthenticated(BerthError):
    """No token, or one that does not hold."""


class LoginRefused(BerthError):
    """User name and password do not match, or the grant is not allowed."""


class TooManyLogins(BerthError):
    """Too many logins were refused; no password was looked at."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many logins were refused; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Forbidden(BerthError):
    """Known user, but not allowed to do this."""


class NoFeasibleSystem(BerthError):
    """What the stored facts already exclude everywhere; carries why each system was rejected."""

    def __init__(self, rejections: Sequence[Rejection], sentence: str) -> None:
        super().__init__(sentence)
        self.rejections = tuple(rejections)


class CredentialRefused(BerthError):
    """A system did not accept a credential; the text is the system's own."""


# -- what the store found ----------------------------------------------------------------------------------------


class IllegalMove(BerthError):
    """No row of the table allows this event in this state."""


class Stale(BerthError):
    """Someone else changed it first; read it again."""


class StaleJob(Stale):
    """Someone else moved the job first; read it again."""


# -- what a backend learnt ---------------------------------------------------------------------------------------


class NothingLearnt(BerthError):
    """The call brought nothing new about the job: keep what is known."""


class BackendUnavailable(NothingLearnt):
    """The system did not answer."""


class UnexpectedReply(NothingLearnt):
    """Our parser is behind the system; carries the raw text, cut to 2 KiB."""

    def __init__(self, message: str, raw: str = "") -> None:
        super().__init__(message)
        self.raw = raw[:2048]


class NotAuthorised(NothingLearnt):
    """The login itself fails: an operator or the user must act."""


class PortClosed(BerthError):
    """The place of a pod answers, but nobody listens on this port of the pod."""


class SubmitError(BerthError):
    """Root of the two ways in which a submission did not give an id."""


class SubmitRejected(SubmitError):
    """The system refused: no remote job exists; the text says why."""


class SubmitUncertain(SubmitError):
    """It may or may not exist: ask ``find``."""


class FileMissing(BerthError):
    """No such file or directory on the system."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no such file or directory: {path}")
        self.path = path


class FileRefused(BerthError):
    """The system will not do this with the file (permission, quota, wrong kind); the text is the system's own."""
