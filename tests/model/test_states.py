"""The life of a job is one table, and it is Tapis's plus three moves of ours."""

import itertools

import pytest

from scheduler.model.errors import IllegalMove
from scheduler.model.states import (
    ACTIVE,
    ATTEMPT_MOVES,
    BEFORE_SUBMISSION,
    MOVES,
    TERMINAL,
    AttemptState,
    E,
    Event,
    JobState,
    S,
    move,
    move_attempt,
)

TAPIS = {
    S.PENDING: {S.PROCESSING_INPUTS},
    S.PROCESSING_INPUTS: {S.STAGING_INPUTS},
    S.STAGING_INPUTS: {S.STAGING_JOB},
    S.STAGING_JOB: {S.SUBMITTING_JOB},
    S.SUBMITTING_JOB: {S.QUEUED, S.RUNNING},
    S.QUEUED: {S.RUNNING},
    S.RUNNING: {S.ARCHIVING},
    S.ARCHIVING: {S.FINISHED},
}
OURS = {(S.SUBMITTING_JOB, S.PENDING), (S.RUNNING, S.QUEUED), (S.QUEUED, S.PENDING)}


def test_every_move_is_one_of_tapis_or_a_named_addition():
    for (state, _), target in MOVES.items():
        anywhere = {S.BLOCKED, S.PAUSED, S.FAILED, S.CANCELLED}
        assert target in TAPIS.get(state, set()) | anywhere or (state, target) in OURS, (state, target)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(JobState, Event)))
def test_a_pair_without_a_row_raises_and_never_guesses(state, event):
    if (state, event) in MOVES:
        assert move(state, event) is MOVES[state, event]
    else:
        with pytest.raises(IllegalMove):
            move(state, event)


def test_nothing_leaves_a_final_state():
    assert not [pair for pair in MOVES if pair[0] in TERMINAL]


def test_every_active_state_can_fail_and_be_cancelled():
    for state in ACTIVE:
        assert move(state, E.FAILED) is S.FAILED
        assert move(state, E.CANCELLED) is S.CANCELLED


@pytest.mark.parametrize("resume", sorted(BEFORE_SUBMISSION))
def test_a_blocked_job_returns_to_where_it_was(resume):
    assert move(S.BLOCKED, E.RESUMED, resume) is resume


@pytest.mark.parametrize("resume", [None, S.RUNNING, S.FINISHED])
def test_a_blocked_job_cannot_return_to_where_it_never_was(resume):
    with pytest.raises(IllegalMove):
        move(S.BLOCKED, E.RESUMED, resume)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(AttemptState, Event)))
def test_attempts_move_by_their_own_table_only(state, event):
    if (state, event) in ATTEMPT_MOVES:
        assert move_attempt(state, event) is ATTEMPT_MOVES[state, event]
    else:
        with pytest.raises(IllegalMove):
            move_attempt(state, event)
