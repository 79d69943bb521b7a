"""Three versions of Slurm speak; what they say is read without a guess."""

import shlex
from datetime import UTC, datetime

import pytest

from backends.slurm import cluster, sbatch, text
from scheduler.model.errors import UnexpectedReply
from scheduler.model.ids import Marker
from scheduler.model.runs import Ending, RemoteState, Resources
from tests.slurm.recorded import VERSIONS, asked, recorded

US = text.US
MARKER = Marker("berth-0b8f3a52-7f0e-4a57-9d0c-5f1d2f3a4b5c-007-1")


def queue(version):
    """The newest row of each name in a recorded squeue."""
    return {
        row.name: row for row in sorted(text.parse_squeue(recorded(version, "squeue")), key=lambda r: int(r.job_id))
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_asked_today_is_what_was_recorded(version):
    shown = shlex.join(text.squeue_argv()).replace(US, "\\x1f")
    assert asked(version, "squeue") == shown
    assert asked(version, "sinfo") == shlex.join(cluster.SINFO_ARGV).replace(US, "\\x1f")
    assert asked(version, "visible") == shlex.join(cluster.SQUEUE_ARGV).replace(US, "\\x1f")
    row = text.dialect(text.parse_version(recorded(version, "version"))[1])
    columns = shlex.join(text.sacct_argv(row, ["1"])).replace(US, "\\x1f").removesuffix("1")
    assert asked(version, "sacct").startswith(columns)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_recorded_job_is_read_from_squeue(version):
    rows = queue(version)
    states = {name: (row.state, row.ending) for name, row in rows.items()}
    assert states["done"] == (RemoteState.ENDED, Ending.COMPLETED)
    assert states["fails"] == states["killed"] == states["nodir"] == (RemoteState.ENDED, Ending.FAILED)
    assert states["cancelled"] == (RemoteState.ENDED, Ending.CANCELLED)
    assert states["held"] == (RemoteState.QUEUED, None)
    assert states["running"] == (RemoteState.RUNNING, None)
    assert rows["held"].reason == "JobHeldUser"
    assert rows["held"].starts_at is None
    assert rows["running"].nodes.startswith("n")
    assert rows["done"].ended_at >= rows["done"].submitted_at > datetime(2026, 1, 1, tzinfo=UTC)
    assert tuple(rows["held-array"].tasks) == (0, 3, 6, 9, 20)
    assert tuple(rows["array"].tasks) in {(1,), (2,), (3,)}
    assert rows["done"].tasks is None


@pytest.mark.parametrize("version", VERSIONS)
def test_every_recorded_job_is_read_from_sacct(version):
    row = text.dialect(text.parse_version(recorded(version, "version"))[1])
    jobs = text.parse_sacct(row, recorded(version, "sacct"))
    by_name = {job.name: job for job in jobs if job.name != "array"}
    assert (by_name["fails"].ending, by_name["fails"].exit_code, by_name["fails"].signal) == (Ending.FAILED, 3, 0)
    assert (by_name["killed"].exit_code, by_name["killed"].signal) == (0, 9)
    assert by_name["cancelled"].raw_state == "CANCELLED by 2001"
    assert by_name["cancelled"].ending is Ending.CANCELLED
    assert by_name["held"].started_at is None
    assert by_name["held"].nodes == ""
    assert by_name["done"].max_rss_mib in range(1, 100)
    assert tuple(by_name["held-array"].tasks) == (0, 3, 6, 9, 20)
    tasks = {tuple(job.tasks): job.exit_code for job in jobs if job.name == "array"}
    assert tasks == {(1,): 1, (2,): 0, (3,): 1}
    assert not [job for job in jobs if job.name == "batch"]


def test_a_version_older_than_restarts_is_not_asked_for_them():
    assert "Restarts" not in " ".join(text.sacct_argv(text.dialect((22, 5)), ["1"]))
    assert "Restarts" in " ".join(text.sacct_argv(text.dialect((24, 11)), ["1"]))
    assert text.dialect((30, 1)) == text.DIALECTS[-1]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_line_with_another_number_of_columns_raises(version):
    line = recorded(version, "squeue").splitlines()[0]
    for bad in (line + US, line.rpartition(US)[0], "slurm_load_jobs error: something"):
        with pytest.raises(UnexpectedReply) as raised:
            text.parse_squeue(bad)
        assert raised.value.raw == bad


@pytest.mark.parametrize(
    ("column", "bad"), [(0, "x1"), (1, "1-"), (3, "GONE_FISHING"), (5, "2026-11-21T23:28:08"), (7, "yesterday")]
)
def test_a_column_that_is_not_understood_raises(column, bad):
    columns = ["7", "N/A", "name", "COMPLETED", "None", "1795310379", "N/A", "N/A", ""]
    text.parse_squeue_line(US.join(columns))
    columns[column] = bad
    with pytest.raises(UnexpectedReply):
        text.parse_squeue_line(US.join(columns))


def test_a_name_may_hold_anything_but_the_separator():
    row = text.parse_squeue_line(US.join(["7", "N/A", "a|b, c;d'\"", "PENDING", "None", "1", "N/A", "N/A", ""]))
    assert row.name == "a|b, c;d'\""


@pytest.mark.parametrize(
    ("shown", "indices"),
    [("3", (3,)), ("0-4", (0, 1, 2, 3, 4)), ("0-4%2", (0, 1, 2, 3, 4)), ("1,3-5,10-20:5", (1, 3, 4, 5, 10, 15, 20))],
)
def test_sets_of_tasks_are_read_as_slurm_writes_them(shown, indices):
    assert tuple(text.parse_indices(shown)) == indices


@pytest.mark.parametrize("shown", ["", "a", "1-", "1,,2", "1-2:0", "..."])
def test_what_is_no_set_of_tasks_raises(shown):
    with pytest.raises(UnexpectedReply):
        text.parse_indices(shown)


def test_a_job_of_another_name_is_not_found():
    lines = [
        US.join(["7", "N/A", MARKER, "PENDING", "None", "1", "N/A", "N/A", ""]),
        US.join(["8", "N/A", "other", "PENDING", "None", "1", "N/A", "N/A", ""]),
        US.join(["9_1", MARKER]),
        "sacct: warning: something",
    ]
    assert text.parse_named(MARKER, "\n".join(lines)) == {"7", "9"}
    with pytest.raises(UnexpectedReply):
        text.parse_named(MARKER, US.join("abc"))


@pytest.mark.parametrize("said", ["scancel: error: Kill job error on job id 1: Invalid job id specified"])
def test_a_job_that_is_gone_is_gone(said):
    assert text.already_gone(said)
    assert not text.already_gone("scancel: error: slurm_kill_job2 error: Unable to contact slurm controller")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_snapshot_is_made_of_what_every_version_shows(version):
    at = datetime(2026, 11, 22, tzinfo=UTC)
    shown = [recorded(version, name) for name in ("version", "sinfo", "visible")]
    snapshot = cluster.snapshot_of(at, *shown, ())
    assert snapshot.scheduler_version == version.partition("-")[2]
    assert {p.name: (p.up, p.is_default, p.max_walltime_s) for p in snapshot.partitions} == {
        "cpu": (True, True, 86400),
        "debug": (True, False, 600),
    }
    assert all((kind.cores, kind.memory_mib) == (4, 4000) for kind in snapshot.nodes)
    assert sum(kind.free_cores for kind in snapshot.nodes if kind.partition == "cpu") % 4 == 3
    assert snapshot.jobs_total == len(snapshot.jobs) == 7
    assert sorted(job.running for job in snapshot.jobs) == [False] * 6 + [True]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_start_of_a_probe_is_read_from_every_version(version):
    assert asked(version, "starts") == shlex.join(sbatch.test_only_argv("cpu", Resources(), ()))
    assert cluster.parse_test_only(recorded(version, "starts")).year == 2026


def test_a_probe_that_is_refused_has_no_start():
    assert cluster.parse_test_only("allocation failure: Requested node configuration is not available") is None


def sinfo(**changes):
    columns = {
        "R": "cpu", "P": "cpu*", "a": "up", "l": "1-00:00:00", "L": "10:00", "s": "1-infinite", "c": "64",
        "m": "256000", "G": "(null)", "f": "a,b", "D": "4", "T": "idle", "C": "0/256/0/256",
    }  # fmt: skip
    return US.join((columns | changes).values())


@pytest.mark.parametrize(
    ("state", "free", "down"),
    [
        ("idle", 4, 0),
        ("idle~", 4, 0),
        ("mixed", 0, 0),
        ("allocated", 0, 0),
        ("drained", 0, 4),
        ("draining", 0, 4),
        ("down*", 0, 4),
        ("idle*", 0, 4),
        ("maint", 0, 4),
        ("planned", 0, 0),
    ],
)
def test_nodes_count_as_free_or_down_by_their_state(state, free, down):
    (kind,) = cluster.snapshot_of(datetime.now(UTC), "slurm 24.11.5", sinfo(T=state), "", ()).nodes
    assert (kind.total, kind.free, kind.down) == (4, free, down)
    assert kind.planned_nodes == (4 if state == "planned" else 0)


@pytest.mark.parametrize(
    ("gres", "model", "count"),
    [
        ("(null)", None, 0),
        ("gpu:2", None, 2),
        ("gpu:a100:4(S:0-1)", "a100", 4),
        ("fs:scratch:1,gpu:h100:8,nic:2", "h100", 8),
        ("gpu:a100:2,gpu:v100:2", "a100", 4),
        ("gpu:nvidia_a100-sxm4-80gb:4(S:0-3)", "nvidia_a100-sxm4-80gb", 4),
    ],
)
def test_gpus_are_read_from_gres(gres, model, count):
    (row,) = cluster.parse_sinfo(sinfo(G=gres))
    assert (row.gpu_model, row.gpus) == (model, count)


def test_a_long_queue_is_cut_and_counted():
    line = US.join(["9", "0-9999%5", "cpu", "PENDING", "1", "4", "10:00", "1", "N/A", "5", "bob", "Priority"])
    jobs, total = cluster.parse_visible(line, most=100)
    assert (len(jobs), total) == (100, 10_000)
