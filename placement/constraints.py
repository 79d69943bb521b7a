"""The language of ``execSystemConstraints``: a WHERE clause over a system, its capabilities and one of its queues.

    canRunBatch = true AND maxMinutes >= 1440 AND (gpuModel IN ('A100', 'H100') OR tags LIKE 'gpu%')

The pieces of the list are joined with blanks, as Tapis does, so a piece may end in ``AND``. The grammar is so small
that a recursive descent by hand is shorter than a parser library with its error handling, and its messages can say
what was meant. Nothing here ever reaches ``eval`` or a database.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from placement.clauses import (
    ATTRIBUTES,
    Comparison,
    Conjunction,
    Constraint,
    Disjunction,
    Expression,
    Negation,
    attribute,
    flag,
    folded,
    number,
)
from scheduler.model.errors import SpecInvalid
from scheduler.model.systems import System

FIELD = "execSystemConstraints"
MAX_CHARS = 4096
MAX_DEPTH = 32


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
    tests = parse(pieces).tests()
    if not tests:
        return
    known = {folded(name): name for name in ATTRIBUTES}
    known |= {folded(each.name): each.name for system in systems for each in system.capabilities}
    for test in tests:
        if folded(test.name) not in known:
            near = difflib.get_close_matches(folded(test.name), known, n=3)
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
        known = attribute(test.name)
        if known is None or test.op == "LIKE":
            return
        if known.kind is bool and test.op not in ("=", "IN", "NULL"):
            self._refuse(name, "is true or false and has no order", "compare it with =")
        for literal in test.literals:
            if known.kind is bool and flag(literal) is None:
                self._refuse(name, f"is compared with '{literal[:40]}'", "write true or false")
            if known.kind is float and number(literal) is None:
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
