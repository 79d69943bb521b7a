"""squeue, sacct and the job's own files, put together."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from backends.slurm.observing import (
    ACCOUNTS_SETTLE,
    ArrayMemory,
    Traces,
    observe_array,
    observe_job,
    parse_traces,
    waits_for_accounting,
)
from backends.slurm.text import SLURM_STATES, US, dialect, parse_sacct, parse_squeue
from scheduler.model.errors import UnexpectedReply
from scheduler.model.ids import RemoteId
from scheduler.model.runs import Ending, RemoteState

JOB = RemoteId("7")
CLAIMED = Traces(JOB)


def queue(*jobs):
    """Rows of squeue: (state, tasks or None, reason)."""
    lines = [
        US.join(["7", tasks or "N/A", "n", state, reason, "100", "200", "300", "n1"]) for state, tasks, reason in jobs
    ]
    return parse_squeue("\n".join(lines))


def accounts(*jobs):
    """Rows of sacct: (id, state, exit code)."""
    lines = [US.join([id_, "n", state, code, "100", "200", "300", "n1", "", "0"]) for id_, state, code in jobs]
    return parse_sacct(dialect((24, 11)), "\n".join(lines))


def test_the_controllers_word_wins_over_accounting():
    seen = observe_job(JOB, queue(("RUNNING", None, "None")), accounts(("7", "COMPLETED", "0:0"))[0], CLAIMED)
    assert (seen.state, seen.ending) == (RemoteState.RUNNING, None)


@pytest.mark.parametrize(("reason", "is_put_off"), [("BeginTime", True), ("Priority", False), ("None", False)])
def test_a_job_that_waits_for_an_instant_is_put_off(reason, is_put_off):
    assert observe_job(JOB, queue(("PENDING", None, reason)), None, Traces(JOB)).is_put_off is is_put_off


def test_accounting_tells_the_code_of_what_the_controller_saw_end():
    seen = observe_job(JOB, queue(("FAILED", None, "NonZeroExitCode")), accounts(("7", "FAILED", "3:0"))[0], CLAIMED)
    assert (seen.ending, seen.exit_code, seen.signal, seen.reason) == (Ending.FAILED, 3, None, "NonZeroExitCode")
    assert (seen.started_at, seen.ended_at) == (datetime.fromtimestamp(200, UTC), datetime.fromtimestamp(300, UTC))


def test_without_accounting_the_job_itself_tells_its_code():
    seen = observe_job(JOB, queue(("FAILED", None, "NonZeroExitCode")), None, Traces(JOB, {None: 4}))
    assert (seen.ending, seen.exit_code) == (Ending.FAILED, 4)


def test_accounting_that_lags_behind_is_not_believed():
    lagging = accounts(("7", "RUNNING", "0:0"))[0]
    seen = observe_job(JOB, queue(("TIMEOUT", None, "TimeLimit")), lagging, Traces(JOB, {None: 143}))
    assert (seen.ending, seen.exit_code) == (Ending.TIMEOUT, 143)


def test_what_nobody_shows_but_wrote_its_code_has_ended():
    seen = observe_job(JOB, [], None, Traces(JOB, {None: 0}))
    assert (seen.state, seen.ending, seen.exit_code) == (RemoteState.ENDED, Ending.COMPLETED, 0)


@pytest.mark.parametrize("traces", [Traces(), CLAIMED, Traces(RemoteId("8"), {None: 0})])
@pytest.mark.parametrize("account", [None, accounts(("7", "RUNNING", "0:0"))[0], accounts(("7", "PENDING", "0:0"))[0]])
def test_what_nobody_knows_the_end_of_is_left_out(traces, account):
    assert observe_job(JOB, [], account, traces) is None


def test_a_failure_before_the_first_line_is_a_launch_failure():
    row, account = queue(("FAILED", None, "RaisedSignal:53")), accounts(("7", "FAILED", "0:53"))[0]
    assert observe_job(JOB, row, account, Traces()).ending is Ending.LAUNCH_FAILURE
    assert observe_job(JOB, row, account, CLAIMED).ending is Ending.FAILED
    assert observe_job(JOB, row, account, CLAIMED).signal == 53


def test_a_step_out_of_memory_makes_a_failure_one():
    account = accounts(("7", "FAILED", "137:0"), ("7.batch", "OUT_OF_MEMORY", "0:125"))[0]
    assert observe_job(JOB, queue(("FAILED", None, "OutOfMemory")), account, CLAIMED).ending is Ending.OUT_OF_MEMORY


def test_a_job_cancelled_while_it_waited_never_started():
    line = US.join(["7", "N/A", "n", "CANCELLED", "None", "100", "300", "300", ""])
    seen = observe_job(JOB, parse_squeue(line), None, Traces())
    assert (seen.ending, seen.started_at) == (Ending.CANCELLED, None)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def cancelled(*, ran_s: int, by: str = " by 0", code: str = "0:15"):
    """What squeue and sacct say of a job that was cancelled so many seconds after its start at 200."""
    end = str(200 + ran_s)
    row = parse_squeue(US.join(["7", "N/A", "n", "CANCELLED", "None", "100", "200", end, "n1"]))
    line = US.join(["7", "n", f"CANCELLED{by}", code, "100", "200", end, "n1", "", "0"])
    return row, parse_sacct(dialect((24, 11)), line)[0]


@pytest.mark.parametrize(("by", "code"), [(" by 0", "0:15"), ("", "0:0")])
def test_a_job_that_its_node_cancelled_at_once_was_not_launched(by, code):
    row, account = cancelled(ran_s=1, by=by, code=code)
    seen = observe_job(JOB, row, account, Traces())
    assert (seen.ending, seen.exit_code, seen.started_at) == (Ending.LAUNCH_FAILURE, None, at(200))


@pytest.mark.parametrize(
    ("told", "traces", "why"),
    [
        (cancelled(ran_s=1, by=" by 2001"), Traces(), "its owner did it"),
        (cancelled(ran_s=3), Traces(), "it came too late to be the node's doing"),
        (cancelled(ran_s=1), CLAIMED, "it had begun"),
    ],
)
def test_any_other_cancelled_job_is_cancelled(told, traces, why):
    assert observe_job(JOB, *told, traces).ending is Ending.CANCELLED, why


def test_who_cancelled_a_job_at_its_start_is_told_by_accounting_and_waited_for():
    row, account = cancelled(ran_s=1)
    soon, late = at(202), at(201) + ACCOUNTS_SETTLE
    lagging = accounts(("7", "RUNNING", "0:0"))[0]
    assert waits_for_accounting(row, None, soon)
    assert waits_for_accounting(row, lagging, soon)
    assert not waits_for_accounting(row, account, soon), "accounting has told"
    assert not waits_for_accounting(row, None, late), "a site may keep no accounts"


def test_only_a_cancellation_that_can_be_the_nodes_doing_waits_for_accounting():
    assert not waits_for_accounting([], None, at(202))
    assert not waits_for_accounting(queue(("FAILED", None, "None")), None, at(202))
    assert not waits_for_accounting(cancelled(ran_s=9)[0], None, at(210))
    while_it_waited = parse_squeue(US.join(["7", "N/A", "n", "CANCELLED", "None", "100", "200", "200", ""]))
    assert not waits_for_accounting(while_it_waited, None, at(202))


@pytest.mark.parametrize(("code", "ending"), [(0, Ending.COMPLETED), (3, Ending.FAILED)])
def test_a_node_that_is_lost_after_the_jobs_last_line_takes_nothing_back(code, ending):
    row, account = queue(("NODE_FAIL", None, "NodeDown")), accounts(("7", "NODE_FAIL", "1:0"))[0]
    seen = observe_job(JOB, row, account, Traces(JOB, {None: code}))
    assert (seen.ending, seen.exit_code) == (ending, code)
    assert observe_job(JOB, row, account, CLAIMED).ending is Ending.NODE_FAILURE


@pytest.mark.parametrize(("code", "ending"), [(0, Ending.COMPLETED), (3, Ending.FAILED)])
def test_a_job_whose_end_the_controller_forgot_ended_as_it_wrote(code, ending):
    row, account = queue(("TIMEOUT", None, "TimeLimit")), accounts(("7", "TIMEOUT", "0:0"))[0]  # at 300
    seen = observe_job(JOB, row, account, Traces(JOB, {None: code}, {None: at(210)}))
    assert (seen.ending, seen.exit_code) == (ending, code)


def test_a_job_that_wrote_its_code_because_its_time_was_up_timed_out():
    row, account = queue(("TIMEOUT", None, "TimeLimit")), accounts(("7", "TIMEOUT", "0:0"))[0]
    seen = observe_job(JOB, row, account, Traces(JOB, {None: 0}, {None: at(301)}))
    assert (seen.ending, seen.exit_code) == (Ending.TIMEOUT, 0)


def test_a_job_that_was_started_again_by_mistake_ended_as_its_first_run_did():
    row, account = queue(("FAILED", None, "NonZeroExitCode")), accounts(("7", "FAILED", "119:0"))[0]
    seen = observe_job(JOB, row, account, Traces(JOB, {None: 0}))
    assert (seen.ending, seen.exit_code) == (Ending.COMPLETED, 0)
    unfinished = observe_job(JOB, row, account, CLAIMED)
    assert (unfinished.ending, unfinished.exit_code) == (Ending.FAILED, 119)


@pytest.mark.parametrize("word", SLURM_STATES)
def test_every_word_of_slurm_makes_an_observation(word):
    seen = observe_job(JOB, queue((word, None, "None")), None, CLAIMED)
    state, ending = SLURM_STATES[word]
    assert (seen.state, seen.ending, seen.raw_state) == (state, ending, word)
    assert (seen.ended_at is not None) == (state is RemoteState.ENDED)


def array(rows, known=(), memory=None, traces=CLAIMED):
    memory = memory or ArrayMemory()
    memory.learn(JOB, rows, known, traces)
    return observe_array(rows, known, memory)


def test_an_array_waits_until_a_task_runs_and_ends_when_all_have():
    waiting = array(queue(("PENDING", "0-3%2", "Resources")))
    assert (waiting.state, waiting.tasks.queued) == (RemoteState.QUEUED, 4)
    running = array(
        queue(("PENDING", "2-3%2", "JobArrayTaskLimit"), ("RUNNING", "0", "None"), ("COMPLETED", "1", "None"))
    )
    assert running.state is RemoteState.RUNNING
    assert (running.tasks.queued, running.tasks.running, running.tasks.completed) == (2, 1, 1)
    ended = array(queue(*(("COMPLETED", str(index), "None") for index in range(4))))
    assert (ended.state, ended.ending, ended.exit_code, ended.tasks.completed) == (
        RemoteState.ENDED, Ending.COMPLETED, 0, 4,
    )  # fmt: skip


def test_an_array_fails_with_its_first_failed_task():
    rows = queue(("COMPLETED", "0", "None"), ("FAILED", "2", "NonZeroExitCode"), ("TIMEOUT", "1", "TimeLimit"))
    seen = array(rows, accounts(("7_2", "FAILED", "5:0"), ("7_1", "TIMEOUT", "0:0")))
    assert (seen.ending, seen.tasks.failed, seen.tasks.failed_indices) == (Ending.TIMEOUT, 2, (1, 2))
    assert seen.reason == "2 of 3 tasks did not complete"


def test_tasks_that_the_controller_forgot_still_count():
    memory = ArrayMemory()
    array(queue(("RUNNING", "1", "None"), ("COMPLETED", "0", "None")), memory=memory)
    assert array(queue(("RUNNING", "1", "None")), memory=memory).tasks.completed == 1


@pytest.mark.parametrize(("code", "ending"), [(0, Ending.COMPLETED), (3, Ending.FAILED)])
def test_a_run_that_ended_is_not_cancelled_by_being_started_again_in_vain(code, ending):
    again = replace(accounts(("7", "CANCELLED by 0", "0:0"))[0], ended_at=datetime.fromtimestamp(201, UTC))
    seen = observe_job(JOB, queue(("CANCELLED", None, "None")), again, Traces(JOB, {None: code}))
    assert (seen.ending, seen.exit_code) == (ending, code)


def test_a_job_that_someone_cancelled_while_it_ran_is_cancelled():
    by_root = accounts(("7", "CANCELLED by 0", "0:15"))[0]
    assert observe_job(JOB, [], by_root, Traces(JOB, {None: 143})).ending is Ending.CANCELLED


def test_a_task_that_failed_while_nobody_looked_is_told_by_its_own_code():
    seen = array(queue(("COMPLETED", "2", "None")), traces=Traces(JOB, {0: 0, 1: 4, 2: 0}))
    assert (seen.state, seen.ending, seen.exit_code) == (RemoteState.ENDED, Ending.FAILED, 4)
    assert (seen.tasks.completed, seen.tasks.failed_indices) == (2, (1,))


def test_the_code_of_a_task_that_runs_again_is_not_its_end():
    seen = array(queue(("RUNNING", "1", "None"), ("COMPLETED", "0", "None")), traces=Traces(JOB, {0: 0, 1: 143}))
    assert (seen.tasks.running, seen.tasks.completed, seen.tasks.failed) == (1, 1, 0)


def test_an_array_cancelled_while_it_waited_is_cancelled():
    row = parse_squeue(US.join(["7", "N/A", "n", "CANCELLED", "None", "100", "300", "300", ""]))
    seen = array(row, accounts(("7_[0-2]", "CANCELLED by 2001", "0:0")))
    assert (seen.state, seen.ending, seen.tasks.failed) == (RemoteState.ENDED, Ending.CANCELLED, 3)
    assert array(row).ending is Ending.CANCELLED


def test_marker_directories_tell_owner_and_codes_by_task():
    text = "\n".join(
        map(
            US.join,
            [
                ("m", "claim", "1", "7_1", ""),
                ("m", "exit", "1", "3", "250"),
                ("o", "exit", "", "0", "260"),
                ("p", "claim", "", "9", ""),
            ],
        )
    )
    traces = parse_traces(text)
    assert traces["m"] == Traces(RemoteId("7"), {1: 3}, {1: at(250)})
    assert traces["o"] == Traces(None, {None: 0}, {None: at(260)})
    assert traces["p"] == Traces(RemoteId("9"))
    with pytest.raises(UnexpectedReply):
        parse_traces(US.join(["m", "exit", "", "what", ""]))
