"""What is to be done for a pod now, and where it stands: pure, from the rows of the pod and of its instances."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from scheduler.model.pods import (
    AT_REST,
    ON_ITS_WAY,
    POD_MOVES,
    InstanceState,
    Pod,
    PodEvent,
    PodInstance,
    PodStatus,
)
from scheduler.model.runs import Ending

P, E, I = PodStatus, PodEvent, InstanceState  # noqa: E741 - the house's short names of tables

QUICK = timedelta(minutes=10)
"""An instance that ended within this of its start counts as a quick end."""

MOST_QUICK_ENDS = 5
"""Quick ends in a row after which a pod is not started again by itself."""

FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S = 10.0, 300.0

DRAIN = timedelta(seconds=10)
"""How long connections may go on to an instance whose successor answers."""

MARGIN = timedelta(seconds=60)
"""How long before the end of its walltime an instance shall have been replaced."""

HELD_AT_MOST = timedelta(minutes=2)
"""How long connections may hope for the next instance of a pod that cannot overlap."""

PUT_OFF = "put_off"
"""What is seen of an instance that its place could not start, and lets begin only later: Slurm after two minutes."""

PUT_OFF_AT_MOST = timedelta(seconds=30)
"""How old such an instance may become: another one has its turn sooner."""

LOST_WITH_ITS_PLACE = frozenset(
    {Ending.TIMEOUT, Ending.DEADLINE, Ending.NODE_FAILURE, Ending.PREEMPTED, Ending.CANCELLED, Ending.GATE_CLOSED}
)
"""Endings that say nothing of the program."""


class Do(StrEnum):
    """What a step is."""

    WAIT = "WAIT"
    REMOVE = "REMOVE"
    STOP = "STOP"
    """Somebody wants it to end: no instance of it is wanted any more."""
    TIME_UP = "TIME_UP"
    REST = "REST"
    """Everything has ended, and it was asked to."""
    END = "END"
    """These instances are to be ended, and that proven."""
    PLACE = "PLACE"
    """An instance is needed."""
    SUBMIT = "SUBMIT"
    CONCLUDE = "CONCLUDE"
    """Its instance has ended by itself."""
    FOLLOW = "FOLLOW"
    """Its status is not where its instances are."""
    RETIRE = "RETIRE"
    """These have a successor that answers."""
    REPLACE = "REPLACE"
    """The walltime of its only instance ends, and the next may not overlap with it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, to these instances; WAIT: until then, None: until something happens."""

    do: Do
    instances: tuple[PodInstance, ...] = ()
    until: datetime | None = None


def next_step(pod: Pod, instances: Sequence[PodInstance], at: datetime) -> Step:
    """What comes next. ``instances``: the newest, in order, all that are live among them."""
    live = tuple(one for one in instances if one.is_live)
    wanted = tuple(one for one in live if one.unwanted_at is None)
    due = tuple(one for one in live if one.unwanted_at is not None and one.unwanted_at <= at)
    if pod.status in AT_REST:
        return _at_rest(pod, live, at)
    if pod.status is P.DELETING:
        return Step(Do.END, live) if live else Step(Do.REST)
    if pod.is_ending:
        return Step(Do.STOP)
    if pod.stop_at is not None and pod.stop_at <= at:
        return Step(Do.TIME_UP)
    if due:
        return Step(Do.END, due)
    return _on_its_way(pod, instances, live, wanted, at)


def _at_rest(pod: Pod, live: Sequence[PodInstance], at: datetime) -> Step:
    if live:  # nothing should be; whatever it is, it ends
        return Step(Do.END, tuple(live))
    return Step(Do.REMOVE) if pod.delete_requested_at is not None else Step(Do.WAIT)


def _on_its_way(
    pod: Pod, instances: Sequence[PodInstance], live: Sequence[PodInstance], wanted: Sequence[PodInstance], at: datetime
) -> Step:
    if not wanted:
        if live and pod.definition.is_stateful:
            return Step(Do.WAIT, until=_next_look(pod, live, at))
        if pod.status is not P.REQUESTED:
            return Step(Do.CONCLUDE, (instances[-1],)) if instances and not live else Step(Do.PLACE)
        ready_at = place_again_at(pod, instances)
        return Step(Do.PLACE) if ready_at <= at else Step(Do.WAIT, until=ready_at)
    newest = wanted[-1]
    if newest.state is I.INTENDED:
        return Step(Do.SUBMIT, (newest,))
    if pod.status is not standing(instances, at) or pod.message != words_of(newest):
        return Step(Do.FOLLOW, (newest,))
    given_up_at = _given_up_at(newest)
    if given_up_at is not None and given_up_at <= at:
        return Step(Do.END, (newest,))
    if len(wanted) > 1 and newest.answers_at(at):
        return Step(Do.RETIRE, tuple(wanted[:-1]))
    replace_at = replaced_at(pod, newest)
    if len(wanted) == 1 and replace_at is not None and replace_at <= at:
        if pod.definition.is_stateful:
            return Step(Do.REPLACE, (newest,))
        ready_at = place_again_at(pod, instances)
        return Step(Do.PLACE) if ready_at <= at else Step(Do.WAIT, until=ready_at)
    return Step(Do.WAIT, until=_next_look(pod, live, at))


def _next_look(pod: Pod, live: Sequence[PodInstance], at: datetime) -> datetime | None:
    instants = [pod.stop_at, *(one.unwanted_at for one in live)]
    instants += [replaced_at(pod, one) for one in live if one.unwanted_at is None]
    instants += [_given_up_at(one) for one in live]
    return min((each for each in instants if each is not None and each > at), default=None)


def _given_up_at(instance: PodInstance) -> datetime | None:
    """When an instance is ended that its place puts off; None: it does not."""
    is_put_off = instance.state is I.QUEUED and instance.seen.get(PUT_OFF)
    return instance.intended_at + PUT_OFF_AT_MOST if is_put_off else None


# -- where it stands -----------------------------------------------------------------------------------------------

STANDING: Mapping[InstanceState, PodStatus] = {
    I.INTENDED: P.SPAWNER_SETUP,
    I.QUEUED: P.SUBMITTED,
    I.RUNNING: P.CREATING,
}


def standing(instances: Sequence[PodInstance], at: datetime) -> PodStatus:
    """The status to which live instances come: AVAILABLE while any answers, else as the farthest one wanted."""
    live = [one for one in instances if one.is_live]
    if any(one.answers_at(at) for one in live):
        return P.AVAILABLE
    order = list(STANDING)
    wanted = [one.state for one in live if one.unwanted_at is None]
    return STANDING[max(wanted, key=order.index)] if wanted else P.REQUESTED


_WALKED = (E.PLACED, E.ACCEPTED, E.STARTED, E.ANSWERED, E.SILENT, E.REQUEUED, E.UNPLACED)


def way(status: PodStatus, target: PodStatus) -> tuple[PodEvent, ...]:
    """The fewest events of the table that lead from one status on the way to another."""
    ways: dict[PodStatus, tuple[PodEvent, ...]] = {status: ()}
    queue = deque([status])
    while queue:
        here = queue.popleft()
        for event in _WALKED:
            after = POD_MOVES.get((here, event))
            if after is not None and after in ON_ITS_WAY and after not in ways:
                ways[after] = (*ways[here], event)
                queue.append(after)
    return ways[target]


def words_of(instance: PodInstance) -> str:
    """What people are told of a pod that stands as this instance does."""
    return instance.message or f"instance {instance.number} is on {place_words(instance)}"


def place_words(instance: PodInstance) -> str:
    """Where an instance is, for people."""
    return f"{instance.system_id} ({instance.queue})" if instance.queue else instance.system_id


# -- how it ended ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What follows from the end of a pod's only instance."""

    event: PodEvent
    words: str
    again_at: datetime | None = field(default=None)


def conclusion(pod: Pod, instances: Sequence[PodInstance], at: datetime) -> Conclusion:
    """What becomes of a pod that is wanted, and whose instances have all ended."""
    last = instances[-1]
    said = f" {last.message}" if last.message else ""
    if last.unwanted_at is not None:
        return Conclusion(E.UNPLACED, "the next instance may start: the last one is proven ended", at)
    if was_refused(last):
        return Conclusion(E.FAILED, f"{place_words(last)} refused it:{said}")
    if last.ending is Ending.COMPLETED and last.exit_code in (0, None):
        return Conclusion(E.COMPLETED, "the container ended with exit code 0")
    how = _how(last)
    if quick_ends(pod, instances) >= MOST_QUICK_ENDS:
        return Conclusion(E.FAILED, f"{how}, and it ended soon after its start {MOST_QUICK_ENDS} times in a row.{said}")
    again_at = place_again_at(pod, instances)
    wait_s = (again_at - at).total_seconds()
    when = f"again in {wait_s:.0f} s" if wait_s >= 1 else "again now"
    return Conclusion(E.UNPLACED, f"{how}; it is started {when}.{said}", again_at)


def _how(last: PodInstance) -> str:
    where = place_words(last)
    if never_arrived(last):
        return f"it never reached {where}"
    if last.ending in LOST_WITH_ITS_PLACE:
        return f"{where} ended it ({last.ending})"
    code = "" if last.exit_code is None else f" with exit code {last.exit_code}"
    return f"the container ended{code}" + (f" ({last.ending})" if last.ending is not Ending.FAILED else "")


def never_arrived(instance: PodInstance) -> bool:
    """Whether its place never heard of it."""
    return instance.remote_id is None and instance.ending is None


def was_refused(instance: PodInstance) -> bool:
    """Whether its place would not have it."""
    return instance.remote_id is None and instance.ending is Ending.LAUNCH_FAILURE


def quick_ends(pod: Pod, instances: Sequence[PodInstance]) -> int:
    """How often in a row an instance ended soon after its start, since somebody last wanted the pod."""
    count = 0
    for one in _ended_since(pod, instances):
        if never_arrived(one) or one.unwanted_at is not None:
            continue
        if one.ended_at is not None and one.started_at is not None and one.ended_at - one.started_at >= QUICK:
            break
        count += 1
    return count


def place_again_at(pod: Pod, instances: Sequence[PodInstance]) -> datetime:
    """When a pod may be given another place: longer after each quick end in a row, at once after a long life."""
    newest = next(iter(_ended_since(pod, instances)), None)
    if newest is None or newest.ended_at is None or newest.unwanted_at is not None:
        return pod.wanted_at or pod.created_at
    failures = quick_ends(pod, instances) + sum(1 for one in _ended_since(pod, instances) if never_arrived(one))
    if failures == 0:
        return newest.ended_at
    wait_s = min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(failures - 1, 10))
    return newest.ended_at + timedelta(seconds=wait_s)


def _ended_since(pod: Pod, instances: Sequence[PodInstance]) -> Iterator[PodInstance]:
    """Ended instances since somebody last wanted the pod, newest first."""
    since = pod.wanted_at or pod.created_at
    return (one for one in reversed(instances) if not one.is_live and one.intended_at >= since)


# -- before the walltime ends -----------------------------------------------------------------------------------------


def replaced_at(pod: Pod, instance: PodInstance) -> datetime | None:
    """When a successor is to be asked for, or an instance that must not overlap stopped; None: its time has no end.

    One that may overlap asks as long before as waiting takes in nine of ten cases, but lives half its time alone.
    """
    if instance.go_on_until is None or instance.started_at is None:
        return None
    before = MARGIN if pod.definition.is_stateful else MARGIN + timedelta(seconds=instance.wait_p90_s)
    if pod.stop_at is not None and pod.stop_at <= instance.go_on_until:
        return None
    half = instance.started_at + (instance.go_on_until - instance.started_at) / 2
    return max(half, instance.go_on_until - before)
