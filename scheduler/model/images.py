"""Images of jobs: what a name meant when the job came, and the copies of its content on systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

PUSHED = "berth://"
"""Before the digest of a file that a user pushed, in the place of a transport."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedImage:
    """What an image's name meant when it was resolved: from then on the job runs this content.

    name: as it was written. reference: the same by content, as runtimes read it. index_digest is None where the name
    leads to one manifest only. is_private: only a login reads it, so that no runtime can fetch it without Berth.
    """

    name: str
    reference: str
    manifest_digest: str
    index_digest: str | None
    download_bytes: int
    resolved_at: datetime
    is_private: bool = False


class PushedKind(StrEnum):
    """What a file is that a user pushed. SIF: also a bare squashfs, which runtimes mount likewise."""

    SIF = "sif"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedImage:
    """A file that a user gave to Berth so that jobs can name it; only that user's jobs read it. name: for people."""

    tenant: str
    user: str
    digest: str
    kind: PushedKind
    size_bytes: int
    name: str
    created_at: datetime


class CopyState(StrEnum):
    """How far a copy of an image is on its way to a system's store."""

    WANTED = "WANTED"
    FETCHING = "FETCHING"
    CONVERTING = "CONVERTING"
    SENDING = "SENDING"
    PRESENT = "PRESENT"
    FAILED = "FAILED"


UNDER_WAY = frozenset({CopyState.WANTED, CopyState.FETCHING, CopyState.CONVERTING, CopyState.SENDING})
"""States in which somebody works on a copy, or is to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCopy:
    """One image on one system, in the store of one login (``owner``). ``version`` guards every write.

    reference: pinned by digest. asked_by: the user whose logins read it. file_digest, size_bytes: of the file that it
    became. done_bytes, total_bytes: of the step that is under way. sent_bytes, reused_bytes: of the last transfer.
    figures: seconds and bytes of each step, by name. message: for people. pinned: it stays though nobody uses it.
    """

    id: int
    tenant: str
    system_id: str
    owner: str
    manifest_digest: str
    reference: str
    asked_by: str
    state: CopyState
    created_at: datetime
    updated_at: datetime
    file_digest: str | None = None
    size_bytes: int | None = None
    done_bytes: int = 0
    total_bytes: int | None = None
    sent_bytes: int | None = None
    reused_bytes: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    pinned: bool = False
    present_at: datetime | None = None
    used_at: datetime | None = None
    next_look_at: datetime | None = None
    version: int = 0
