"""Dumps of sacct as people save them: several versions, several ways to write an instant, and bad lines."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from backends.slurm.history import EXAMPLE, parse_history
from scheduler.model.errors import SpecInvalid
from scheduler.model.systems import UNLIMITED
from scheduler.model.units import utc

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HEADER = "JobID|User|Partition|NCPUS|TimelimitRaw|Submit|Start|End|State"
RAN = "11|ann|normal|16|90|1000|1060|2000|COMPLETED"


def read(*lines, **options):
    return parse_history([line + "\n" for line in lines], NOW, **options)


def test_a_line_is_a_job_as_the_queue_showed_it():
    (seen,) = read(HEADER, RAN)
    assert (seen.remote_id, seen.user, seen.partition, seen.cores, seen.walltime_s) == ("11", "ann", "normal", 16, 5400)
    assert (seen.submitted_at, seen.started_at, seen.ended_at, seen.seen_at) == (utc(1000), utc(1060), utc(2000), NOW)


def test_columns_are_found_by_name_in_any_order_and_others_are_not_looked_at():
    header = "State|jobidraw|Account|User|Partition|AllocCPUS|ReqCPUS|Timelimit|Submit|Start|End|"
    (seen,) = read(header, "FAILED|11|physics|ann|normal|0|8|1-00:00:00|1000|1060|2000|")
    assert (seen.cores, seen.walltime_s) == (8, 86_400)


@pytest.mark.parametrize(
    ("line", "started_s", "ended_s"),
    [
        ("11|ann|normal|16|90|1000|Unknown|Unknown|PENDING", None, None),
        ("11|ann|normal|16|90|1000|1900|Unknown|PENDING", None, None),
        ("11|ann|normal|16|90|1000|1060|Unknown|RUNNING", 1060, None),
        ("11|ann|normal|16|90|1000|None|1500|CANCELLED by 2001", None, 1500),
        ("11|ann|normal|16|90|1000|1500|1500|CANCELLED", None, 1500),
        ("11|ann|normal|16|90|1000|1060|1500|CANCELLED by 0", 1060, 1500),
        ("11|ann|normal|16|90|1000|1060|1060|FAILED", 1060, 1060),
    ],
)
def test_who_waits_runs_or_was_withdrawn_is_told_apart(line, started_s, ended_s):
    (seen,) = read(HEADER, line)
    assert seen.started_at == (None if started_s is None else utc(started_s))
    assert seen.ended_at == (None if ended_s is None else utc(ended_s))


def test_steps_and_jobs_without_a_size_are_passed_over():
    steps = ["11.batch|||16||1000|1060|2000|COMPLETED", "11.extern|||16||1000|1060|2000|COMPLETED"]
    assert len(read(HEADER, RAN, *steps, "12|ann|normal|0|90|1000|None|1500|CANCELLED", "")) == 1


def test_tasks_and_parts_are_jobs_and_the_last_line_of_one_counts():
    lines = [RAN.replace("11", each, 1) for each in ("11_4", "11_[5-9%2]", "12+0", "12+1")]
    requeued = RAN.replace("1060", "1900")
    seen = read(HEADER, RAN, *lines, requeued)
    assert [each.remote_id for each in seen] == ["11", "11_4", "11_[5-9%2]", "12+0", "12+1"]
    assert seen[0].started_at == utc(1900)


@pytest.mark.parametrize("limit", ["UNLIMITED", "Partition_Limit", ""])
def test_a_job_without_limit_asked_for_all_the_time_there_is(limit):
    assert read(HEADER, RAN.replace("|90|", f"|{limit}|"))[0].walltime_s == UNLIMITED


def test_instants_of_a_zone_are_read_when_the_zone_is_said():
    line = "11|ann|normal|16|90|2026-01-01T10:00:00|2026-01-01T10:01:00|2026-01-01T11:00:00|COMPLETED"
    (seen,) = read(HEADER, line, zone=ZoneInfo("Europe/Berlin"))
    assert seen.submitted_at == datetime(2026, 1, 1, 9, tzinfo=UTC)
    with pytest.raises(SpecInvalid, match=r"line 2: .* zone that is not said; say timeZone"):
        read(HEADER, line)


def test_a_dump_of_one_partition_needs_no_column_for_it():
    header, line = HEADER.replace("Partition|", ""), RAN.replace("normal|", "")
    assert read(header, line, partition="long")[0].partition == "long"
    with pytest.raises(SpecInvalid, match="line 1: names no column partition"):
        read(header, line)


def test_several_partitions_of_a_waiting_job_are_the_first():
    assert read(HEADER, RAN.replace("normal", "short,long"))[0].partition == "short"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("11|ann|normal", "line 3: has 3 columns, fewer than the first line names; was the dump cut short"),
        (RAN.replace("COMPLETED", "EXPLODED"), "line 3: Slurm says 'EXPLODED', a state that is not known"),
        (RAN.replace("11", "eleven", 1), "line 3: 'eleven' is not a job id"),
        (RAN.replace("|16|", "|few|"), "line 3: 'few' is not a number of cores"),
        (RAN.replace("|16|", "|9999999999|"), "line 3: '9999999999' is not a number of cores"),
        (RAN.replace("|90|", "|soon|"), "line 3: 'soon' is not a time"),
        (RAN.replace("1060", "yesterday"), "line 3: .*yesterday"),
        (RAN.replace("1060", "9" * 20), "line 3: "),
    ],
)
def test_a_bad_line_is_named(line, wrong):
    with pytest.raises(SpecInvalid, match=wrong):
        read(HEADER, RAN, line)


def test_a_dump_without_its_first_line_is_refused_with_the_command_that_prints_it():
    for lines in ([], [""], [RAN], ["Cluster: none"]):
        with pytest.raises(SpecInvalid) as refused:
            read(*lines)
        assert EXAMPLE in str(refused.value)
