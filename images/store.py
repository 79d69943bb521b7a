"""Stores of images on systems: where they are, who may read them, how full they may be, and how they are asked.

The work is done by ``programs/store.py``, which travels to the system; here are the rules, and the words of a request.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

from scheduler.model.errors import FileRefused, SpecInvalid, UnexpectedReply

_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


class StoreRefused(FileRefused):
    """The store did not do it; ``kind`` says for which reason, the text what to do."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(f"the image store says: {why}")
        self.kind = kind


class StoreFull(StoreRefused):
    """There is no room: nothing was stored; collect garbage, raise the quota, or stage elsewhere."""


class ChunkDamaged(StoreRefused):
    """Bytes did not arrive as they were sent; nothing of them counts: send them again."""


class Scope(StrEnum):
    """Whom a store is for: images may be private, so none is for all."""

    USER = "user"
    PROJECT = "project"


MODES: Mapping[Scope, int] = {Scope.USER: 0o700, Scope.PROJECT: 0o750}
"""Mode of every directory: files below are as closed as the way to them."""


@dataclass(frozen=True, slots=True)
class StorePolicy:
    """The store of one system. root: absolute; each user's or project's store is a directory of its own below it.

    quota_bytes, quota_inodes: of each of them, None where only the disk limits. Above the share ``high`` of it images
    that nobody needs go, until the share ``low``.
    """

    root: str
    scope: Scope = Scope.USER
    quota_bytes: int | None = None
    quota_inodes: int | None = None
    high_share: float = 0.8
    low_share: float = 0.6
    trash_s: int = 3600
    lease_grace_s: int = 3600

    def __post_init__(self) -> None:
        if posixpath.normpath(self.root) != self.root or not self.root.startswith("/") or self.root == "/":
            raise SpecInvalid.of("store.root", f"'{self.root}' is not an absolute path", "as in /scratch/berth/images")
        if not 0 < self.low_share <= self.high_share <= 1:
            raise SpecInvalid.of("store.low_share", "must be above 0 and at most high_share, which is at most 1")

    def of(self, owner: str) -> StoreOf:
        """The store of a user or project."""
        if not _OWNER.match(owner):
            raise SpecInvalid.of("owner", f"'{owner[:80]}' is no name of a {self.scope}", "letters, digits, . - _")
        return StoreOf(self, f"{self.root}/{self.scope}-{owner}")


@dataclass(frozen=True, slots=True)
class StoreOf:
    """One owner's store: its place on the system, and requests to it."""

    policy: StorePolicy
    path: str

    @property
    def quota(self) -> dict[str, int]:
        """As the program wants it: only the limits that there are."""
        limits = {"bytes": self.policy.quota_bytes, "inodes": self.policy.quota_inodes}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def request(self, verb: str, **arguments: Any) -> bytes:
        """The line to send to the program; raw bytes may follow it."""
        mode = MODES[self.policy.scope]
        return json.dumps({"do": verb, "root": self.path, "mode": mode, "with": arguments}).encode("ascii") + b"\n"

    def file(self, digest: str) -> str:
        """Absolute path of an image there; SpecInvalid for what is no digest."""
        if not _DIGEST.match(digest):
            raise SpecInvalid.of("digest", f"'{digest[:80]}' is no digest", "sha256: and 64 hexadecimal digits")
        name = digest.removeprefix("sha256:")
        return f"{self.path}/blobs/sha256/{name[:2]}/{name}"

    def collect(self, live_jobs: Sequence[str] | None, need_bytes: int = 0) -> bytes:
        """The request that makes room. live_jobs: all that may still need an image; None when that is not known.

        need_bytes: of an image that is to come.
        """
        return self.request(
            "gc",
            quota=self.quota,
            live=live_jobs,
            high=self.policy.high_share,
            low=self.policy.low_share,
            grace_s=self.policy.lease_grace_s,
            trash_s=self.policy.trash_s,
            need_bytes=need_bytes,
        )


REFUSALS: Mapping[str, type[StoreRefused]] = {"full": StoreFull, "corrupt": ChunkDamaged}


def parse_answer(raw: bytes) -> dict[str, Any]:
    """What the program answered; raises what it refused, and UnexpectedReply for anything else."""
    text = raw.decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except ValueError:
        raise UnexpectedReply("the answer of the image store is not JSON", text) from None
    if not isinstance(answer, dict):
        raise UnexpectedReply("the answer of the image store is not an object", text)
    if "error" in answer:
        kind, why = str(answer["error"]), str(answer.get("why", "no reason given"))
        raise REFUSALS.get(kind, StoreRefused)(kind, why)
    return answer


@cache
def program() -> bytes:
    """The text of the program that keeps a store, to be sent to a system."""
    return files("images").joinpath("programs/store.py").read_bytes()
