"""The language of ``execSystemConstraints``: a WHERE clause over a system, its capabilities and one of its queues.

    canRunBatch = true AND maxMinutes >= 1440 AND (gpuModel IN ('A100', 'H100') OR tags LIKE 'gpu%')

The pieces of the list are joined with blanks, as Tapis does, so a piece may end in ``AND``. Logic is SQL's: what a
system does not say is unknown, unknown is not true, and ``NOT`` unknown is unknown. The grammar has eight productions,
so a recursive descent by hand is shorter than a parser library with its error handling, and its messages can say what
was meant. Nothing here ever reaches ``eval`` or a database.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from scheduler.model.errors import SpecInvalid
from scheduler.model.systems import LogicalQueue, System

FIELD = "execSystemConstraints"
MAX_CHARS = 4096
MAX_DEPTH = 32

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


def _folded(name: str) -> str:
    return name.replace("_", "").casefold()


_BY_FOLDED = {_folded(name): attribute for name, attribute in ATTRIBUTES.items()}


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
    attribute = _BY_FOLDED.get(_folded(name))
    if attribute is not None:
        return tuple(value for value in attribute.values(system, queue) if value is not None)
    found = [each for each in system.capabilities if _folded(each.name) == _folded(name)]
    highest = max((each.precedence for each in found), default=0)
    return tuple(_typed(each.value, each.datatype) for each in found if each.precedence == highest)


def _typed(text: str, datatype: str) -> Scalar:
    reader = {"INTEGER": _number, "NUMBER": _number, "BOOLEAN": _flag}.get(datatype.upper())
    value = reader(text) if reader else None
    return text if value is None else value


_FLAGS = {"true": True, "false": False}
_NUMBER = re.compile(r"[-+]?\d{1,30}(\.\d{0,30})?")


def _flag(text: str) -> bool | None:
    return _FLAGS.get(text.strip().casefold())


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def _compare(op: str, value: Scalar, literals: tuple[str, ...]) -> Truth:
    if op == "IN":
        return _any([_compare("=", value, (literal,)) for literal in literals])
    if op == "BETWEEN":
        return _all([_compare(">=", value, literals[:1]), _compare("<=", value, literals[1:])])
    if op == "LIKE":
        return like(_written(value), literals[0])
    if isinstance(value, bool):
        flag = _flag(literals[0])
        return value is flag if op == "=" and flag is not None else None
    if isinstance(value, str):
        return _ordered(op, value, literals[0])
    number = _number(literals[0])
    return None if number is None else _ordered(op, value, number)


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


# -- reading it --------------------------------------------------------------------------------------------------


def parse(pieces: Sequence[str]) -> Constraint:
    """The meaning of a request's pieces. Raises SpecInvalid that points at the column and says what was expected."""
    return _parsed(" ".join(pieces))


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Constraint:
    if len(text) > MAX_CHARS:
        raise SpecInvalid.of(FIELD, f"has {len(text)} characters", f"use at most {MAX_CHARS}")
    return Constraint(_Parser(text).whole()) if text.strip() else Constraint(None)


def validate(pieces: Sequence[str], systems: Iterable[System]) -> None:
    """Refuse names that neither the language nor any of these systems knows, with what may have been meant."""
    known = {_folded(name): name for name in ATTRIBUTES}
    known |= {_folded(each.name): each.name for system in systems for each in system.capabilities}
    for test in parse(pieces).tests():
        if _folded(test.name) not in known:
            near = difflib.get_close_matches(_folded(test.name), known, n=3)
            fix = "did you mean " + " or ".join(known[name] for name in near) + "?" if near else _NO_SUCH_NAME
            raise SpecInvalid.of(FIELD, f"column {test.column}: no system says '{test.name}'", fix)


_NO_SUCH_NAME = "use an attribute of systems or logical queues, or the name of a job capability"
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*')|(?P<quoted>"[^"]*")|(?P<op><=|>=|<>|!=|=|<|>)|(?P<mark>[(),])"""
    r"""|(?P<word>[-+]?\w[\w.:/@+-]*))"""
)
_KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "LIKE", "BETWEEN", "IS", "NULL"})
_PLAIN = {"<>": "=", "!=": "=", "IS": "NULL"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int

    @property
    def keyword(self) -> str:
        upper = self.text.upper()
        return upper if self.kind == "word" and upper in _KEYWORDS else self.text if self.kind in ("op", "mark") else ""


class _Parser:
    """Recursive descent: any := all {OR all}; all := unit {AND unit}; unit := NOT unit | ( any ) | test."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._tokens()
        self.next = 0
        self.depth = 0

    def whole(self) -> Expression:
        expression = self._any()
        if self._peek().kind != "end":
            self._refuse(self._peek(), "expected AND or OR", "join pieces with AND")
        return expression

    def _tokens(self) -> list[_Token]:
        tokens, at, end = [], 0, len(self.text.rstrip())
        while at < end:
            match = _TOKEN.match(self.text, at)
            if match is None or match.lastgroup is None:
                start = at + len(self.text[at:]) - len(self.text[at:].lstrip())
                wrong = "this quote is never closed" if self.text[start] in "'\"" else "this does not belong here"
                self._refuse(_Token("", self.text[start], start, start + 1), wrong)
            tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup), match.end()))
            at = match.end()
        return [*tokens, _Token("end", "the end", end, end)]

    def _any(self) -> Expression:
        start, parts = self._peek().start, [self._all()]
        while self._take("OR"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Disjunction(tuple(parts), self._since(start))

    def _all(self) -> Expression:
        start, parts = self._peek().start, [self._unit()]
        while self._take("AND"):
            parts.append(self._unit())
        return parts[0] if len(parts) == 1 else Conjunction(tuple(parts), self._since(start))

    def _unit(self) -> Expression:
        start = self._peek()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._refuse(start, "too many levels of NOT and parentheses", f"use at most {MAX_DEPTH}")
        if self._take("NOT"):
            expression: Expression = Negation(self._unit(), self._since(start.start))
        elif self._take("("):
            expression = self._any()
            self._expect(")")
        else:
            expression = self._test()
        self.depth -= 1
        return expression

    def _test(self) -> Expression:
        name = self._advance()
        if name.kind not in ("word", "quoted") or name.keyword:
            self._refuse(name, "expected the name of an attribute")
        negated = self._take("NOT")
        op = self._advance()
        literals: tuple[str, ...] = ()
        match op.keyword:
            case "IN":
                literals = self._list()
            case "LIKE":
                literals = (self._literal(),)
            case "BETWEEN":
                low = self._literal()
                self._expect("AND")
                literals = (low, self._literal())
            case "=" | "<>" | "!=" | "<" | "<=" | ">" | ">=" if not negated:
                literals = (self._literal(),)
            case "IS" if not negated:
                negated = self._take("NOT")
                self._expect("NULL")
            case _:
                self._refuse(op, "expected =, <>, <, <=, >, >=, IN, LIKE, BETWEEN or IS NULL")
        kind = _PLAIN.get(op.keyword, op.keyword)
        test = Comparison(_unquoted(name), kind, literals, name.start + 1, self._since(name.start))
        self._check_types(test, name)
        return Negation(test, test.text) if negated or op.keyword in ("<>", "!=") else test

    def _list(self) -> tuple[str, ...]:
        self._expect("(")
        literals = [self._literal()]
        while self._take(","):
            literals.append(self._literal())
        self._expect(")")
        return tuple(literals)

    def _literal(self) -> str:
        token = self._advance()
        if token.kind not in ("text", "quoted", "word") or token.keyword:
            self._refuse(token, "expected a value", "put text between single quotes")
        return _unquoted(token)

    def _check_types(self, test: Comparison, name: _Token) -> None:
        attribute = _BY_FOLDED.get(_folded(test.name))
        if attribute is None or test.op == "LIKE":
            return
        if attribute.kind is bool and test.op not in ("=", "IN", "NULL"):
            self._refuse(name, "is true or false and has no order", "compare it with =")
        for literal in test.literals:
            if attribute.kind is bool and _flag(literal) is None:
                self._refuse(name, f"is compared with '{literal[:40]}'", "write true or false")
            if attribute.kind is float and _number(literal) is None:
                self._refuse(name, f"is compared with '{literal[:40]}'", "write a number")

    def _peek(self) -> _Token:
        return self.tokens[self.next]

    def _advance(self) -> _Token:
        token = self.tokens[self.next]
        self.next = min(self.next + 1, len(self.tokens) - 1)
        return token

    def _take(self, keyword: str) -> bool:
        found = self._peek().keyword == keyword
        self.next += found
        return found

    def _expect(self, keyword: str) -> None:
        if not self._take(keyword):
            self._refuse(self._peek(), f"expected {keyword}")

    def _since(self, start: int) -> str:
        return self.text[start : self.tokens[self.next - 1].end]

    def _refuse(self, token: _Token, wrong: str, fix: str = "") -> NoReturn:
        near = token.text if token.kind == "end" else f"'{token.text[:40]}'"
        raise SpecInvalid.of(FIELD, f"column {token.start + 1}, at {near}: {wrong}", fix)


def _unquoted(token: _Token) -> str:
    if token.kind == "text":
        return token.text[1:-1].replace("''", "'")
    return token.text[1:-1] if token.kind == "quoted" else token.text
