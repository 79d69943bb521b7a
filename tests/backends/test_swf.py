"""Job logs in the Standard Workload Format: what is read, what is passed over, and what is said of a bad line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backends.swf import SwfJob, parse_swf, sightings
from scheduler.model.errors import SpecInvalid

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BEGAN = datetime(2026, 2, 1, tzinfo=UTC)
HEADER = f"; UnixStartTime: {int(BEGAN.timestamp())}\n; MaxProcs: 128\n; Note: none\n;\n"
RAN = "1 100 50 600 4 -1 -1 8 500 -1 1 7 1 1 1 -1 -1 -1"


def read(text):
    return parse_swf(text.splitlines())


def test_a_line_is_a_job_and_the_header_says_when_and_how_large():
    log = read(HEADER + "\n" + RAN)
    assert log.jobs == (SwfJob(1, 100, 50, 600, 4, 8, 500, 7),)
    assert (log.cores, log.began_at) == (128, BEGAN)


def test_a_header_that_says_nothing_of_use_leaves_it_unknown():
    log = read("; MaxProcs: many\n; UnixStartTime:\n; UnixStartTime 5\n")
    assert (log.jobs, log.cores, log.began_at) == ((), None, None)


def test_a_job_is_seen_with_its_instants_and_an_id_that_no_site_uses():
    (seen,) = sightings(read(HEADER + RAN), "normal", NOW)
    assert (seen.remote_id, seen.partition, seen.cores, seen.walltime_s, seen.user) == ("swf-1", "normal", 8, 500, "7")
    after = [(at - BEGAN) / timedelta(seconds=1) for at in (seen.submitted_at, seen.started_at, seen.ended_at)]
    assert after == [100, 150, 750]
    assert seen.seen_at == NOW


@pytest.mark.parametrize(
    "line",
    [
        "1 100 50 0 4 -1 -1 8 500 -1 1 7 1 1 1 -1 -1 -1",
        "1 100 -1 600 4 -1 -1 8 500 -1 1 7 1 1 1 -1 -1 -1",
        "1 -1 50 600 4 -1 -1 8 500 -1 1 7 1 1 1 -1 -1 -1",
        "1 100 50 600 0 -1 -1 0 500 -1 1 7 1 1 1 -1 -1 -1",
    ],
)
def test_who_never_ran_or_had_no_size_is_passed_over(line):
    assert sightings(read(HEADER + line), "normal", NOW) == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("1 2 3", "line 6: has 3 fields where the Standard Workload Format has 18; write -1"),
        (RAN.replace("600", "ten"), "line 6: has a field that is no number"),
        (RAN.replace("600", "nan"), "line 6: has a field that is no number"),
        (RAN.replace("600", "1e300"), "line 6: has a field that is no number"),
    ],
)
def test_a_bad_line_is_named_with_what_to_write(line, wrong):
    with pytest.raises(SpecInvalid, match=wrong):
        read(f"{HEADER}{RAN}\n{line}\n")


def test_a_log_without_its_beginning_has_no_instants():
    with pytest.raises(SpecInvalid, match="UnixStartTime: SECONDS"):
        sightings(read(RAN), "normal", NOW)
    assert read("; UnixStartTime: 99999999999999\n" + RAN).began_at is None
