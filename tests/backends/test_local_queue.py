"""The queue of this machine: fair, never overtaken for ever, and wholly on disk."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.local.queue import Entry, Line, Queue, Slots, in_turn
from scheduler.model.errors import SubmitRejected
from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.runs import Resources, SubmitIntent
from tests.contract.subjects import INTENDED_AT, run_spec

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SLOTS = Slots(cores=4, memory_mib=4000)


def intent(cores: int = 1, memory_mib: int = 100, walltime_s: int = 600) -> SubmitIntent:
    marker = marker_for(new_job_uuid(), 1)
    resources = Resources(cores_per_node=cores, memory_mib=memory_mib, walltime_s=walltime_s)
    return SubmitIntent(marker, run_spec("/w", marker, resources=resources, env={"SECRET": "s3cr3t"}), INTENDED_AT)


def entry(number: int, owner: str = "ann", started_at: datetime | None = None, **size: int) -> Entry:
    return Entry(number=number, owner=owner, intent=intent(**size), submitted_at=NOW, started_at=started_at)


def numbers(entries) -> list[int]:
    return [entry.number for entry in entries]


def test_owners_take_turns_and_each_is_served_first_come_first():
    waiting = [entry(1, "ann"), entry(2, "ann"), entry(3, "ann"), entry(4, "bob"), entry(5, "cy"), entry(6, "bob")]
    assert numbers(in_turn(waiting, [])) == [1, 4, 5, 2, 6, 3]


def test_who_already_runs_something_waits_for_the_others():
    assert numbers(in_turn([entry(2, "ann"), entry(3, "bob")], [entry(1, "ann", NOW)])) == [3, 2]


@given(st.permutations(range(1, 9)))
def test_the_order_does_not_depend_on_how_files_are_listed(order):
    owners = {number: "abc"[number % 3] for number in order}
    assert numbers(in_turn([entry(number, owners[number]) for number in order], [])) == [3, 1, 2, 6, 4, 5, 7, 8] or (
        numbers(in_turn([entry(number, owners[number]) for number in sorted(order)], []))
        == numbers(in_turn([entry(number, owners[number]) for number in order], []))
    )


def test_what_fits_starts_and_a_large_run_is_not_overtaken():
    line = Line(waiting=[entry(1, cores=2), entry(2, cores=3), entry(3, cores=1)])
    assert numbers(line.startable(SLOTS)) == [1]


def test_memory_is_a_slot_too():
    line = Line(started=[entry(1, started_at=NOW, memory_mib=3000)], waiting=[entry(2, memory_mib=1500)])
    assert line.startable(SLOTS) == []


sizes = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4000), st.integers(60, 9000)), max_size=8)


@given(running=sizes, waiting=sizes)
def test_nothing_startable_exceeds_the_slots(running, waiting):
    def made(shapes, started_at=None):
        return [entry(i, "abc"[i % 3], started_at, cores=c, memory_mib=m) for i, (c, m, _) in enumerate(shapes)]

    started = []
    for candidate in made(running, NOW):
        if SLOTS.minus(e.resources for e in started).hold(candidate.resources):
            started.append(candidate)
    line = Line(started, made(waiting))
    used = [e.resources for e in (*started, *line.startable(SLOTS))]
    assert sum(r.cores for r in used) <= SLOTS.cores
    assert sum(r.memory_mib for r in used) <= SLOTS.memory_mib


@given(waiting=sizes)
def test_expected_starts_agree_with_what_may_start_now(waiting):
    line = Line(waiting=[entry(i, cores=c, memory_mib=m, walltime_s=w) for i, (c, m, w) in enumerate(waiting)])
    starts = line.starts(SLOTS, NOW)
    assert starts == sorted(starts)
    assert sum(start == NOW for start in starts) == len(line.startable(SLOTS))


def test_a_probe_stands_behind_the_whole_line():
    line = Line(
        started=[entry(1, started_at=NOW - timedelta(seconds=100), cores=4, walltime_s=400)],
        waiting=[entry(2, cores=4, walltime_s=1000)],
    )
    probes = [Resources(cores_per_node=1, walltime_s=60), Resources(cores_per_node=4, walltime_s=60)]
    starts = [(start - NOW).total_seconds() for start in line.starts(SLOTS, NOW, probes)]
    assert starts == [300, 1300, 1300]


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


def test_another_process_finds_the_same_queue(queue, tmp_path):
    first, second = intent(), intent(cores=4)
    ids = queue.accept([first, second], "ann", NOW)
    assert numbers(queue.take(SLOTS, NOW)) == [1]
    other = Queue(tmp_path / "queue")
    line = other.line()
    assert ([e.id for e in line.started], [e.id for e in line.waiting]) == ([ids[first.marker]], [ids[second.marker]])
    assert line.waiting[0].intent == second
    other.end([first.marker], NOW)
    assert numbers(queue.take(SLOTS, NOW)) == [2]


def test_a_void_marker_is_refused_and_a_known_one_is_found(queue):
    given_up, known = intent(), intent()
    assert queue.find(given_up.marker) is None
    answers = queue.accept([given_up, known], "ann", NOW)
    assert isinstance(answers[given_up.marker], SubmitRejected)
    assert queue.find(known.marker) == answers[known.marker]


def test_a_withdrawn_run_never_starts(queue):
    asked = intent()
    remote_id = queue.accept([asked], "ann", NOW)[asked.marker]
    assert queue.withdraw(asked.marker, remote_id, NOW)
    assert not queue.withdraw(asked.marker, remote_id, NOW)
    assert list(queue.take(SLOTS, NOW)) == []
    assert queue.accept([asked], "ann", NOW)[asked.marker] == remote_id
    assert queue.entries([asked.marker])[asked.marker].cancelled


def test_secrets_are_private_while_a_run_is_in_the_queue_and_gone_when_it_has_ended(queue, tmp_path):
    asked = intent()
    queue.accept([asked], "ann", NOW)
    waiting = tmp_path / "queue" / "waiting" / asked.marker
    assert oct(waiting.stat().st_mode & 0o777) == "0o600"
    queue.take(SLOTS, NOW)
    queue.end([asked.marker], NOW)
    assert not [path for path in (tmp_path / "queue").rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
