"""The crash campaign's judgement can fail: each broken promise is found and named."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.crash.judgement import Fate, Verdict, faults, jobs_by_attempt

GOOD = Fate("a", "FINISHED", endings=1, runs=1)
KILLED = Fate("a", "FAILED", endings=1, runs=1, message="a node failed while it ran")


def judged(
    fate: Fate, *, attempts: Mapping[str, int] | None = None, strangers: frozenset[str] = frozenset()
) -> list[str]:
    others = [replace(GOOD, uuid=f"other-{number}") for number in range(99)]
    return list(faults(Verdict([fate, *others], attempts or {"berth-a-1": 1}, strangers, {"link cut": 3}, 1.0)))


@pytest.mark.parametrize("fate", [GOOD, KILLED, replace(KILLED, runs=0)])
def test_a_job_that_ended_once_and_ran_at_most_once_is_right(fate: Fate):
    assert judged(fate) == []


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        (replace(GOOD, runs=2), "ran 2 times"),
        (replace(KILLED, runs=2), "ran 2 times"),
        (replace(GOOD, runs=0), "is FINISHED and never ran"),
        (replace(GOOD, state="QUEUED", endings=0), "never ended: QUEUED"),
        (replace(GOOD, state="RUNNING", endings=0), "never ended: RUNNING"),
        (replace(GOOD, endings=2), "ended 2 times"),
        (replace(GOOD, endings=0), "ended 0 times"),
        (replace(GOOD, state="CANCELLED"), "nobody asked for"),
        (replace(KILLED, message=""), "does not say why"),
    ],
)
def test_what_went_wrong_with_a_job_is_named(fate: Fate, words: str):
    (fault,) = judged(fate)
    assert words in fault
    assert "job a" in fault


def test_two_slurm_jobs_of_one_attempt_are_wrong():
    assert judged(GOOD, attempts={"berth-a-1": 2, "berth-b-1": 1}) == ["attempt berth-a-1: 2 Slurm jobs ran"]


def test_a_job_that_was_answered_to_nobody_is_wrong():
    assert judged(GOOD, strangers=frozenset({"b"})) == ["job b was made and answered to nobody"]


def test_failing_what_could_be_saved_is_wrong():
    some = [replace(KILLED, uuid=str(number)) for number in range(6)]
    rest = [replace(GOOD, uuid=str(number)) for number in range(6, 100)]
    (fault,) = faults(Verdict([*some, *rest], {}, frozenset(), {}, 1.0))
    assert fault.startswith("6 of 100 jobs failed: a node failed")
    assert faults(Verdict([*some[1:], *rest, GOOD], {}, frozenset(), {}, 1.0)) == []


def test_accounting_counts_jobs_that_ran_user_code_once_each():
    lines = """\
berth-a-1|7|2026-11-22T03:00:00|COMPLETED|0:0
berth-a-1|7|2026-11-22T03:00:09|FAILED|119:0
berth-b-1|8|2026-11-22T03:00:00|COMPLETED|0:0
berth-b-1|9|2026-11-22T03:00:00|FAILED|119:0
berth-c-1|10|Unknown|CANCELLED by 2001|0:0
berth-d-1|11|2026-11-22T03:00:00|COMPLETED|0:0
berth-d-1|12|2026-11-22T03:00:00|NODE_FAIL|1:0
another|13|2026-11-22T03:00:00|COMPLETED|0:0"""
    assert jobs_by_attempt(lines) == {"berth-a-1": 1, "berth-b-1": 1, "berth-d-1": 2}
