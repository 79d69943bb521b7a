"""Lists: filters compare as the field's type does, order is total, windows do not lose or repeat a row."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scheduler.model.errors import SpecInvalid
from scheduler.model.pages import Filter, Op, Order, Page
from scheduler.model.states import E
from scheduler.store.jobs import JobStore
from tests.store.things import NOW, a_spec, added, recorded


@pytest.fixture
async def five(database):
    """Jobs ``job 0`` to ``job 4``, a minute apart; the last one failed."""
    made = [await added(database, spec=a_spec(name=f"job {n}"), at=NOW + timedelta(minutes=n)) for n in range(5)]
    await recorded(database, made[4], E.FAILED)
    return made


async def names(database, page, owner=None):
    async with database.reading() as db:
        return [job.spec.name for job in await JobStore(db).list("dev", owner, page)]


@pytest.mark.parametrize(
    ("field", "op", "values", "expected"),
    [
        ("name", Op.EQ, ("job 1",), "1"),
        ("name", Op.NEQ, ("job 1",), "0234"),
        ("name", Op.LIKE, ("job*",), "01234"),
        ("name", Op.LIKE, ("job !",), "01234"),
        ("name", Op.LIKE, ("JOB*",), ""),
        ("name", Op.LIKE, ("job %",), ""),
        ("name", Op.LIKE, ("job_1",), ""),
        ("name", Op.LIKE, ("\\*",), ""),
        ("name", Op.NLIKE, ("*3",), "0124"),
        ("name", Op.IN, ("job 1", "job 3", "job 9"), "13"),
        ("name", Op.NIN, ("job 1", "job 3"), "024"),
        ("name", Op.IN, (), ""),
        ("name", Op.EQ, ("'; DROP TABLE jobs; --",), ""),
        ("name", Op.EQ, ("\0",), ""),
        ("created_at", Op.GT, ("2026-03-01T12:02:00Z",), "34"),
        ("created_at", Op.LTE, ("2026-03-01T13:02:00+01:00",), "012"),
        ("created_at", Op.BETWEEN, ("2026-03-01T12:01:00", "2026-03-01T12:03:00"), "123"),
        ("created_at", Op.NBETWEEN, ("2026-03-01T12:01:00Z", "2026-03-01T12:03:00Z"), "04"),
        ("state", Op.EQ, ("FAILED",), "4"),
        ("state", Op.IN, ("PENDING", "RUNNING"), "0123"),
        ("blocked_count", Op.LT, ("1",), "01234"),
        ("blocked_count", Op.LT, (str(10**30),), "01234"),
        ("visible", Op.EQ, ("true",), "01234"),
        ("system_id", Op.EQ, ("cluster",), "01234"),
    ],
)
async def test_a_filter_compares_as_its_field_does(database, five, field, op, values, expected):
    found = await names(database, Page(filters=(Filter(field, op, values),), order_by=(Order("name"),)))
    assert "".join(name[-1] for name in found) == expected
    async with database.reading() as db:
        assert await JobStore(db).count("dev", None, Page(limit=1, filters=(Filter(field, op, values),))) == len(
            expected
        )


@pytest.mark.parametrize(
    ("field", "op", "values", "wrong"),
    [
        ("passwords", Op.EQ, ("x",), "cannot be searched"),
        ("spec", Op.LIKE, ("*",), "cannot be searched"),
        ("fence", Op.EQ, ("1",), "cannot be searched"),
        ("created_at", Op.GT, ("yesterday",), "is not an instant"),
        ("blocked_count", Op.GT, ("many",), "is not a whole number"),
        ("visible", Op.EQ, ("maybe",), "is not true or false"),
        ("state", Op.EQ, ("SLEEPING",), "none of its values"),
        ("name", Op.BETWEEN, ("a",), "takes two values"),
        ("name", Op.EQ, ("a", "b"), "takes one value"),
        ("name", Op.LIKE, (), "takes one value"),
    ],
)
async def test_a_filter_that_means_nothing_names_its_field(database, field, op, values, wrong):
    with pytest.raises(SpecInvalid, match=wrong) as refused:
        await names(database, Page(filters=(Filter(field, op, values),)))
    assert refused.value.problems[0].field == field


async def test_jobs_come_newest_first_unless_an_order_is_asked_for(database, five):
    assert (await names(database, Page()))[0] == "job 4"
    assert (await names(database, Page(order_by=(Order("name", descending=True), Order("id")))))[0] == "job 4"
    assert (await names(database, Page(order_by=(Order("name"),))))[0] == "job 0"


async def test_rows_without_a_value_come_last_in_both_directions(database, five):
    for descending in (False, True):
        assert (await names(database, Page(order_by=(Order("ended_at", descending),))))[0] == "job 4"


async def test_windows_cover_a_list_without_gap_or_repetition(database, five):
    pages = [await names(database, Page(limit=2, skip=skip)) for skip in (0, 2, 4, 6)]
    assert [name for page in pages for name in page] == await names(database, Page(limit=None))
    assert await names(database, Page(limit=None, skip=3)) == await names(database, Page(skip=3))
    assert await names(database, Page(limit=10**30, skip=10**30)) == []
    assert await names(database, Page(limit=0)) == []


async def test_start_after_goes_on_behind_a_value(database, five):
    after = Page(order_by=(Order("created_at"),), start_after="2026-03-01T12:02:00Z")
    assert await names(database, after) == ["job 3", "job 4"]
    before = Page(order_by=(Order("created_at", descending=True),), start_after="2026-03-01T12:02:00Z")
    assert await names(database, before) == ["job 1", "job 0"]
    with pytest.raises(SpecInvalid, match="orderBy"):
        await names(database, Page(start_after="x"))


async def test_a_list_of_one_owner_leaves_out_the_others_and_the_hidden(database, five):
    await added(database, owner="bob")
    async with database.transaction() as db:
        await JobStore(db).note(five[0], {"visible": False}, NOW)
    assert len(await names(database, Page(), owner="ann")) == 4
    assert len(await names(database, Page())) == 5
