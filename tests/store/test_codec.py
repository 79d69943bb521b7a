"""Records come back from JSON as they went in, also those that another version wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.model.apps import App
from scheduler.model.errors import SpecInvalid
from scheduler.model.jobs import FinishedRun, JobSpec, Place
from scheduler.model.plan import Decision, Estimate, Rejection, Term
from scheduler.model.runs import Observation, RunSpec, Runtime
from scheduler.model.snapshots import SystemSnapshot
from scheduler.model.systems import System
from scheduler.store.codec import dump, load
from tests.store.things import a_spec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
st.register_type_strategy(datetime, st.datetimes(timezones=st.just(UTC)))
st.register_type_strategy(float, st.floats(allow_nan=False))

FREE = {"notes": st.dictionaries(st.text(), JSON, max_size=3)}
SPECS = st.builds(
    JobSpec,
    **{name: st.dictionaries(st.text(), JSON, max_size=3) for name in ("notes", "parameter_set", "raw_request")},
    env=st.dictionaries(st.text(), st.text(), max_size=3),
    args=st.lists(st.text(), max_size=3).map(tuple),
    is_mpi=st.booleans(),
    weight=st.floats(allow_nan=False),
)
TERMS = st.builds(Term)
ESTIMATES = st.builds(Estimate, wait=TERMS, staging=TERMS, run=TERMS, archive=TERMS)
DECISIONS = st.builds(
    Decision,
    winner=st.none() | ESTIMATES,
    losers=st.lists(ESTIMATES, max_size=2).map(tuple),
    rejections=st.lists(st.builds(Rejection), max_size=2).map(tuple),
    decided_at=st.none() | st.datetimes(timezones=st.just(UTC)),
)
RECORDS = {
    JobSpec: SPECS,
    Decision: DECISIONS,
    RunSpec: st.from_type(RunSpec),
    SystemSnapshot: st.from_type(SystemSnapshot),
    Observation: st.from_type(Observation),
    Place: st.from_type(Place),
    FinishedRun: st.from_type(FinishedRun),
    System: st.builds(System, **FREE),
    App: st.builds(App, **FREE),
}


@pytest.mark.parametrize("kind", RECORDS)
@given(data=st.data())
def test_a_record_is_read_back_as_it_was_written(kind, data):
    record = data.draw(RECORDS[kind])
    assert load(kind, dump(record)) == record


def test_every_field_of_a_record_is_written():
    """Also those that equal their default: a default that changes later must not change what was asked."""
    assert set(json.loads(dump(a_spec()))) == set(JobSpec.__dataclass_fields__)


def test_what_a_newer_version_wrote_is_read_without_its_new_fields():
    newer = json.loads(dump(a_spec())) | {"added_in_2031": {"x": 1}}
    newer["resources"]["quantum_cores"] = 4
    assert load(JobSpec, json.dumps(newer)) == a_spec()


def test_what_an_older_version_wrote_gets_the_defaults():
    older = json.loads(dump(a_spec(weight=3.0)))
    del older["weight"]
    assert load(JobSpec, json.dumps(older)) == a_spec(weight=1.0)


def test_a_wait_without_end_stays_without_end():
    term = Term(p50_s=float("inf"), p90_s=float("inf"), source="queue is down")
    assert load(Term, dump(term)) == term


def nested(depth: int) -> dict[str, Any]:
    notes: dict[str, Any] = {}
    for _ in range(depth):
        notes = {"in": notes}
    return notes


@pytest.mark.parametrize("notes", [{"x": "\ud800"}, {"\udfff": 1}, nested(220), nested(400), {"x": object()}])
def test_what_could_not_be_read_back_is_refused_before_it_is_stored(notes):
    with pytest.raises(SpecInvalid, match="cannot be stored"):
        dump(replace(a_spec(), notes=notes))


@given(depth=st.integers(1, 300))
def test_whatever_depth_is_accepted_can_be_read_back(depth):
    spec = a_spec(notes=nested(depth), runtime=Runtime.DOCKER)
    try:
        text = dump(spec)
    except SpecInvalid:
        return
    assert load(JobSpec, text) == spec
