"""execSystemConstraints: SQL's logic over systems, their capabilities and queues, with messages that help."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.clauses import ATTRIBUTES, Comparison, Conjunction, Disjunction, Negation, like
from placement.constraints import parse, validate
from scheduler.model.errors import SpecInvalid
from scheduler.model.systems import Capability
from tests.placement.worlds import cluster, queue

ALDER = replace(
    cluster("alder", queue("cpu", max_walltime_s=86_400), queue("debug", max_walltime_s=600)),
    tags=("gpu", "it's"),
    capabilities=(
        Capability(category="HARDWARE", name="gpuModel", datatype="STRING", value="A100"),
        Capability(category="HARDWARE", name="gpu_count", datatype="INTEGER", value="8"),
        Capability(category="SOFTWARE", name="has licence", datatype="BOOLEAN", value="TRUE"),
        Capability(category="CUSTOM", name="tier", datatype="STRING", value="bronze", precedence=1),
        Capability(category="CUSTOM", name="tier", datatype="STRING", value="gold", precedence=9),
        Capability(category="CUSTOM", name="Ärger", datatype="STRING", value="nein"),
    ),
)
CPU = ALDER.queues[0]

HOLDS = [
    "id = 'alder'",
    "id=alder",
    'host = "alder.example.org"',
    "canExec = true AND can_run_batch = TRUE",
    "maxMinutes >= 1440 and MAXMINUTES <= 1440.0",
    "maxMinutes between 10 and 2000",
    "NOT maxMinutes NOT BETWEEN 10 AND 2000",
    "name IN ('cpu', debug)",
    "name NOT IN (debug)",
    "id LIKE 'al%' AND id LIKE '_lder' AND id NOT LIKE 'b%'",
    "tags = gpu AND tags = 'it''s'",
    "gpuModel = 'A100' AND gpu_count > 7 AND gpucount < 8.5",
    '"has licence" = true',
    "tier = gold AND tier <> bronze",
    "Ärger = nein",
    "mpiCmd IS NULL AND host IS NOT NULL AND no_such IS NULL",
    "id = birch OR (id = alder AND NOT id = birch)",
    "id = birch AND id = cedar OR id = alder",
    "port > -1",
    "jobRuntimes = SINGULARITY",
]
FAILS = [
    "id = birch",
    "maxMinutes > 1440",
    "name = debug",
    "no_such = 1",
    "NOT no_such = 1",
    "no_such <> 1",
    "no_such = 1 OR mpiCmd = srun",
    "gpu_count = many",
    "tags = cpu",
    "id = alder AND (id = birch OR id = cedar)",
    "id LIKE 'lder'",
]


@pytest.mark.parametrize("text", HOLDS)
def test_a_true_clause_keeps_the_place(text):
    assert parse((text,)).unmet(ALDER, CPU) is None


@pytest.mark.parametrize("text", FAILS)
def test_what_is_false_or_unknown_excludes_the_place(text):
    assert parse((text,)).unmet(ALDER, CPU) is not None


def test_pieces_are_joined_with_blanks_as_tapis_does():
    assert parse(("id=alder AND", "canExec=true")).unmet(ALDER, CPU) is None
    assert parse(()).unmet(ALDER, CPU) is None
    assert parse(("", "  ")).unmet(ALDER, CPU) is None


def test_the_clause_that_failed_is_named_with_what_is_there():
    unmet = parse(("canExec = true AND", "maxMinutes >= 2880", "AND id = x")).unmet(ALDER, CPU)
    assert unmet is not None
    assert (unmet.clause, unmet.actual) == ("maxMinutes >= 2880", "maxMinutes is 1440")


def test_queue_attributes_are_unknown_where_there_is_no_queue():
    assert parse(("maxMinutes > 1",)).unmet(ALDER, None) is not None
    assert parse(("maxMinutes IS NULL",)).unmet(ALDER, None) is None


REFUSED = [
    ("id", "column 3, at the end: expected =, <>, <, <=, >, >=, IN, LIKE, BETWEEN or IS NULL"),
    ("id =", "column 5, at the end: expected a value"),
    ("id = a id = b", "column 8, at 'id': expected AND or OR; join pieces with AND"),
    ("id = a AND", "column 11, at the end: expected the name of an attribute"),
    ("(id = a", "column 8, at the end: expected )"),
    ("id = a)", "column 7, at ')': expected AND or OR"),
    ("id = 'a", "column 6, at ''': this quote is never closed"),
    ("id = a; DROP TABLE systems", "column 7, at ';': this does not belong here"),
    ("id IN ()", "column 8, at ')': expected a value"),
    ("id IN (a b)", "column 10, at 'b': expected )"),
    ("id NOT = a", "column 8, at '=': expected =,"),
    ("maxMinutes BETWEEN 1 OR 2", "column 22, at 'OR': expected AND"),
    ("maxMinutes = soon", "column 1, at 'maxMinutes': is compared with 'soon'; write a number"),
    ("canExec = maybe", "column 1, at 'canExec': is compared with 'maybe'; write true or false"),
    ("canExec > false", "column 1, at 'canExec': is true or false and has no order"),
    ("__import__('os')", "column 11, at '(': expected =,"),
    ("id = a\x00", "this does not belong here"),
    ("(" * 200 + "id = a" + ")" * 200, "too many levels"),
    ("x = " + "y" * 5000, "has 5004 characters; use at most 4096"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text[:20] for text, _ in REFUSED])
def test_what_cannot_be_read_is_refused_at_its_column(text, message):
    with pytest.raises(SpecInvalid, match=re.escape(message)) as caught:
        parse((text,))
    assert caught.value.problems[0].field == "execSystemConstraints"


def test_a_name_that_nobody_knows_is_refused_with_what_was_meant():
    with pytest.raises(SpecInvalid, match=re.escape("column 18: no system says 'gpuModle'; did you mean gpuModel?")):
        validate(("canExec=true AND gpuModle = 'A100'",), [ALDER])
    with pytest.raises(SpecInvalid, match="maxMinutes"):
        validate(("max_minute > 3",), [])
    validate(("GPU_MODEL = 'A100' AND max_minutes > 3",), [ALDER])


def test_every_attribute_can_be_asked_in_camel_and_in_snake_case():
    for name in ATTRIBUTES:
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        camel, other = parse((f"{name} IS NULL",)), parse((f"{snake} IS NULL",))
        assert camel.unmet(ALDER, CPU) is None or camel.unmet(ALDER, CPU).actual  # reading it never fails
        assert (camel.unmet(ALDER, CPU) is None) == (other.unmet(ALDER, CPU) is None)


def read_or_refused(text: str) -> None:
    try:
        constraint = parse((text,))
    except SpecInvalid as refusal:
        message = str(refusal)
    else:
        constraint.unmet(ALDER, CPU)
        return
    assert re.match("execSystemConstraints: column [0-9]+", message)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_as_the_callers_mistake(text):
    read_or_refused(text)


_WORDS = [
    *("id", "maxMinutes", "gpuModel", "no_such", "=", "<>", "<=", "IN", "(", ")", ",", "LIKE", "BETWEEN"),
    *("AND", "OR", "NOT", "IS", "NULL", "5", "'a%'", "true"),
]


@given(st.lists(st.sampled_from(_WORDS), max_size=25))
def test_any_order_of_the_languages_words_is_read_or_refused(words):
    read_or_refused(" ".join(words))


_comparisons = st.builds(
    lambda name, value: f"{name} = {value}",
    st.sampled_from(["id", "tags", "gpuModel", "no_such", "tier"]),
    st.sampled_from(["alder", "gpu", "A100", "x"]),
)
_expressions = st.recursive(
    _comparisons,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT {}".format, inner),
    ),
    max_leaves=12,
)


@given(_expressions)
def test_what_was_read_says_what_was_written(text):
    root = parse((text,)).root
    assert root.text in text
    assert parse((root.text,)).root.truth(ALDER, CPU) is root.truth(ALDER, CPU)


@given(_expressions, _expressions)
def test_and_or_and_not_follow_de_morgan_also_for_the_unknown(left, right):
    one = parse((f"NOT ({left} AND {right})",)).root
    other = parse((f"(NOT {left} OR NOT {right})",)).root
    assert one.truth(ALDER, CPU) is other.truth(ALDER, CPU)


def test_and_binds_closer_than_or_and_not_closest():
    root = parse(("NOT id = a OR id = b AND id = c",)).root
    assert isinstance(root, Disjunction)
    assert isinstance(root.parts[0], Negation)
    assert isinstance(root.parts[1], Conjunction)
    assert all(isinstance(part, Comparison) for part in root.parts[1].parts)


@given(st.text("ab", max_size=12), st.text("ab%_", max_size=8))
def test_like_agrees_with_the_same_pattern_as_a_regular_expression(text, pattern):
    regex = "".join(".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)
    assert like(text, pattern) is (re.fullmatch(regex, text) is not None)


def test_a_pattern_made_to_be_slow_is_not():
    started = time.process_time()
    assert not like("a" * 2000, "%a" * 1000 + "b")
    assert time.process_time() - started < 5
