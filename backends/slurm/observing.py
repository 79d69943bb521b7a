"""From what squeue, sacct and the jobs themselves say to one Observation per remote job. Pure.

squeue speaks for the controller and wins on the state; sacct knows codes, memory and what the controller forgot; the
claim and exit files were written by the job and hold where both are silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from backends.container import DUPLICATE_EXIT_CODE
from backends.slurm.reasons import PUT_OFF, WhyWaiting, in_words
from backends.slurm.text import US, AccountRow, QueueRow
from scheduler.model.errors import UnexpectedReply
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.runs import Ending, Observation, RemoteState, TaskCounts
from scheduler.model.units import utc

FAILED_INDICES_SHOWN = 100
"""Most indices of failed tasks that an observation carries."""


LAUNCH_REFUSED_WITHIN = timedelta(seconds=2)
"""How soon after its start a node ends a job that it cannot launch."""

BY_THE_SITE = frozenset({Ending.TIMEOUT, Ending.CANCELLED, Ending.DEADLINE, Ending.PREEMPTED})
"""Endings that need no doing of the job's own."""

SIGNALLED = 128
"""Exit codes above this say which signal ended a program."""

FORGOTTEN_FOR = timedelta(seconds=60)
"""How long a job is over before its controller counts as having forgotten its end; epilogs take seconds."""

NOT_BY_A_USER = frozenset({"CANCELLED", "CANCELLED by 0"})

ACCOUNTS_SETTLE = timedelta(seconds=60)
"""How late accounting may tell who cancelled a job; a site that keeps no accounts never does."""


@dataclass(frozen=True, slots=True)
class Traces:
    """What a marker directory shows: the job that claimed it, and exit codes by task (None: not an array)."""

    owner: RemoteId | None = None
    codes: Mapping[int | None, int] = field(default_factory=dict)
    written_at: Mapping[int | None, datetime] = field(default_factory=dict)
    """When each code was written, by the clock of the job's file system."""
    gate_closed: bool = False
    """Whether it waited at its gate in vain: it ran nothing, and the marker is given up."""


NO_TRACES = Traces()


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How a job or a task of an array ended, and what is known of it."""

    ending: Ending
    exit_code: int | None
    signal: int | None


def parse_traces(text: str) -> Mapping[Marker, Traces]:
    """The answer of ``markers.sh``."""
    owners: dict[Marker, RemoteId] = {}
    codes: dict[Marker, dict[int | None, int]] = {}
    times: dict[Marker, dict[int | None, datetime]] = {}
    closed: set[Marker] = set()
    for line in text.splitlines():
        try:
            name, kind, task, value, written = line.split(US)
            if kind == "claim":
                owners.setdefault(Marker(name), RemoteId(value.partition("_")[0]))
            elif kind == "closed":
                closed.add(Marker(name))
            elif value:
                index = int(task) if task else None
                codes.setdefault(Marker(name), {})[index] = int(value)
                if written:
                    times.setdefault(Marker(name), {})[index] = utc(int(written))
        except ValueError:
            raise UnexpectedReply("a marker directory holds what no job of ours writes", line) from None
    return {
        name: Traces(owners.get(name), codes.get(name, {}), times.get(name, {}), name in closed)
        for name in owners.keys() | codes.keys() | closed
    }


def observe_job(
    job_id: RemoteId, queue: Sequence[QueueRow], account: AccountRow | None, traces: Traces
) -> Observation | None:
    """One job that is no array. None: nobody who answers knows it, or only that it had begun."""
    row = queue[0] if queue else None
    if row is not None and row.state is not RemoteState.ENDED:
        return _live(row, account.restarts if account else 0)
    code = traces.codes.get(None) if traces.owner == job_id else None
    known = row or (account if account and account.state is RemoteState.ENDED else None)
    if known is None and code is None and not traces.gate_closed:
        return None
    end = job_end(known.ending if known else None, account, code, traces, known.ended_at if known else None)
    times = account if account and account.state is RemoteState.ENDED else None
    return Observation(
        state=RemoteState.ENDED,
        raw_state=known.raw_state if known else "",
        reason=row.reason if row else "",
        submitted_at=(row.submitted_at if row else None) or (account.submitted_at if account else None),
        started_at=_started(row, account),
        ended_at=(row.ended_at if row else None) or (times.ended_at if times else None),
        ending=end.ending,
        exit_code=end.exit_code,
        signal=end.signal,
        nodes=(row.nodes if row else "") or (account.nodes if account else ""),
        max_rss_mib=account.max_rss_mib if account else None,
        restarts=account.restarts if account else 0,
    )


def job_end(
    said: Ending | None,
    account: AccountRow | None,
    code: int | None,
    traces: Traces,
    ended_at: datetime | None = None,
) -> TaskEnd:
    """How it ended: the controller's word, made sharper by accounting and by the code that the job wrote."""
    done = account if account is not None and account.state is RemoteState.ENDED else None
    if traces.gate_closed:
        return TaskEnd(Ending.GATE_CLOSED, None, None)
    ending = said or (done.ending if done else None) or (Ending.FAILED if code else Ending.COMPLETED)
    if ending is Ending.FAILED and done and done.ending is Ending.OUT_OF_MEMORY:
        ending = Ending.OUT_OF_MEMORY
    signalled = code is not None and code > SIGNALLED  # a cancellation reached the user's code: no start in vain
    again = done is not None and (
        done.exit_code == DUPLICATE_EXIT_CODE or (_cancelled_by_its_node(done) and not signalled)
    )
    over = ending is Ending.NODE_FAILURE or (ending in BY_THE_SITE and _was_over(traces, ended_at))
    if code is not None and (again or over):
        # Started again by mistake, or ended by the site after its last line: what counts is what it wrote.
        ending = Ending.FAILED if code else Ending.COMPLETED
    if code is None and done and (done.exit_code or ending is Ending.COMPLETED):
        code = done.exit_code
    if code is None and ending is Ending.COMPLETED:
        code = 0
    if ending is Ending.FAILED and traces.owner is None and code in (None, 0):
        ending = Ending.LAUNCH_FAILURE  # it never came to its first line
    if ending is Ending.CANCELLED and traces.owner is None and done is not None and _cancelled_by_its_node(done):
        ending = Ending.LAUNCH_FAILURE
    return TaskEnd(ending, code, done.signal or None if done else None)


def _was_over(traces: Traces, ended_at: datetime | None) -> bool:
    """Whether a job had written its code long before Slurm ended it.

    A controller that lost its last seconds shows a job whose end it forgot as running until its time is up.
    """
    written_at = traces.written_at.get(None)
    return written_at is not None and ended_at is not None and ended_at - written_at >= FORGOTTEN_FOR


def waits_for_accounting(queue: Sequence[QueueRow], account: AccountRow | None, now: datetime) -> bool:
    """Whether a job was cancelled so soon that its node may have done it, and only accounting can tell: not yet."""
    if not queue or queue[0].ending is not Ending.CANCELLED:
        return False
    if account is not None and account.state is RemoteState.ENDED:
        return False
    row = queue[0]
    if not row.nodes or row.starts_at is None or row.ended_at is None:
        return False
    return row.ended_at - row.starts_at <= LAUNCH_REFUSED_WITHIN and now - row.ended_at < ACCOUNTS_SETTLE


def _cancelled_by_its_node(account: AccountRow) -> bool:
    """Whether no user cancelled a job as soon as it was started: what slurmd does when it cannot launch it.

    It happens after slurmctld lost its last seconds and issues job ids again that a node still knows as running.
    Accounting names root, or nobody when slurmctld was restarted meanwhile.
    """
    if account.started_at is None or account.ended_at is None or account.raw_state not in NOT_BY_A_USER:
        return False
    return account.ended_at - account.started_at <= LAUNCH_REFUSED_WITHIN


def stray_of(job_id: RemoteId, traces: Traces) -> RemoteId | None:
    """The job that runs this marker instead of ``job_id``, which was a stray duplicate; None when it is the one."""
    return traces.owner if traces.owner not in (None, job_id) else None


@dataclass(slots=True)
class ArrayMemory:
    """Tasks of one array that were seen to end; the controller forgets them after MinJobAge, an array may last."""

    ended: dict[int, TaskEnd] = field(default_factory=dict)
    seen_at: datetime | None = None

    def learn(
        self, job_id: RemoteId, queue: Sequence[QueueRow], accounts: Iterable[AccountRow], traces: Traces
    ) -> None:
        """Take in every ending that is shown now, by the tasks' own codes where nobody else speaks of them."""
        known = {index: account for account in accounts for index in account.tasks or ()}
        for row in queue:
            if row.state is RemoteState.ENDED:
                for index in row.tasks or ():
                    self._end(index, row.ending, known.get(index), traces)
        for index, account in known.items():
            if account.state is RemoteState.ENDED and index not in self.ended:
                self._end(index, account.ending, account, traces)
        alive = {index for row in queue if row.state is not RemoteState.ENDED for index in row.tasks or ()}
        for task in traces.codes.keys() - alive - self.ended.keys() - known.keys():
            if task is not None and traces.owner == job_id:
                self._end(task, None, None, traces)

    def _end(self, index: int, ending: Ending | None, account: AccountRow | None, traces: Traces) -> None:
        end = job_end(ending, account, traces.codes.get(index), traces)
        if ending is Ending.CANCELLED or index not in self.ended or self.ended[index].exit_code is None:
            self.ended[index] = end


def observe_array(queue: Sequence[QueueRow], accounts: Sequence[AccountRow], memory: ArrayMemory) -> Observation | None:
    """A job array as one job: QUEUED until a task runs, ENDED when all have."""
    waiting = sum(len(row.tasks or ()) for row in queue if row.state is RemoteState.QUEUED)
    running = sum(len(row.tasks or ()) for row in queue if row.state is RemoteState.RUNNING)
    failed = sorted(index for index, end in memory.ended.items() if end.ending is not Ending.COMPLETED)
    tasks = TaskCounts(
        queued=waiting,
        running=running,
        completed=len(memory.ended) - len(failed),
        failed=len(failed),
        failed_indices=tuple(failed[:FAILED_INDICES_SHOWN]),
    )
    starts = [row.starts_at for row in queue if row.state is not RemoteState.QUEUED and row.nodes]
    starts += [row.started_at for row in accounts if row.state is not RemoteState.QUEUED and row.nodes]
    submitted_at = _earliest([row.submitted_at for row in queue] + [row.submitted_at for row in accounts])
    if waiting or running:
        first = next(row for row in queue if row.state is not RemoteState.ENDED)
        begun = bool(running or memory.ended)
        why = _why_waiting(first)
        return Observation(
            state=RemoteState.RUNNING if begun else RemoteState.QUEUED,
            raw_state="RUNNING" if running else first.raw_state,
            reason=first.reason,
            reason_words=why.words if why else "",
            decided_by=why.decider if why else "",
            submitted_at=submitted_at,
            started_at=_earliest(starts) if begun else None,
            expected_start_at=None if begun else first.starts_at,
            nodes=first.nodes,
            tasks=tasks,
        )
    ends = [memory.ended[index] for index in failed] + [memory.ended[index] for index in memory.ended]
    # Tasks that were cancelled while they waited are one row that squeue shows without indices.
    ends = [TaskEnd(row.ending, None, None) for row in queue if row.tasks is None and row.ending] + ends
    if not ends:
        return None
    worst = ends[0]
    return Observation(
        state=RemoteState.ENDED,
        raw_state=(queue[0].raw_state if queue else accounts[0].raw_state if accounts else ""),
        reason=f"{len(failed)} of {len(memory.ended)} tasks did not complete" if failed else "",
        submitted_at=submitted_at,
        started_at=_earliest(starts),
        ended_at=max(
            filter(None, [*(row.ended_at for row in queue), *(row.ended_at for row in accounts)]), default=None
        ),
        ending=worst.ending,
        exit_code=worst.exit_code,
        signal=worst.signal,
        max_rss_mib=max(filter(None, (row.max_rss_mib for row in accounts)), default=None),
        tasks=tasks,
    )


def _started(row: QueueRow | None, account: AccountRow | None) -> datetime | None:
    """When it started. squeue shows the instant of its end as the start of a job that was cancelled while it waited."""
    if row is not None and row.nodes:
        return row.starts_at
    return account.started_at if account and account.nodes else None


def _why_waiting(row: QueueRow) -> WhyWaiting | None:
    return in_words(row.reason) if row.reason and row.state is RemoteState.QUEUED else None


def _live(row: QueueRow, restarts: int) -> Observation:
    running, why = row.state is RemoteState.RUNNING, _why_waiting(row)
    return Observation(
        state=row.state,
        raw_state=row.raw_state,
        reason=row.reason,
        reason_words=why.words if why else "",
        decided_by=why.decider if why else "",
        submitted_at=row.submitted_at,
        started_at=row.starts_at if running else None,
        expected_start_at=None if running else row.starts_at,
        nodes=row.nodes,
        restarts=restarts,
        is_put_off=row.state is RemoteState.QUEUED and row.reason == PUT_OFF,
    )


def _earliest(instants: Iterable[datetime | None]) -> datetime | None:
    return min(filter(None, instants), default=None)
