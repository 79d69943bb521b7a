"""What the owner of a system says about images there: ``notes.berth.images``, read into one record.

Without it nothing is brought to the system: the runtime there fetches images by itself.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from images import staging
from images.host import HostFacts
from images.platforms import Platform
from images.records import FORMAT, load
from images.store import Scope, StorePolicy
from scheduler.model.errors import Problem, SpecInvalid
from scheduler.model.systems import System

FIELD = "notes.berth.images"
LONGEST_WAIT_S = 7 * 24 * 3600
USUAL_PLATFORM = Platform("linux", "amd64")
"""Of nodes of which nothing else is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePolicy:
    """How images are kept on one system and read by its jobs.

    local_dir: on each node's own disk. wait_s: how long a job that has started waits for its image. is_strict: what
    nobody knows of an image or of the nodes counts as no. may_probe: small jobs may look at the nodes. facts: what the
    owner says of the nodes, by class; it stands above what a probe found.
    """

    store: StorePolicy
    delivery: staging.Policy = staging.Policy.SHARED
    local_dir: str = "/tmp"  # noqa: S108 - the nodes' own, which is what it is for
    link_bytes_per_s: float | None = None
    shared_bytes_per_s: float | None = None
    may_relay: bool = True
    wait_s: int = 1800
    is_strict: bool = False
    may_probe: bool = True
    facts: Mapping[str, HostFacts] = field(default_factory=dict)

    @property
    def platform(self) -> Platform:
        """What images are taken for: the one architecture that the owner says all nodes have, else the usual one."""
        said = {facts.architecture for facts in self.facts.values() if facts.architecture}
        return Platform("linux", said.pop()) if len(said) == 1 else USUAL_PLATFORM


def policy_of(system: System) -> ImagePolicy | None:
    """What the owner said; None where nothing was. SpecInvalid names each key that is wrong, and how to write it."""
    notes = system.berth_notes.get("images")
    if notes is None:
        return None
    if not isinstance(notes, Mapping):
        raise SpecInvalid.of(FIELD, "is not an object", 'write {"store": "/scratch/berth/images"}')
    problems = [
        Problem(f"{FIELD}.{key}", "is not known", f"known are {', '.join(_KEYS)}") for key in notes.keys() - _KEYS
    ]
    read: dict[str, Any] = {}
    for key, (reader, default) in _KEYS.items():
        try:
            read[key] = reader(f"{FIELD}.{key}", notes[key]) if notes.get(key) is not None else default
        except SpecInvalid as error:
            problems += error.problems
    if notes.get("store") is None:
        problems.append(Problem(f"{FIELD}.store", "is missing", _STORE_FIX))
    if read.get("scope") is Scope.PROJECT and system.is_dynamic_user:
        fix = "let effectiveUserId name the project's account, or write user"
        problems.append(Problem(f"{FIELD}.scope", "is project, but each user has an account of their own here", fix))
    if problems:
        raise SpecInvalid(*sorted(problems, key=lambda problem: problem.field))
    return ImagePolicy(
        store=StorePolicy(read["store"], read["scope"], read["quotaBytes"], read["quotaInodes"]),
        delivery=read["delivery"],
        local_dir=read["localDir"],
        link_bytes_per_s=read["linkBytesPerS"],
        shared_bytes_per_s=read["sharedBytesPerS"],
        may_relay=read["relay"],
        wait_s=read["waitS"],
        is_strict=read["strict"],
        may_probe=read["probe"],
        facts=read["facts"],
    )


# -- readers of values -----------------------------------------------------------------------------------------------

_STORE_FIX = "write an absolute path on a file system that all nodes see, as /scratch/berth/images"

Reader = Callable[[str, Any], Any]


def _path(name: str, value: Any) -> str:
    whole = isinstance(value, str) and value.isprintable() and len(value) <= 1000
    if not whole or not value.startswith("/") or value == "/" or posixpath.normpath(value) != value:
        raise SpecInvalid.of(name, "is not an absolute path of a directory", _STORE_FIX)
    return str(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SpecInvalid.of(name, "is neither true nor false", "write true or false")
    return value


def _whole(least: int, most: int) -> Reader:
    def read(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise SpecInvalid.of(name, "is no such number", f"write a whole number from {least} to {most}")
        return value

    return read


def _rate(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 1e15:
        raise SpecInvalid.of(name, "is no rate", "write bytes per second, as 125000000 for 1 Gb/s")
    return float(value)


def _one_of(kind: type[Scope] | type[staging.Policy]) -> Reader:
    def read(name: str, value: Any) -> Any:
        words = [word.value for word in kind]
        if value not in words:
            raise SpecInvalid.of(name, "is not known", f"write {', '.join(words[:-1])} or {words[-1]}")
        return kind(value)

    return read


def _facts(name: str, value: Any) -> Mapping[str, HostFacts]:
    if not isinstance(value, Mapping) or not all(isinstance(facts, Mapping) for facts in value.values()):
        raise SpecInvalid.of(name, "is not an object of objects", 'write {"<class of nodes>": {"kernel": [5, 14]}}')
    return MappingProxyType({node_class: _host(name, node_class, facts) for node_class, facts in value.items()})


def _host(name: str, node_class: str, facts: Mapping[str, Any]) -> HostFacts:
    try:
        return load(HostFacts, json.dumps({**facts, "format": FORMAT, "node_class": node_class}, default=dict))
    except SpecInvalid as error:
        where = f"{name}.{node_class[:80]}"
        raise SpecInvalid(
            *(Problem(each.field.replace("hostfacts", where, 1), each.wrong, each.fix) for each in error.problems)
        ) from None


_KEYS: Mapping[str, tuple[Reader, Any]] = MappingProxyType(
    {
        "store": (_path, None),
        "scope": (_one_of(Scope), Scope.USER),
        "quotaBytes": (_whole(2**20, 2**60), None),
        "quotaInodes": (_whole(10, 2**40), None),
        "delivery": (_one_of(staging.Policy), staging.Policy.SHARED),
        "localDir": (_path, "/tmp"),  # noqa: S108
        "linkBytesPerS": (_rate, None),
        "sharedBytesPerS": (_rate, None),
        "relay": (_flag, True),
        "waitS": (_whole(1, LONGEST_WAIT_S), 1800),
        "strict": (_flag, False),
        "probe": (_flag, True),
        "facts": (_facts, MappingProxyType({})),
    }
)
"""Each key with how its value is read, and what holds where it is left out."""
