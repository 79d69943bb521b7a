"""What can be wrong with an image or with where it comes from: each error says what, why and what to do."""

from __future__ import annotations

from scheduler.model.errors import (
    BackendUnavailable,
    BerthError,
    CredentialRefused,
    NotFound,
    Problem,
    SpecInvalid,
    Stale,
    UnexpectedReply,
)


def login_command(host: str) -> str:
    """How people give Berth their login for a registry."""
    return f"berth images login {host}"


class ImageUnusable(SpecInvalid):
    """The image is there, but nothing here can use it: its format, its size, its platforms, or what a layer holds."""

    def __init__(self, name: str, wrong: str, fix: str) -> None:
        super().__init__(Problem("image", f"'{name[:200]}' {wrong}" if name else wrong, fix))

    @classmethod
    def in_layer(cls, wrong: str, fix: str = "build the image again without it") -> ImageUnusable:
        """For those who see layers only, and do not know the image's name."""
        return cls("", wrong, fix)


class ImageUnknown(NotFound):
    """The registry, or the place that was named, holds no such image."""

    def __init__(self, name: str, why: str) -> None:
        BerthError.__init__(self, f"image '{name}' was not found: {why}")
        self.kind, self.name = "image", name


class ImagePrivate(CredentialRefused):
    """The registry lets this login, or no login, not read the image."""


class TagMoved(Stale):
    """The tag was resolved to a digest that the registry has let go of since: resolve it again."""


class RegistryUnavailable(BackendUnavailable):
    """The registry does not answer, or asks us to wait longer than we may; ``retry_after_s`` when it said how long."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RegistryMisbehaves(UnexpectedReply):
    """The registry answered something that the protocol does not know or that we must not follow."""


class BlobCorrupt(RegistryMisbehaves):
    """The bytes are not those that were named, or end early: nothing of them was handed on. Fetch them again."""
