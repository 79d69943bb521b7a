"""What Berth asks of sbatch, word by word, and what sbatch's words mean."""

from dataclasses import replace

import pytest

from backends.slurm import sbatch
from backends.slurm.sbatch import OPTIONS, log_path, refusal_of, sbatch_argv
from scheduler.model.errors import SpecInvalid
from scheduler.model.ids import Marker
from scheduler.model.runs import ArraySpec, Resources, RunSpec, SchedulerOption
from scheduler.model.scheduler_profiles import HiddenOption, SchedulerProfile
from tests.slurm.recorded import DATA, VERSIONS

MARKER = Marker("berth-0b8f3a52-7f0e-4a57-9d0c-5f1d2f3a4b5c-007-1")
RUN = RunSpec(
    job_uuid="0b8f3a52-7f0e-4a57-9d0c-5f1d2f3a4b5c-007",
    name="hello",
    image="docker://busybox",
    exec_dir="/work/j",
    input_dir="/work/j/in",
    output_dir="/work/j/out",
    partition="cpu",
    resources=Resources(nodes=2, cores_per_node=4, memory_mib=2000, walltime_s=5430),
)


def test_a_plain_run_is_asked_for_in_these_words():
    assert sbatch_argv(RUN, MARKER) == [
        "sbatch",
        "--parsable",
        f"--job-name={MARKER}",
        "--export=ALL",
        "--propagate=NONE",
        "--partition=cpu",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=4",
        "--mem=2000M",
        "--time=01:31:00",
        "--chdir=/work/j",
        "--output=/work/j/out/tapisjob.out",
        "--error=/work/j/out/tapisjob.err",
        "--open-mode=append",
        "--no-requeue",
    ]


def words(**changes):
    return sbatch_argv(replace(RUN, **changes), MARKER)


@pytest.mark.parametrize(("hidden", "word"), [(HiddenOption.MEM, "--mem="), (HiddenOption.PARTITION, "--partition=")])
def test_what_a_site_refuses_to_be_told_is_left_out_and_nothing_else(hidden, word):
    profile = SchedulerProfile(tenant="t", name="site", owner="o", hidden_options=(hidden,))
    assert [each for each in words() if not each.startswith(word)] == words(scheduler_profile=profile)
    asked = sbatch.test_only_argv("cpu", Resources(), ())
    assert [each for each in asked if not each.startswith(word)] == sbatch.test_only_argv("cpu", Resources(), [hidden])


def test_an_mpi_run_has_one_task_per_core():
    assert {"--ntasks-per-node=4", "--cpus-per-task=1"} <= set(words(is_mpi=True))


def test_gpus_are_asked_for_by_node_and_model():
    assert "--gres=gpu:2" in words(resources=Resources(gpus_per_node=2))
    assert "--gres=gpu:a100:2" in words(resources=Resources(gpus_per_node=2, gpu_model="a100"))


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (ArraySpec((0, 1, 2, 3)), "0-3"),
        (ArraySpec((7,)), "7"),
        (ArraySpec((5, 1, 2, 9, 8), 2), "1-2,5,8-9%2"),
    ],
)
def test_an_array_is_one_submission_with_a_log_for_each_task(array, text):
    argv = words(array=array)
    assert f"--array={text}" in argv
    assert "--output=/work/j/out/tapisjob.out.%a" in argv
    assert log_path(RUN, "tapisjob.out", 3) == "/work/j/out/tapisjob.out.3"


def test_a_percent_sign_in_a_path_is_not_a_pattern():
    assert "--output=/work/100%%/tapisjob.out" in words(output_dir="/work/100%")


def test_a_backslash_in_a_log_path_is_refused():
    with pytest.raises(SpecInvalid):
        words(stdout="a\\b")


def test_a_wish_to_be_requeued_is_heard():
    argv = words(scheduler_options=(SchedulerOption("--requeue"),))
    assert "--requeue" in argv
    assert "--no-requeue" not in argv


@pytest.mark.parametrize(
    "option",
    [
        SchedulerOption("--account", "lab"),
        SchedulerOption("--qos", "express"),
        SchedulerOption("--reservation", "maint_1"),
        SchedulerOption("--constraint", "[rack1*2&(fast|slow)]"),
        SchedulerOption("--gres", "gpu:a100:2,nic:1"),
        SchedulerOption("--comment", "it's a test, $HOME `x` ü"),
        SchedulerOption("--exclusive"),
        SchedulerOption("--exclusive", "user"),
    ],
)
def test_options_of_the_table_reach_sbatch_as_one_word(option):
    word = option.name if option.value is None else f"{option.name}={option.value}"
    assert words(scheduler_options=(option,))[-1] == word


@pytest.mark.parametrize(
    "option",
    [
        *(SchedulerOption(name, "x") for name in ("--wrap", "--job-name", "--output", "--export", "--parsable")),
        *(SchedulerOption(name, "x") for name in ("--array", "--nodes", "--mem", "--bbf", "--get-user-env", "-A", "")),
        SchedulerOption("--account"),
        SchedulerOption("--account", ""),
        SchedulerOption("--account", "lab --wrap=x"),
        SchedulerOption("--account", "lab\n#"),
        SchedulerOption("--constraint", "a'b"),
        SchedulerOption("--comment", "two\nlines"),
        SchedulerOption("--requeue", "yes"),
        SchedulerOption("--account=lab", None),
    ],
)
def test_what_the_table_does_not_hold_is_refused_by_name(option):
    with pytest.raises(SpecInvalid) as raised:
        words(scheduler_options=(option,))
    assert raised.value.problems[0].field.startswith("schedulerOptions")


def test_no_option_that_berth_sets_may_be_passed():
    own = {word.partition("=")[0] for word in words(array=ArraySpec((1,)))} - {"sbatch", "--no-requeue"}
    assert not own & OPTIONS.keys()


REFUSALS = [
    "sbatch: error: invalid partition specified: nope",
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
    "sbatch: error: Memory specification can not be satisfied",
    "sbatch: error: Batch job submission failed: Requested node configuration is not available",
    "sbatch: error: Batch job submission failed: Invalid job array specification",
    "sbatch: error: Batch job submission failed: Job dependency problem",
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "sbatch: unrecognized option '--foo'\nTry \"sbatch --help\" for more information",
]


@pytest.mark.parametrize("said", REFUSALS)
@pytest.mark.parametrize("status", [1, 255])
def test_a_refusal_is_told_in_the_systems_words(said, status):
    why = refusal_of(status, said)
    assert why
    assert "sbatch: " not in why
    assert said.splitlines()[-1].rpartition(": ")[2] in why


@pytest.mark.parametrize("version", VERSIONS)
def test_every_recorded_refusal_is_one(version):
    said = (DATA / version / "messages.txt").read_text().splitlines()
    refused = [line for line in said if line.startswith("sbatch: error:")]
    assert len(refused) == 5
    assert all(refusal_of(1, line) for line in refused)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (1, "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"),
        (1, "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"),
        (1, "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received"),
        (1, "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying"),
        (1, "sbatch: error: Batch job submission failed: Protocol authentication error"),
        (1, "sbatch: error: If munged is up, restart with --num-threads=10"),
        (124, ""),
        (137, "Killed"),
        (127, "timeout: failed to run command 'sbatch': No such file or directory"),
        (1, "something nobody has seen"),
        (0, "no id"),
    ],
)
def test_what_may_have_been_heard_is_no_refusal(status, said):
    assert refusal_of(status, said) is None
