"""Durations and sizes are read in one place, as Slurm writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.model.ids import checked_marker, marker_for, new_job_uuid
from scheduler.model.units import format_walltime, parse_memory_mib, parse_walltime_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 600), ("10:30", 630), ("1:00:00", 3600), ("1-12", 129600), ("1-12:30", 131400), ("1-12:00:00", 129600)],
)
def test_walltimes_are_read_as_slurm_reads_them(text, seconds):
    assert parse_walltime_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "-5", "1-", "10;rm"])
def test_what_is_no_walltime_is_refused_with_its_text(text):
    with pytest.raises(ValueError, match="is not a time"):
        parse_walltime_s(text)


@given(st.integers(0, 10**7))
def test_a_walltime_that_was_written_is_read_back(seconds):
    assert parse_walltime_s(format_walltime(seconds)) == seconds


@pytest.mark.parametrize(("text", "mib"), [("512", 512), ("512M", 512), ("4G", 4096), ("1T", 2**20), ("1K", 1)])
def test_memory_is_read_as_slurm_reads_it(text, mib):
    assert parse_memory_mib(text) == mib


def test_a_marker_names_one_attempt_of_one_job():
    job = new_job_uuid()
    assert checked_marker(marker_for(job, 3)) == f"berth-{job}-3"


@pytest.mark.parametrize("text", ["", "berth-x", "berth-../../etc-1", "berth-" + "0" * 36 + "-007-1\n"])
def test_what_is_no_marker_never_becomes_a_path(text):
    with pytest.raises(ValueError, match="not a marker"):
        checked_marker(text)
