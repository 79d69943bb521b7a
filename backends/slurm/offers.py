"""What a cluster offers or withholds beside its nodes: reservations, licences, accounts, qualities of service. Pure.

Sites hide some of this, and versions of Slurm word it differently: what is not understood is left out, never guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from typing import TypeVar

from backends.slurm.text import instant, oneliners
from scheduler.model.errors import UnexpectedReply
from scheduler.model.snapshots import Association, Closure, Licence, QosLimit
from scheduler.model.units import parse_walltime_s

PARTITIONS_ARGV = ("scontrol", "--oneliner", "show", "partition")
RESERVATIONS_ARGV = ("scontrol", "--oneliner", "show", "reservation")
LICENCES_ARGV = ("scontrol", "--oneliner", "show", "licenses")
ACCOUNTS_ARGV = (
    *("bash", "-c"),
    'sacctmgr -nP show assoc user="$(id -un)" format=account,partition,qos,defaultqos,maxjobs,maxsubmit',
)
QOS_ARGV = ("sacctmgr", "-nP", "show", "qos", "format=name,maxwall,maxjobspu,maxsubmitpu,maxtrespu")

ALLOCATIONS_ARGV = ("sshare", "--noheader", "--parsable2", "--format=Account,User,GrpTRESMins,GrpTRESRaw")

MOST_NODES = 100_000
"""A list of nodes that names more is none."""

T = TypeVar("T")


def parse_closures(reservations: str, partitions: str, least_cpus: int) -> tuple[Closure, ...]:
    """The answers to ``RESERVATIONS_ARGV`` and ``PARTITIONS_ARGV``: whole nodes that reservations take, by partition.

    least_cpus: of a node. A reservation of some cores of its nodes, which has fewer, closes none of them.
    """
    nodes_of = {one.get("PartitionName", ""): frozenset(_nodes(one.get("Nodes", ""))) for one in oneliners(partitions)}
    found: list[Closure] = []
    for one in oneliners(reservations):
        starts_at, ends_at = _instant(one.get("StartTime", "")), _instant(one.get("EndTime", ""))
        taken = frozenset(_nodes(one.get("Nodes", "")))
        flags = one.get("Flags", "").split(",")
        if starts_at is None or ends_at is None or not taken:
            continue
        cpus = _cpus(one.get("TRES", ""))
        if cpus is not None and cpus < least_cpus * len(taken):
            continue
        for partition, its_nodes in sorted(nodes_of.items()):
            if closed := len(taken & its_nodes):
                found.append(
                    Closure(
                        reservation=one.get("ReservationName", ""),
                        partition=partition,
                        nodes=closed,
                        starts_at=starts_at,
                        ends_at=ends_at,
                        maintenance="MAINT" in flags,
                    )
                )
    return tuple(found)


def parse_licences(text: str) -> tuple[Licence, ...]:
    """The answer to ``LICENCES_ARGV``; empty where the site counts none."""
    found = [(one.get("LicenseName", ""), _count(one.get("Total")), _count(one.get("Free"))) for one in oneliners(text)]
    return tuple(
        Licence(name=name, total=total, free=total if free is None else free)
        for name, total, free in found
        if name and total is not None
    )


def parse_associations(text: str) -> tuple[Association, ...]:
    """The answer to ``ACCOUNTS_ARGV``."""
    return tuple(
        Association(
            account=account,
            partition=partition or None,
            qos=tuple(filter(None, qos.split(","))),
            default_qos=default_qos or None,
        )
        for account, partition, qos, default_qos, *_ in _rows(text, 4)
        if account
    )


def parse_allocations(text: str) -> Mapping[str, int]:
    """The answer to ``ALLOCATIONS_ARGV``: core-minutes left by account, where it or an account above has a limit.

    An account's name is indented below its parent's, and a user's row below the account's.
    """
    above: list[tuple[int, float]] = []
    left: dict[str, int] = {}
    for account, user, limit, used, *_ in _rows(text, 4):
        depth = len(account) - len(account.lstrip())
        above = [row for row in above if row[0] < depth]
        most, taken = _cpus(limit), _cpus(used) or 0
        here = min([math.inf if most is None else most - taken, *(row[1] for row in above)])
        above.append((depth, here))
        if user and here != math.inf:
            left[account.strip()] = int(here)
    return left


def parse_qos(text: str) -> tuple[QosLimit, ...]:
    """The answer to ``QOS_ARGV``."""
    return tuple(
        QosLimit(name=name, max_walltime_s=_walltime_s(max_wall), max_cores_per_user=_cpus(max_tres))
        for name, max_wall, _, _, max_tres, *_ in _rows(text, 5)
        if name
    )


@dataclass(frozen=True, slots=True)
class Rights:
    """What the login may ask for; None where the site does not show it."""

    associations: tuple[Association, ...] | None = None
    qos: tuple[QosLimit, ...] | None = None


def rights_of(accounts: str | None, qos: str | None, allocations: str | None) -> Rights:
    """From the answers to ``ACCOUNTS_ARGV``, ``QOS_ARGV`` and ``ALLOCATIONS_ARGV``."""
    associations, left = shown(parse_associations, accounts), shown(parse_allocations, allocations) or {}
    if associations is not None:
        associations = tuple(replace(each, core_minutes_left=left.get(each.account)) for each in associations)
    return Rights(associations, shown(parse_qos, qos))


def shown(parse: Callable[..., T], *answers: str | int | None) -> T | None:
    """What the answers say; None when one of them did not come, or was not understood. They are extras to a look at
    the site, so what is wrong with them must not cost the look."""
    if None in answers:
        return None
    try:
        return parse(*answers)
    except (UnexpectedReply, ValueError, OverflowError):
        return None


# -- pieces ----------------------------------------------------------------------------------------------------------


def _nodes(text: str) -> Iterator[str]:
    """The names in Slurm's ``n[1-3,07],login``."""
    if text in ("", "(null)"):
        return
    for piece in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        parts = re.split(r"\[([^\]]*)\]", piece)
        choices = [[part] if index % 2 == 0 else _numbers(part) for index, part in enumerate(parts)]
        if math.prod(map(len, choices)) > MOST_NODES:
            raise UnexpectedReply(f"'{piece[:80]}' is not a list of nodes", piece)
        yield from map("".join, product(*choices))


def _numbers(text: str) -> Sequence[str]:
    found: list[str] = []
    for span in text.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", span)
        numbers = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if match is None or len(found) + len(numbers) > MOST_NODES:
            raise UnexpectedReply(f"'{text[:80]}' is not a list of nodes", text)
        found += [f"{number:0{len(match[1])}}" for number in numbers]
    return found


def _instant(text: str) -> datetime | None:
    return instant(text) if text.isdigit() else None


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = (line.rstrip().split("|") for line in text.splitlines())
    return [row for row in rows if len(row) >= columns]


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _cpus(tres: str) -> int | None:
    return next((_count(item[4:]) for item in tres.split(",") if item.startswith("cpu=")), None)


def _walltime_s(text: str) -> int | None:
    try:
        return parse_walltime_s(text) if text else None
    except ValueError:
        return None
