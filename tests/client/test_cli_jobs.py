"""Commands about jobs against a server: what they print where, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.client.conftest import Berth
from tests.client.fake_berth import EXPLANATION, FakeBerth


def submitted(fake: FakeBerth) -> dict[str, object]:
    """The body of the newest submission."""
    return next(body for _, path, _, body in reversed(fake.requests) if path.startswith("/v3/jobs/submit"))


def test_run_follows_a_job_to_its_end_and_keeps_log_and_messages_apart(berth: Berth, fake: FakeBerth) -> None:
    done = berth("run", "docker://busybox", "--cores", "2", "--mem", "1G", "--time", "10", "--", "echo", "a b", "$HOME")
    assert done.exit_code == 0, done.output
    assert done.stdout == fake.log["stdout"]
    assert "careful" in done.stderr
    assert "FINISHED on cluster/normal; waited 3s; ran 4s" in done.stderr
    request = submitted(fake)
    assert [arg["arg"] for arg in request["parameterSet"]["appArgs"]] == ["echo", "a b", "$HOME"]
    assert (request["coresPerNode"], request["memoryMB"], request["maxMinutes"]) == (2, 1024, 10)
    assert request["dynamicExecSystem"] is True
    assert request["notes"] == {"berth": {"image": "docker://busybox"}}


def test_run_follows_an_array_by_the_states_of_its_tasks(berth: Berth, fake: FakeBerth) -> None:
    fake.messages = {"RUNNING": "running; tasks: 2 queued, 2 running"}
    done = berth("run", "--array", "0-3", "docker://busybox")
    assert done.exit_code == 0, done.output
    assert "RUNNING on cluster/normal: running; tasks: 2 queued, 2 running" in done.stderr
    assert "berth logs --task INDEX" in done.stderr
    assert "cannot be shown" not in done.stderr
    assert not any("/logs" in path for _, path, *_ in fake.requests), "an array has no log of its own"


def test_run_ends_with_1_when_the_job_failed_and_says_why(berth: Berth, fake: FakeBerth) -> None:
    fake.life, fake.ending = ("PENDING", "RUNNING", "FAILED"), "SCHEDULER_TIMEOUT"
    done = berth("run", "docker://busybox")
    assert done.exit_code == 1
    assert "FAILED on cluster/normal; SCHEDULER_TIMEOUT" in done.stderr


def test_run_with_exec_replaces_the_entry_point(berth: Berth, fake: FakeBerth) -> None:
    assert berth("run", "-d", "--exec", "docker://x", "--", "sh", "-c", "echo hi").exit_code == 0
    assert submitted(fake)["notes"]["berth"]["command"] == ["sh", "-c", "echo hi"]


def test_every_option_of_run_reaches_the_request(
    berth: Berth, fake: FakeBerth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "set here")
    first = fake.add_job({"name": "first"})
    options = "-d -N 3 -c 8 -G a100:2 -q long -s cluster -e A=1 -e FROM_HERE -i https://e.org/x.dat:y -a 0-9%2"
    more = f"--after {first['uuid'][:8]}:any -A lab --option qos=high --option exclusive -n mine"
    assert berth("run", *options.split(), *more.split(), "docker://x").exit_code == 0
    request = submitted(fake)
    assert (request["nodeCount"], request["execSystemLogicalQueue"], request["execSystemId"]) == (3, "long", "cluster")
    assert request["name"] == "mine"
    assert "dynamicExecSystem" not in request
    parameters = request["parameterSet"]
    assert parameters["envVariables"] == [{"key": "A", "value": "1"}, {"key": "FROM_HERE", "value": "set here"}]
    assert [option["arg"] for option in parameters["schedulerOptions"]] == [
        "--gpus-per-node a100:2",
        "--account lab",
        "--qos high",
        "--exclusive",
    ]
    assert request["fileInputs"] == [{"sourceUrl": "https://e.org/x.dat", "targetPath": "y"}]
    assert request["notes"]["berth"]["array"] == "0-9%2"
    assert request["notes"]["berth"]["after"] == [{"uuid": first["uuid"], "condition": "any"}]


def test_run_for_scripts_prints_the_ended_job_and_nothing_else(berth: Berth) -> None:
    done = berth("run", "-o", "json", "docker://busybox")
    shown = json.loads(done.stdout)
    assert (shown["apiVersion"], shown["kind"], shown["item"]["status"]) == ("berth/v1", "Job", "FINISHED")
    assert done.stderr == ""


def test_no_system_can_run_it_names_every_rejection_and_ends_with_5(berth: Berth, fake: FakeBerth) -> None:
    rejections = [{"systemId": "small", "queue": "q", "reason": "MEMORY", "asked": "64 GiB", "limit": "8 GiB"}]
    fake.refusal = {"rejections": rejections}
    done = berth("run", "docker://busybox")
    assert done.exit_code == 5
    assert done.stderr.splitlines() == [
        "berth: JOBS_NO_MATCHING_SYSTEM no system can run this job",
        "  small/q  MEMORY: asked 64 GiB, limit 8 GiB",
    ]


def test_submit_reads_a_file_or_standard_input(berth: Berth, fake: FakeBerth, home: Path) -> None:
    (home / "job.yaml").write_text("image: docker://busybox\nargs: [echo, hello]\n")
    first = berth("submit", "-o", "id", "job.yaml")
    second = berth("submit", "-o", "id", "-", input='{"image": "docker://busybox"}')
    assert [first.stdout.strip(), second.stdout.strip()] == list(fake.jobs)


def test_submit_takes_a_tapis_request_as_it_is(berth: Berth, fake: FakeBerth) -> None:
    request = {"name": "x", "appId": "solver", "appVersion": "1", "execSystemId": "cluster", "nodeCount": 2}
    assert berth("submit", "-", input=json.dumps(request)).exit_code == 0
    assert submitted(fake) == request


def test_several_documents_are_submitted_in_one_request(berth: Berth, fake: FakeBerth) -> None:
    done = berth("submit", "-", input="image: docker://a\n---\n- image: docker://b\n- image: docker://c\n")
    assert done.exit_code == 0
    assert done.stdout.split() == list(fake.jobs)
    assert [path for method, path, _, _ in fake.requests if method == "POST"][1:] == ["/v3/jobs/submit/batch"]


def test_an_invalid_job_file_names_the_field_and_ends_with_5(berth: Berth, fake: FakeBerth) -> None:
    done = berth("submit", "-", input="image: docker://a\nresources: {memroy: 4G}\n")
    assert done.exit_code == 5
    assert done.stderr == ("berth: standard input: resources.memroy: there is no such field; did you mean 'memory'?\n")
    assert not fake.jobs


def test_the_same_key_never_submits_twice(berth: Berth, fake: FakeBerth) -> None:
    ids = {berth("submit", "--key", "k1", "-o", "id", "-", input="image: docker://a").stdout for _ in range(3)}
    assert len(ids) == len(fake.jobs) == 1


def test_ps_shows_jobs_under_way_and_all_on_demand(berth: Berth, fake: FakeBerth) -> None:
    ended, active = fake.add_job({"name": "ended"}), fake.add_job({"name": "active"})
    fake.jobs[ended["uuid"]]["status"] = "FINISHED"
    assert berth("ps", "-o", "id").stdout.split() == [active["uuid"]]
    assert berth("ps", "--all", "-o", "id").stdout.split() == [active["uuid"], ended["uuid"]]
    assert berth("ps", "--status", "finished", "-o", "id").stdout.split() == [ended["uuid"]]


def test_ps_never_cuts_silently(berth: Berth, fake: FakeBerth) -> None:
    for number in range(230):
        fake.add_job({"name": f"job-{number}"})
    short = berth("ps")
    assert len(short.stdout.splitlines()) == 26
    assert "the newest 25 are shown; -n 0 shows all" in short.stderr
    whole = berth("ps", "-n", "0", "-o", "json")
    assert len(json.loads(whole.stdout)["items"]) == 230
    assert whole.stderr == ""


def test_names_from_others_cannot_drive_the_terminal(berth: Berth, fake: FakeBerth) -> None:
    fake.add_job({"name": "\x1b[2Jgone\nnext"})
    assert "\x1b" not in berth("ps").stdout
    assert len(berth("ps").stdout.splitlines()) == 2


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_documents_are_versioned(berth: Berth, fake: FakeBerth, form: str) -> None:
    job = fake.add_job({"name": "x"})
    shown = yaml.safe_load(berth("show", "--history", "-o", form, job["uuid"]).stdout)
    assert (shown["apiVersion"], shown["kind"], shown["item"]["uuid"]) == ("berth/v1", "Job", job["uuid"])
    assert shown["history"][0]["event"] == "JOB_NEW_STATUS"


def test_show_tells_people_what_was_asked_for(berth: Berth, fake: FakeBerth) -> None:
    job = fake.add_job({"name": "x", "notes": {"berth": {"image": "docker://busybox"}}})
    shown = berth("show", job["uuid"]).stdout
    for line in ("docker://busybox", "cluster/normal", "1 x 1 cores, 100 MiB, 10 min"):
        assert line in shown


def test_a_job_is_found_by_number_and_by_the_beginning_of_its_uuid(berth: Berth, fake: FakeBerth) -> None:
    job = fake.add_job({"name": "x"})
    for reference in ("1", job["uuid"][:6], job["uuid"].upper()):
        assert berth("show", "-o", "id", reference).stdout.strip() == job["uuid"]


@pytest.mark.parametrize("reference", ["99", "feed", "not-a-job", "../../etc"])
def test_a_job_that_is_not_there_ends_with_3(berth: Berth, reference: str) -> None:
    done = berth("show", reference)
    assert done.exit_code == 3
    assert len(done.stderr.splitlines()) == 1


def test_a_beginning_that_fits_two_jobs_is_refused(berth: Berth, fake: FakeBerth) -> None:
    for end in ("1", "2"):
        job = fake.add_job({"name": "x"})
        fake.jobs[f"abcd{end}"] = {**fake.jobs.pop(job["uuid"]), "uuid": f"abcd{end}"}
    done = berth("show", "abcd")
    assert done.exit_code == 2
    assert "fits 2 jobs" in done.stderr


def test_why_explains_winner_losers_and_rejections(berth: Berth, fake: FakeBerth) -> None:
    job = fake.add_job({"name": "x"})
    shown = berth("why", job["uuid"]).stdout
    for piece in (
        "the result is expected in 2 minutes",
        "slow/long",
        "2h 00m",
        "8 GiB of memory (64 GiB asked)",
        "advice:",
    ):
        assert piece in shown
    assert "waits too in slow/long: copy 2, QUEUED" in shown
    assert berth("why", "-o", "id", job["uuid"]).stdout == "cluster/normal\n"


def test_an_explanation_fits_80_columns_and_leaves_nothing_out(
    berth: Berth, fake: FakeBerth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    job = fake.add_job({"name": "x"})["uuid"]
    shown = berth("why", job).stdout
    assert max(map(len, shown.splitlines())) <= 80
    rows = [line.split() for line in shown.splitlines()]
    chosen = ("wait 1m 00s 3m 20s", "staging 5s 9s", "run 55s 1m 30s", "archive 5s 10s", "result in 2m 00s 5m 00s")
    compared = ("slow/long 2h 00m 2h 30m 1h 58m 1h 50m - 10m 00s",)
    for row in (*chosen, *compared):
        assert row.split() in rows, row
    assert "the line must be broken where it ends" in " ".join(shown.split())
    assert "who decides: jobs that run or wait before it" in shown
    assert json.loads(berth("why", "-o", "json", job).stdout)["item"] == EXPLANATION
    assert json.loads(berth("plan", "-o", "json", "-", input="image: docker://a").stdout)["item"] == EXPLANATION


def test_plan_submits_nothing(berth: Berth, fake: FakeBerth) -> None:
    assert "expected in 2 minutes" in berth("plan", "-", input="image: docker://a").stdout
    assert "expected in 2 minutes" in berth("run", "--plan", "docker://a").stdout
    assert not fake.jobs


def test_logs_prints_the_whole_log_and_follow_survives_lost_connections(berth: Berth, fake: FakeBerth) -> None:
    job = fake.add_job({"name": "x"})
    assert berth("logs", "--stderr", job["uuid"]).stdout == fake.log["stderr"]
    fake.cut_streams = 2
    fake.jobs[job["uuid"]]["status"] = "FINISHED"
    done = berth("logs", "-f", job["uuid"])
    assert (done.stdout, done.exit_code) == (fake.log["stdout"], 0)


def test_logs_shows_one_task_of_an_array(berth: Berth, fake: FakeBerth) -> None:
    job = fake.add_job({"name": "x"})
    fake.log |= {"stdout.7": "task seven\n", "stderr.7": "complaint\n"}
    fake.jobs[job["uuid"]]["status"] = "FINISHED"
    assert berth("logs", "--task", "7", job["uuid"]).stdout == "task seven\n"
    assert berth("logs", "-f", "--stderr", "--task", "7", job["uuid"]).stdout == "complaint\n"


def test_wait_ends_with_1_when_one_of_the_jobs_failed(berth: Berth, fake: FakeBerth) -> None:
    good, bad = fake.add_job({"name": "good"}), fake.add_job({"name": "bad"})
    fake.jobs[bad["uuid"]].update(status="CANCELLED", condition="CANCELLED_BY_USER")
    assert berth("wait", good["uuid"]).exit_code == 0
    assert berth("wait", bad["uuid"], good["uuid"]).exit_code == 1


def test_wait_gives_up_with_7_when_the_time_is_up(berth: Berth, fake: FakeBerth) -> None:
    fake.life = ("QUEUED",)
    job = fake.add_job({"name": "x"})
    done = berth("wait", "--timeout", "1s", job["uuid"])
    assert done.exit_code == 7
    assert "is still QUEUED and the time is up" in done.stderr


def test_cancel_and_resubmit(berth: Berth, fake: FakeBerth) -> None:
    job = fake.add_job({"name": "x"})
    assert berth("cancel", job["uuid"]).exit_code == 0
    again = berth("resubmit", "-o", "id", job["uuid"]).stdout.strip()
    assert fake.jobs[job["uuid"]]["status"] == "CANCELLED"
    assert fake.jobs[again]["name"] == "x"


SCRIPT = """\
#!/bin/sh
#SBATCH --job-name=hello --time=5
#SBATCH --mail-type=END --chdir=/tmp
#BERTH image=docker://busybox
echo hello
"""


def test_sbatch_prints_what_sbatch_prints(berth: Berth, fake: FakeBerth, home: Path) -> None:
    (home / "job.sh").write_text(SCRIPT)
    done = berth("sbatch", "-N", "2", "job.sh", "one", "--two")
    assert done.stdout == "Submitted batch job 1\n"
    assert "warning: job.sh: line 3: --chdir is ignored" in done.stderr
    request = submitted(fake)
    assert (request["name"], request["nodeCount"], request["maxMinutes"]) == ("hello", 2, 5)
    assert request["notes"]["berth"]["command"] == ["/bin/sh", "-c", SCRIPT, "job.sh", "one", "--two"]


def test_sbatch_chains_by_the_number_that_it_printed(berth: Berth, fake: FakeBerth, home: Path) -> None:
    (home / "job.sh").write_text(SCRIPT)
    number = berth("sbatch", "--parsable", "job.sh").stdout.strip()
    assert berth("sbatch", "-d", f"afternotok:{number}", "job.sh").exit_code == 0
    first = next(iter(fake.jobs))
    assert submitted(fake)["notes"]["berth"]["after"] == [{"uuid": first, "condition": "notok"}]


def test_sbatch_waits_wraps_and_tests(berth: Berth, fake: FakeBerth) -> None:
    assert berth("sbatch", "--test-only", "--image=docker://a", "--wrap=true").exit_code == 0
    assert not fake.jobs
    fake.life = ("QUEUED", "FAILED")
    assert berth("sbatch", "-W", "-Q", "--image", "docker://a", "--wrap", "exit 1").exit_code == 1
    assert submitted(fake)["notes"]["berth"]["command"][2] == "#!/bin/sh\nexit 1\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--bogus", "job.sh"), "--bogus is no option that Berth knows"),
        (("--hold", "job.sh"), "--hold is refused"),
        (("job.sh",), "no image is named"),
        (("--image=docker://a",), "no script is named"),
    ],
)
def test_sbatch_refuses_what_it_cannot_mean_with_2(berth: Berth, home: Path, words: tuple[str, ...], said: str) -> None:
    (home / "job.sh").write_text("#!/bin/sh\ntrue\n")
    done = berth("sbatch", *words)
    assert done.exit_code == 2
    assert said in done.stderr


def test_output_lists_fetches_and_prints(berth: Berth, fake: FakeBerth, home: Path) -> None:
    job = fake.add_job({"name": "x"})
    assert berth("output", "ls", "-r", "-o", "id", job["uuid"]).stdout.split() == ["tapisjob.out", "results/table.csv"]
    assert berth("output", "get", job["uuid"]).exit_code == 0
    assert (home / job["uuid"] / "results/table.csv").read_bytes() == fake.outputs["results/table.csv"]
    assert berth("output", "get", job["uuid"], "tapisjob.out", "--to", "-").stdout == "hello\n"
    assert berth("output", "get", job["uuid"], "results", "-d", "here").exit_code == 0
    assert (home / "here/results/table.csv").exists()


def test_output_never_replaces_a_file_unasked_and_leaves_no_half_file(
    berth: Berth, fake: FakeBerth, home: Path
) -> None:
    job = fake.add_job({"name": "x"})
    (home / "tapisjob.out").write_text("mine")
    assert berth("output", "get", job["uuid"], "tapisjob.out", "-d", ".").exit_code == 5
    assert (home / "tapisjob.out").read_text() == "mine"
    assert berth("output", "get", job["uuid"], "tapisjob.out", "-d", ".", "--force").exit_code == 0
    assert (home / "tapisjob.out").read_text() == "hello\n"
    assert not list(home.glob("*.part"))


def test_output_that_is_not_there_ends_with_3(berth: Berth, fake: FakeBerth) -> None:
    job = fake.add_job({"name": "x"})
    done = berth("output", "get", job["uuid"], "nothing.txt", "-d", ".")
    assert done.exit_code == 3
    assert "no 'nothing.txt'" in done.stderr


@pytest.mark.parametrize("name", ["../outside", "..", "a/b", "/etc/cron.d/x", "a\0b", ""])
def test_a_hostile_output_name_writes_nothing_outside(berth: Berth, fake: FakeBerth, home: Path, name: str) -> None:
    job = fake.add_job({"name": "x"})
    fake.listing = [{"name": name, "type": "file", "size": 1, "lastModified": "2026-11-20T10:00:00Z"}]
    before = sorted(home.rglob("*"))
    assert berth("output", "get", job["uuid"], "-d", "inside").exit_code == 5
    assert sorted(home.rglob("*")) == before
