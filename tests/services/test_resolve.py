"""From app and request to a spec: inheritance, merging, input modes, scheduler options, macros."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import pytest

from scheduler.model.apps import App, Arg, EnvVariable, FileInput, JobAttributes, ParameterSet
from scheduler.model.errors import SpecInvalid
from scheduler.model.jobs import JobSpec
from scheduler.model.macros import (
    JobIdentity,
    MacroUnknown,
    PathRefused,
    environment_of,
    expand,
    place_of,
    relative_path,
)
from scheduler.model.requests import JobRequest
from scheduler.model.runs import JobType, Resources, Runtime, SchedulerOption
from scheduler.model.systems import JobEnvVariable, LogicalQueue, System
from scheduler.services.resolve import anonymous_app, resolve
from scheduler.services.scheduler_options import ALLOWED, SAY_INSTEAD, SHORT, scheduler_options, with_gpus

IDENTITY = JobIdentity(
    uuid="00000000-0000-0000-0000-000000000000-007",
    tenant="dev",
    owner="ada",
    created_at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
)

SYSTEM = System(
    tenant="dev",
    id="alder",
    uuid="u",
    owner="ada",
    host="alder.example.org",
    root_dir="/work",
    can_exec=True,
    can_run_batch=True,
    job_working_dir="jobs/${EffectiveUserId}",
    job_env=(JobEnvVariable(key="SITE", value="x"), JobEnvVariable(key="FIX", value="1", input_mode="FIXED")),
    queues=(LogicalQueue(name="q", partition="p"),),
    default_queue="q",
)


def app(**attributes) -> App:
    return App(
        tenant="dev", id="a", version="1", uuid="u", owner="ada", image="i", attributes=JobAttributes(**attributes)
    )


def spec_of(request: JobRequest, of: App | None = None) -> JobSpec:
    return resolve(request, of or app(exec_system_id="alder"), IDENTITY)


def problems_of(request: JobRequest, of: App | None = None) -> str:
    with pytest.raises(SpecInvalid) as refused:
        spec_of(request, of)
    return str(refused.value)


def test_the_request_counts_over_the_app_and_the_app_over_the_defaults():
    spec = spec_of(JobRequest(name="n", nodes=3), app(nodes=2, memory_mib=700, queue="q", exec_system_id="alder"))
    assert spec.resources == Resources(nodes=3, cores_per_node=1, memory_mib=700, walltime_s=600)
    assert (spec.queue, spec.exec_system_id, spec.dynamic) == ("q", "alder", False)


@pytest.mark.parametrize(
    ("request_says", "app_says", "named"),
    [
        ({"exec_system_id": "x"}, {"exec_system_id": "y"}, "x"),
        ({}, {"exec_system_id": "y"}, "y"),
        ({"dynamic": True}, {"exec_system_id": "y"}, None),
        ({"dynamic": False}, {"exec_system_id": "y", "dynamic_exec_system": True}, "y"),
        ({}, {"exec_system_id": "y", "dynamic_exec_system": True}, None),
        ({"exec_system_id": "x"}, {"dynamic_exec_system": True}, "x"),
        ({}, {}, None),
    ],
)
def test_whose_word_names_the_system(request_says, app_says, named):
    spec = spec_of(JobRequest(name="n", **request_says), app(**app_says))
    assert spec.exec_system_id == named
    assert spec.dynamic is (named is None)


MODES = ParameterSet(
    app_args=(
        Arg(name="on-demand", arg="d"),
        Arg(name="default", arg="e", input_mode="INCLUDE_BY_DEFAULT"),
        Arg(name="fixed", arg="f", input_mode="FIXED"),
        Arg(name="required", input_mode="REQUIRED"),
    )
)


def args_of(*args: Arg) -> tuple[str, ...]:
    return spec_of(
        JobRequest(name="n", parameters=ParameterSet(app_args=(*args, Arg(name="required", arg="r")))),
        app(parameters=MODES, exec_system_id="alder"),
    ).args


def test_input_modes_decide_what_takes_part():
    assert args_of() == ("e", "f", "r")
    assert args_of(Arg(name="on-demand")) == ("d", "e", "f", "r")
    assert args_of(Arg(name="on-demand", arg="mine")) == ("mine", "e", "f", "r")
    assert args_of(Arg(name="default", include=False)) == ("f", "r")
    assert args_of(Arg(name="own", arg="last")) == ("e", "f", "r", "last")


def test_every_broken_rule_of_the_app_is_named_at_once():
    asked = ParameterSet(app_args=(Arg(name="fixed", arg="other"), Arg(name="none")))
    said = problems_of(JobRequest(name="n", parameters=asked), app(parameters=MODES))
    for part in ("appArgs[fixed]: is FIXED", "appArgs[required]: is REQUIRED", "appArgs[none].arg: is missing"):
        assert part in said


def test_an_argument_of_an_app_is_a_piece_of_command_line_and_of_an_image_one_word():
    asked = ParameterSet(app_args=(Arg(name="a", arg="--text 'two words'"),))
    assert spec_of(JobRequest(name="n", parameters=asked)).args == ("--text", "two words")
    bare = resolve(
        JobRequest(name="n", parameters=asked, command=("sh", "-c")), anonymous_app("dev", "ada", "i"), IDENTITY
    )
    assert bare.args == ("sh", "-c", "--text 'two words'")
    assert bare.use_entrypoint is False


def test_variables_of_the_request_come_over_the_apps():
    said = ParameterSet(env=(EnvVariable(key="A", value="app"), EnvVariable(key="B", value="app")))
    asked = ParameterSet(env=(EnvVariable(key="B", value="mine"), EnvVariable(key="C", value="mine")))
    spec = spec_of(JobRequest(name="n", parameters=asked), app(parameters=said, exec_system_id="alder"))
    assert spec.env == {"A": "app", "B": "mine", "C": "mine"}


def test_an_input_without_a_target_goes_by_the_last_piece_of_its_source():
    inputs = (FileInput(source_url="tapis://s/a/b.txt"), FileInput(source_url="https://h/c.txt?x=1", target_path="*"))
    spec = spec_of(JobRequest(name="n", file_inputs=inputs))
    assert [item.target_path for item in spec.file_inputs] == ["b.txt", "c.txt"]


def test_names_may_hold_macros_that_need_no_place():
    assert spec_of(JobRequest(name="${JobOwner}-${AppId}")).name == "ada-a"
    assert "name: ${ExecSystemId} is not a macro" in problems_of(JobRequest(name="${ExecSystemId}"))


def test_every_directory_of_a_place_is_resolved_below_the_root():
    place = place_of(spec_of(JobRequest(name="n")), SYSTEM, SYSTEM.queue(None), IDENTITY)
    job_dir = f"jobs/ada/jobs/{IDENTITY.uuid}"
    assert (place.working_dir, place.exec_dir, place.output_dir) == ("jobs/ada", job_dir, f"{job_dir}/output")
    assert (place.queue, place.partition, place.job_type) == ("q", "p", JobType.BATCH)
    assert (place.archive_system_id, place.archive_dir) == ("alder", place.output_dir)
    elsewhere = spec_of(JobRequest(name="n", archive_system_id="birch"))
    assert place_of(elsewhere, SYSTEM, None, IDENTITY).archive_dir == f"jobs/{IDENTITY.uuid}/archive"


def test_the_environment_is_the_systems_then_the_jobs_then_tapis():
    spec = spec_of(JobRequest(name="n", parameters=ParameterSet(env=(EnvVariable(key="FIX", value="2"),))))
    env = environment_of(spec, SYSTEM, SYSTEM.queue(None), IDENTITY)
    assert (env["SITE"], env["FIX"]) == ("x", "1")
    assert (env["_tapisJobUUID"], env["_tapisNodes"], env["_tapisExecSystemHPCQueue"]) == (IDENTITY.uuid, "1", "p")


@pytest.mark.parametrize("path", ["..", "a/../b", "/../x", "a\x00b", "a\nb"])
def test_a_path_that_leaves_its_root_is_refused(path):
    with pytest.raises(PathRefused):
        relative_path(path)


@pytest.mark.parametrize(("path", "short"), [("/a//b/", "a/b"), ("", ""), ("/", ""), (".", ""), ("a/./b", "a/b")])
def test_a_path_has_one_spelling(path, short):
    assert relative_path(path) == short


def test_what_a_macro_stands_for_is_not_read_again():
    assert expand("${A}", {"A": "${B}"}) == "${B}"
    with pytest.raises(MacroUnknown):
        expand("${C}", {"A": "x"})


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_no_allowed_option_takes_a_line_break_a_quote_or_a_dollar(name):
    for hostile in ("a\nb", "a'b", 'a"b', "$HOME", "`id`", "a\\b", "a;b\n#SBATCH"):
        with pytest.raises(SpecInvalid):
            scheduler_options([Arg(name="o", arg=f"{name}={hostile}")])


def test_every_short_form_means_a_known_option():
    known = ALLOWED.keys() | SAY_INSTEAD.keys() | {"--nodefile", "--input", "--clusters"}
    assert set(SHORT.values()) <= known
    assert not ALLOWED.keys() & SAY_INSTEAD.keys()


@pytest.mark.parametrize(
    ("arg", "gpus", "model"),
    [
        ("--gres=gpu:2", 2, None),
        ("--gres=gpu", 1, None),
        ("--gres=tmpfs:10G,gpu:a100:4", 4, "a100"),
        ("--gpus-per-node a100:3", 3, "a100"),
        ("-G 5", 3, None),
        ("--gres=tmpfs:1G", 0, None),
    ],
)
def test_gpus_are_counted_per_node(arg, gpus, model):
    resources = with_gpus(Resources(nodes=2), scheduler_options([Arg(name="o", arg=arg)]))
    assert (resources.gpus_per_node, resources.gpu_model) == (gpus, model)


def test_an_option_that_is_written_short_arrives_long():
    assert scheduler_options([Arg(name="o", arg="-A lab")]) == (SchedulerOption("--account", "lab"),)


def test_the_runtime_is_the_apps():
    assert spec_of(JobRequest(name="n")).runtime is Runtime.SINGULARITY


@pytest.mark.parametrize(
    "text", ["", " ", "--case 12", "a  b ", "x=1,2:3 ./d", "a\tb", "a\x0bb", "'a b' c", "a\\ b", "é ü", "#a b"]
)
def test_arguments_part_as_a_shell_would_part_them(text):
    asked = JobRequest(name="n", parameters=ParameterSet(app_args=(Arg(name="a", arg=text),)))
    assert spec_of(asked).args == tuple(shlex.split(text))
