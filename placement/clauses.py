"""What clauses over a system, its capabilities and one of its queues mean, and whether they hold.

Logic is SQL's: what a system does not say is unknown, unknown is not true, and ``NOT`` unknown is unknown. An attribute
with several values (``tags``, ``jobRuntimes``) meets a comparison when one of them does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from scheduler.model.systems import LogicalQueue, System

Scalar = str | float | bool
Truth = bool | None
"""True, False, or None for unknown."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A name that every system or queue has: the type of its values, and how they are read."""

    kind: type[str] | type[float] | type[bool]
    values: Callable[[System, LogicalQueue | None], Iterable[Scalar | None]]


def _of_system(kind: type[str] | type[float] | type[bool], read: Callable[[System], Scalar | None]) -> Attribute:
    return Attribute(kind, lambda system, _: (read(system),))


def _of_queue(kind: type[str] | type[float], read: Callable[[LogicalQueue], Scalar]) -> Attribute:
    return Attribute(kind, lambda _, queue: (read(queue),) if queue else ())


ATTRIBUTES: Mapping[str, Attribute] = {
    "id": _of_system(str, lambda s: s.id),
    "uuid": _of_system(str, lambda s: s.uuid),
    "tenant": _of_system(str, lambda s: s.tenant),
    "owner": _of_system(str, lambda s: s.owner),
    "host": _of_system(str, lambda s: s.host),
    "port": _of_system(float, lambda s: s.port),
    "description": _of_system(str, lambda s: s.description),
    "systemType": _of_system(str, lambda s: s.kind.value),
    "effectiveUserId": _of_system(str, lambda s: s.effective_user_id),
    "defaultAuthnMethod": _of_system(str, lambda s: s.default_authn_method.value),
    "rootDir": _of_system(str, lambda s: s.root_dir),
    "canExec": _of_system(bool, lambda s: s.can_exec),
    "canRunBatch": _of_system(bool, lambda s: s.can_run_batch),
    "enableCmdPrefix": _of_system(bool, lambda s: s.enable_cmd_prefix),
    "enabled": _of_system(bool, lambda s: s.enabled),
    "isPublic": _of_system(bool, lambda s: s.is_public),
    "mpiCmd": _of_system(str, lambda s: s.mpi_cmd),
    "jobWorkingDir": _of_system(str, lambda s: s.job_working_dir),
    "jobMaxJobs": _of_system(float, lambda s: s.max_jobs),
    "jobMaxJobsPerUser": _of_system(float, lambda s: s.max_jobs_per_user),
    "batchScheduler": _of_system(str, lambda s: s.batch_scheduler),
    "batchDefaultLogicalQueue": _of_system(str, lambda s: s.default_queue),
    "jobRuntimes": Attribute(str, lambda s, _: (runtime.runtime.value for runtime in s.runtimes)),
    "tags": Attribute(str, lambda s, _: s.tags),
    "name": _of_queue(str, lambda q: q.name),
    "hpcQueueName": _of_queue(str, lambda q: q.partition),
    "maxJobs": _of_queue(float, lambda q: q.max_jobs),
    "maxJobsPerUser": _of_queue(float, lambda q: q.max_jobs_per_user),
    "minNodeCount": _of_queue(float, lambda q: q.min_nodes),
    "maxNodeCount": _of_queue(float, lambda q: q.max_nodes),
    "minCoresPerNode": _of_queue(float, lambda q: q.min_cores_per_node),
    "maxCoresPerNode": _of_queue(float, lambda q: q.max_cores_per_node),
    "minMemoryMB": _of_queue(float, lambda q: q.min_memory_mib),
    "maxMemoryMB": _of_queue(float, lambda q: q.max_memory_mib),
    "minMinutes": _of_queue(float, lambda q: q.min_walltime_s // 60),
    "maxMinutes": _of_queue(float, lambda q: q.max_walltime_s // 60),
}
"""Names of the wire; camelCase and snake_case mean the same. Any other name is a job capability's."""


def folded(name: str) -> str:
    """The form in which camelCase and snake_case are the same name."""
    return name.replace("_", "").casefold()


_BY_FOLDED = {folded(name): each for name, each in ATTRIBUTES.items()}


def attribute(name: str) -> Attribute | None:
    """The attribute of that name; None when only a capability can have it."""
    return _BY_FOLDED.get(folded(name))


# -- what a clause means -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison. ``op`` is ``=``, ``<``, ``<=``, ``>``, ``>=``, ``IN``, ``LIKE``, ``BETWEEN`` or ``NULL``."""

    name: str
    op: str
    literals: tuple[str, ...]
    column: int
    text: str

    def truth(self, system: System, queue: LogicalQueue | None) -> Truth:
        values = values_of(self.name, system, queue)
        if self.op == "NULL":
            return not values
        answers = [_compare(self.op, value, self.literals) for value in values]
        return _any(answers) if answers else None


@dataclass(frozen=True, slots=True)
class Negation:
    part: Expression
    text: str

    def truth(self, system: System, queue: LogicalQueue | None) -> Truth:
        inner = self.part.truth(system, queue)
        return None if inner is None else not inner


@dataclass(frozen=True, slots=True)
class Conjunction:
    parts: tuple[Expression, ...]
    text: str

    def truth(self, system: System, queue: LogicalQueue | None) -> Truth:
        return _all([part.truth(system, queue) for part in self.parts])


@dataclass(frozen=True, slots=True)
class Disjunction:
    parts: tuple[Expression, ...]
    text: str

    def truth(self, system: System, queue: LogicalQueue | None) -> Truth:
        return _any([part.truth(system, queue) for part in self.parts])


Expression = Comparison | Negation | Conjunction | Disjunction


@dataclass(frozen=True, slots=True)
class Unmet:
    """The first clause that does not hold: its text, and what the names in it are ("maxMinutes is 10")."""

    clause: str
    actual: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """A parsed request; ``root`` None when nothing was asked."""

    root: Expression | None

    def unmet(self, system: System, queue: LogicalQueue | None) -> Unmet | None:
        """The clause that excludes this place; None when all hold."""
        if self.root is None:
            return None
        for clause in self.root.parts if isinstance(self.root, Conjunction) else (self.root,):
            if clause.truth(system, queue) is not True:
                return Unmet(clause.text, _actual(clause, system, queue))
        return None

    def tests(self) -> tuple[Comparison, ...]:
        """All comparisons, in the order in which they are written."""
        return tuple(_tests(self.root)) if self.root else ()


def values_of(name: str, system: System, queue: LogicalQueue | None) -> tuple[Scalar, ...]:
    """What a place says under a name: none, one or several values. Of capabilities the highest precedence counts."""
    known = attribute(name)
    if known is not None:
        return tuple(value for value in known.values(system, queue) if value is not None)
    found = [each for each in system.capabilities if folded(each.name) == folded(name)]
    highest = max((each.precedence for each in found), default=0)
    return tuple(_typed(each.value, each.datatype) for each in found if each.precedence == highest)


def _typed(text: str, datatype: str) -> Scalar:
    reader = {"INTEGER": number, "NUMBER": number, "BOOLEAN": flag}.get(datatype.upper())
    value = reader(text) if reader else None
    return text if value is None else value


_FLAGS = {"true": True, "false": False}
_NUMBER = re.compile(r"[-+]?\d{1,30}(\.\d{0,30})?")


def flag(text: str) -> bool | None:
    """``true`` or ``false`` in any case; None for anything else."""
    return _FLAGS.get(text.strip().casefold())


def number(text: str) -> float | None:
    """A plain decimal number; None for anything else."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def _compare(op: str, value: Scalar, literals: tuple[str, ...]) -> Truth:
    if op == "IN":
        return _any([_compare("=", value, (literal,)) for literal in literals])
    if op == "BETWEEN":
        return _all([_compare(">=", value, literals[:1]), _compare("<=", value, literals[1:])])
    if op == "LIKE":
        return like(_written(value), literals[0])
    if isinstance(value, bool):
        meant = flag(literals[0])
        return value is meant if op == "=" and meant is not None else None
    if isinstance(value, str):
        return _ordered(op, value, literals[0])
    figure = number(literals[0])
    return None if figure is None else _ordered(op, value, figure)


def _ordered(op: str, left: str | float, right: str | float) -> bool:
    below, equal = left < right, left == right  # type: ignore[operator]  # both text or both numbers
    return {"=": equal, "<": below, "<=": below or equal, ">": not (below or equal), ">=": not below}[op]


def _any(answers: list[Truth]) -> Truth:
    return True if True in answers else None if None in answers else False


def _all(answers: list[Truth]) -> Truth:
    return False if False in answers else None if None in answers else True


def like(text: str, pattern: str) -> bool:
    """SQL's LIKE: ``%`` any run, ``_`` any one character. Backs up to the last ``%`` only: quadratic at most."""
    at = place = 0
    star, resume = -1, 0
    while at < len(text):
        if place < len(pattern) and pattern[place] == "%":
            star, resume, place = place, at, place + 1
        elif place < len(pattern) and pattern[place] in ("_", text[at]):
            at, place = at + 1, place + 1
        elif star >= 0:
            resume, place = resume + 1, star + 1
            at = resume
        else:
            return False
    return not pattern[place:].strip("%")


def _tests(expression: Expression) -> Iterable[Comparison]:
    if isinstance(expression, Comparison):
        yield expression
    elif isinstance(expression, Negation):
        yield from _tests(expression.part)
    else:
        for part in expression.parts:
            yield from _tests(part)


def _actual(clause: Expression, system: System, queue: LogicalQueue | None) -> str:
    names = dict.fromkeys(test.name for test in _tests(clause))
    said = {name: " and ".join(map(_written, values_of(name, system, queue))) for name in names}
    return ", ".join(f"{name} is {values or 'not known'}" for name, values in said.items())


def _written(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and value.is_integer() and abs(value) < 1e6 else str(value)
