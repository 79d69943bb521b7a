"""The full battery on the main version: every way in which a job can end, and every fault between us and Slurm."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from scheduler.model.errors import BackendUnavailable, NothingLearnt, SubmitError, SubmitRejected, SubmitUncertain
from scheduler.model.runs import ArraySpec, Ending, RemoteState, Resources, Runtime, SchedulerOption
from scheduler.model.scheduler_profiles import HiddenOption, ModuleLoad, SchedulerProfile
from scheduler.model.snapshots import StartProbe
from tests.contract.subjects import eventually
from tests.slurm.live.conftest import Login

pytestmark = pytest.mark.testbed


async def test_a_job_runs_in_its_container_and_its_output_is_read(login):
    image = login.info["demo_image"]["from_nodes"]
    intent = login.intent(
        "sh",
        "-c",
        'echo "$GREETING"; ls -d /TapisExec /TapisInput /TapisOutput',
        image=image,
        runtime=Runtime.SINGULARITY,
        use_entrypoint=False,
        env={"GREETING": 'it\'s "me"\n$HOME'},
        plain_http_registry=True,
    )
    seen = await login.finish(intent)
    assert (seen.ending, seen.exit_code) == (Ending.COMPLETED, 0), await login.log(intent, "tapisjob.err")
    assert (await login.log(intent)).startswith('it\'s "me"\n$HOME\n/TapisExec\n/TapisInput\n/TapisOutput\n')
    assert seen.started_at >= seen.submitted_at
    assert seen.ended_at >= seen.started_at


async def test_four_nodes_each_run_the_container_once(login):
    image = login.info["demo_image"]["from_nodes"]
    intent = login.intent(
        "hostname",
        image=image,
        runtime=Runtime.SINGULARITY,
        use_entrypoint=False,
        resources=Resources(nodes=4, cores_per_node=2),
        plain_http_registry=True,
    )
    seen = await login.finish(intent)
    assert seen.ending is Ending.COMPLETED, await login.log(intent, "tapisjob.err")
    assert sorted((await login.log(intent)).split()) == ["n1", "n2", "n3", "n4"]


async def test_an_array_of_a_hundred_is_one_submission(login):
    intent = login.intent(
        "sh", "-c", "exit $((SLURM_ARRAY_TASK_ID % 50 == 7))", array=ArraySpec(tuple(range(100)), 16),
        resources=Resources(memory_mib=10),
    )  # fmt: skip
    seen = await login.finish(intent, timeout_s=180)
    assert (seen.tasks.completed, seen.tasks.failed, seen.tasks.failed_indices) == (98, 2, (7, 57))
    assert (seen.ending, seen.exit_code) == (Ending.FAILED, 1)


async def test_the_system_refuses_in_its_own_words(login):
    intent = login.intent("true", scheduler_options=(SchedulerOption("--account", "nope"),))
    answer = (await login.backend.submit([intent]))[intent.marker]
    assert isinstance(answer, SubmitRejected)
    assert "Invalid account or account/partition combination specified" in str(answer)


async def test_accounts_qos_and_constraints_are_heard(login):
    wishes = ("--account", "teaching"), ("--qos", "express"), ("--constraint", "fast"), ("--comment", "it's mine, ok?")
    intent = login.intent("sh", "-c", "echo $SLURM_JOB_ACCOUNT $SLURM_JOB_QOS $SLURMD_NODENAME",
                          scheduler_options=tuple(SchedulerOption(*wish) for wish in wishes))  # fmt: skip
    assert (await login.finish(intent)).ending is Ending.COMPLETED
    assert (await login.log(intent)).split()[:2] == ["teaching", "express"]


SITE_MODULE = """
mkdir -p /etc/lmod/modules/berth-site
echo 'setenv("SITE_MODULE", "loaded " .. myModuleFullName())' > /etc/lmod/modules/berth-site/2.0.lua
"""


def profile(*modules: str, hidden: tuple[HiddenOption, ...] = ()) -> SchedulerProfile:
    return SchedulerProfile(
        tenant="t",
        name="site",
        owner="o",
        module_loads=(ModuleLoad("module load", modules),) if modules else (),
        hidden_options=hidden,
    )


async def test_modules_of_the_site_are_loaded_before_the_container_runs(login):
    for node in ("n1", "n2", "n3", "n4"):
        login.cluster.sh(node, SITE_MODULE)
    intent = login.intent(
        *("sh", "-c", "echo $SITE_MODULE"),
        image=login.info["demo_image"]["from_nodes"],
        runtime=Runtime.SINGULARITY,
        use_entrypoint=False,
        plain_http_registry=True,
        scheduler_profile=profile("berth-site"),
    )
    assert (await login.finish(intent)).ending is Ending.COMPLETED, await login.log(intent, "tapisjob.err")
    assert await login.log(intent) == "loaded berth-site/2.0\n"


async def test_a_module_that_the_site_lacks_ends_the_job_and_says_which(login):
    intent = login.intent("true", scheduler_profile=profile("no-such-module"))
    seen = await login.finish(intent)
    assert (seen.ending, seen.exit_code) == (Ending.FAILED, 127)
    said = await login.log(intent, "tapisjob.err")
    assert "'module load no-such-module' failed, which the scheduler profile 'site' asks for" in said


async def test_a_site_is_not_told_what_it_refuses_to_be_told(login):
    hidden = profile(hidden=(HiddenOption.MEM, HiddenOption.PARTITION))
    intent = login.intent(
        "true", partition="none-such", resources=Resources(memory_mib=10**9), scheduler_profile=hidden
    )
    assert (await login.finish(intent)).ending is Ending.COMPLETED


async def test_the_logins_environment_and_limits_stay_at_home(login):
    await login.connection.run(["sh", "-c", "echo 'export LEAK=1 SBATCH_ACCOUNT=nope' >~/.bashrc"])
    try:
        intent = login.intent("sh", "-c", "env; srun --ntasks=1 env | sed s/^/step:/", env={"MINE": "1"})
        assert (await login.finish(intent)).ending is Ending.COMPLETED
        names = {line.partition("=")[0] for line in (await login.log(intent)).splitlines()}
        assert {"MINE", "step:MINE", "step:PATH"} <= names
        assert not {name for name in names if "LEAK" in name or "SSH_" in name or "SBATCH_ACC" in name}
    finally:
        await login.connection.run(["sh", "-c", "rm ~/.bashrc"])


async def test_a_job_past_its_time_ended_by_the_clock(login):
    intent = login.intent("sleep", "300", resources=Resources(walltime_s=60))
    seen = await login.finish(intent, timeout_s=180)
    assert seen.ending is Ending.TIMEOUT


async def test_a_job_past_its_memory_ended_for_that(login):
    eat = "head -c 400M /dev/zero | tail"
    seen = await login.finish(login.intent("sh", "-c", eat, resources=Resources(memory_mib=50)))
    assert seen.ending is Ending.OUT_OF_MEMORY


async def test_a_queued_job_is_cancelled(login):
    intent = login.intent("true", scheduler_options=(SchedulerOption("--begin", "now+1hour"),))
    remote_id = await login.submit(intent)
    await login.backend.cancel(remote_id, intent.marker)
    seen = await login.until(remote_id, intent.marker, RemoteState.ENDED)
    assert (seen.ending, seen.started_at) == (Ending.CANCELLED, None)
    await login.backend.cancel(remote_id, intent.marker)


async def test_a_running_job_is_cancelled_but_only_under_its_own_name(login):
    intent = login.intent("sleep", "300")
    remote_id = await login.submit(intent)
    await login.until(remote_id, intent.marker, RemoteState.RUNNING)
    stranger = login.intent("true").marker
    await login.backend.cancel(remote_id, stranger)
    assert await login.backend.observe({remote_id: stranger}) == {}
    assert (await login.backend.observe({remote_id: intent.marker}))[remote_id].state is RemoteState.RUNNING
    await login.backend.cancel(remote_id, intent.marker)
    seen = await login.until(remote_id, intent.marker, RemoteState.ENDED)
    assert seen.ending is Ending.CANCELLED


async def test_one_marker_is_one_job_however_often_it_is_submitted(login):
    intent = login.intent("sh", "-c", "echo ran >>ran; sleep 1")
    answers = await asyncio.gather(*(login.backend.submit([intent]) for _ in range(5)))
    remote_id = await login.submit(intent)
    assert {answer[intent.marker] for answer in answers if not isinstance(answer[intent.marker], SubmitError)} <= {
        remote_id
    }
    await login.until(remote_id, intent.marker, RemoteState.ENDED)
    assert await login.submit(intent) == remote_id
    named = await login.connection.run(["squeue", "--me", "-h", "-t", "all", "-o", "%i", f"--name={intent.marker}"])
    assert named.text.split() == [remote_id]


async def test_a_link_cut_after_sbatch_leaves_one_job(login):
    intents = [login.intent("sleep", "1") for _ in range(40)]
    cutting = asyncio.create_task(login.backend.submit(intents))
    one = intents[5].marker

    async def some_are_in() -> bool:
        shown = login.cluster.sh("login", f"cat /home/alice/live/.berth/markers/{one}/id 2>/dev/null || :")
        return bool(shown.strip())

    await eventually(some_are_in, "the first submissions arrive")
    with cut(login):
        answers = await cutting
        assert all(isinstance(answer, (str, SubmitUncertain)) for answer in answers.values())
    await eventually(lambda: reachable(login), "the link is back", 90)
    ids = await login.backend.submit(intents)
    assert len({str(answer) for answer in ids.values() if not isinstance(answer, SubmitError)}) == 40
    shown = await login.connection.run(["squeue", "--me", "-h", "-t", "all", "-o", "%j"])
    names = shown.text.split()
    assert [names.count(intent.marker) for intent in intents] == [1] * 40


async def test_a_dead_link_hangs_nothing(login):
    await login.backend.snapshot()
    with cut(login):
        async with asyncio.timeout(60):
            with pytest.raises(BackendUnavailable):
                await login.backend.snapshot()


async def test_a_controller_that_is_down_teaches_nothing(login):
    intent = login.intent("true")
    with down(login, "slurmctld"):
        answer = (await login.backend.submit([intent]))[intent.marker]
        assert isinstance(answer, SubmitUncertain)
        with pytest.raises(NothingLearnt):
            await login.backend.find(intent.marker, intent.intended_at)
        with pytest.raises(BackendUnavailable):
            await login.backend.observe({"1": intent.marker})
    await eventually(lambda: answers(login), "slurmctld answers")
    assert await login.backend.find(intent.marker, intent.intended_at) is None


async def test_a_killed_controller_loses_no_job(login):
    intent = login.intent("sh", "-c", "echo once >>ran; sleep 20")
    remote_id = await login.submit(intent)
    started = await login.until(remote_id, intent.marker, RemoteState.RUNNING)

    async def saved() -> bool:  # what the controller had not saved when it died, it cannot know
        at = login.cluster.sh("login", "stat -c %Y /var/spool/slurmctld/job_state")
        return int(at) > started.started_at.timestamp() + 1

    await eventually(saved, "slurmctld saves its state", 60)
    with down(login, "slurmctld", killed=True):
        pass
    await eventually(lambda: answers(login), "slurmctld answers")
    seen = await login.until(remote_id, intent.marker, RemoteState.ENDED, timeout_s=120)
    assert (seen.ending, seen.exit_code) == (Ending.COMPLETED, 0)
    ran = await login.connection.run(["cat", f"{intent.run.exec_dir}/ran"])
    assert ran.text == "once\n"


async def test_without_accounting_the_end_is_still_known(login):
    intent = login.intent("sh", "-c", "exit 5")
    with down(login, "slurmdbd"):
        seen = await login.finish(intent)
        assert (seen.ending, seen.exit_code) == (Ending.FAILED, 5)
        with pytest.raises(NothingLearnt):
            await login.backend.find(login.intent("true").marker, intent.intended_at)


async def test_a_snapshot_shows_the_cluster_and_when_a_job_would_start(login):
    probes = [StartProbe("cpu", Resources(nodes=2)), StartProbe("cpu", Resources(nodes=99))]
    snapshot = await login.backend.snapshot(probes)
    assert {p.name: p.max_walltime_s for p in snapshot.partitions} == {"cpu": 86400, "debug": 600}
    assert sum(kind.total for kind in snapshot.nodes if kind.partition == "cpu") == 4

    async def told() -> bool:
        return [probe for probe, _ in (await login.backend.snapshot(probes)).starts] == probes[:1]

    await eventually(told, "the nodes are back after what was done to the controller before")


async def reachable(login: Login) -> bool:
    with contextlib.suppress(BackendUnavailable):
        return (await login.connection.run(["true"], timeout_s=5)).exit_status == 0
    return False


async def answers(login: Login) -> bool:
    return (await login.connection.run(["squeue", "--me"], timeout_s=30)).exit_status == 0


@contextlib.contextmanager
def cut(login: Login) -> Iterator[None]:
    login.cluster.cut("login")
    try:
        yield
    finally:
        login.cluster.heal("login")


@contextlib.contextmanager
def down(login: Login, daemon: str, *, killed: bool = False) -> Iterator[None]:
    (login.cluster.kill if killed else login.cluster.stop)("login", daemon)
    try:
        yield
    finally:
        login.cluster.start("login", daemon)
