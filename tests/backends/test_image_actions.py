"""What a verdict says must be done, judged by running the launch files with a stand-in runtime that shows its words."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.image_actions import environment
from backends.launchers.words import Claim
from scheduler.model.actions import (
    Bind,
    ConvertTo,
    LaunchWith,
    LibraryPathFirst,
    RuntimeEnv,
    Unpack,
    WritableRoot,
)
from scheduler.model.errors import SpecInvalid
from scheduler.model.runs import Resources
from tests.backends.test_container import PROPERTY, SHOW, Host, hostile

HELPFUL = SHOW.replace("[ ", '[ "$1 $2" = "help run" ] && echo "  --unsquash  first" && exit\n[ ', 1)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.install("apptainer")
    return host


@pytest.fixture
def mpi(host: Host) -> Host:
    host.install("srun", "mpirun", text=SHOW.replace('"$2" = pull', "1 = 2"))
    host.install("apptainer", text='#!/bin/sh\nfor file; do :; done\ncase "$*" in *pull*) touch "$4";; esac\n')
    host.run = replace(host.run, is_mpi=True, resources=Resources(nodes=2, cores_per_node=3), args=("solve",))
    return host


def run_with(host: Host, *actions, **changes):
    done = host.start(replace(host.run, image_actions=actions, **changes), Claim.SLURM, SLURM_JOB_ID="7")
    assert done.returncode == 0, done.stderr
    return host.argv()


def again(host):
    """The same host with a fresh marker."""
    fresh = copy(host)
    fresh.marker_dir = host.root / "second marker"
    fresh.marker_dir.mkdir()
    return fresh


def pairs(argv, option):
    return [after for word, after in pairwise(argv) if word == option]


def test_files_of_the_host_are_shown_read_only(host):
    argv = run_with(host, Bind("/usr/lib/libmpi.so.12.4", "/.berth/mpi/libmpi.so.12"), Bind("/opt/a,b", "/opt/a,b"))
    assert "/usr/lib/libmpi.so.12.4:/.berth/mpi/libmpi.so.12:ro" in pairs(argv, "--bind")
    assert 'type=bind,"src=/opt/a,b","dst=/opt/a,b",ro' in pairs(argv, "--mount")


def test_libraries_are_searched_first_and_then_where_the_user_says(host):
    run_with(host, LibraryPathFirst("/.berth/mpi", "/image/lib"), env={"LD_LIBRARY_PATH": "/mine"})
    assert host.environ()["APPTAINERENV_LD_LIBRARY_PATH"] == "/.berth/mpi:/mine"
    assert "LD_LIBRARY_PATH" not in host.environ()


def test_libraries_are_searched_first_and_then_where_the_image_says(host):
    run_with(host, LibraryPathFirst("/.berth/mpi", "/image/lib"), LibraryPathFirst("/usr/local/cuda/compat"))
    assert host.environ()["APPTAINERENV_LD_LIBRARY_PATH"] == "/.berth/mpi:/usr/local/cuda/compat:/image/lib"


def test_what_hooks_read_is_in_the_environment_of_the_runtime(host):
    run_with(host, RuntimeEnv("NVIDIA_DISABLE_REQUIRE", "1"))
    assert host.environ()["NVIDIA_DISABLE_REQUIRE"] == "1"


@PROPERTY
@given(value=hostile)
def test_any_value_for_the_runtime_reaches_it_unchanged(tmp_path_factory, value):
    host = Host(tmp_path_factory.mktemp("host"))
    host.install("apptainer")
    run_with(host, RuntimeEnv("HOOK", value))
    assert host.environ()["HOOK"] == value


def test_a_writable_layer_is_laid_over_the_image(host):
    assert "--writable-tmpfs" in run_with(host, WritableRoot())
    assert "--writable-tmpfs" not in run_with(again(host))


def test_an_image_is_unpacked_in_the_way_that_the_runtime_offers(host):
    host.install("apptainer", text=HELPFUL)
    assert "--unsquash" in run_with(host, Unpack())


def test_a_runtime_that_unpacks_unasked_is_not_asked(host):
    argv = run_with(host, Unpack())
    assert not [word for word in argv if word.startswith(("--unsquash", "--tmp-sandbox")) or not word]


def test_how_an_image_is_converted_says_nothing_to_the_runtime(host):
    plain = run_with(host)
    assert run_with(again(host), ConvertTo("squashfs", "gzip")) == plain


def test_slurm_starts_the_ranks_with_the_plugin_that_the_image_speaks(mpi):
    argv = run_with(mpi, LaunchWith("pmix"))
    assert argv[:4] == ["--mpi=pmix", "--nodes=2", "--ntasks=6", "--ntasks-per-node=3"]
    assert argv[-1] == "solve"


def test_without_a_plugin_the_host_s_own_launcher_starts_them(mpi):
    assert run_with(mpi, LaunchWith(None))[:2] == ["-n", "6"]


def test_the_command_of_the_site_or_the_user_stands_above_a_verdict(mpi):
    assert run_with(mpi, LaunchWith("pmix"), mpi_cmd="mpirun -np 2")[:2] == ["-np", "2"]


def test_a_verdict_on_mpi_changes_nothing_for_jobs_without(mpi):
    argv = run_with(mpi, LaunchWith("pmix"), is_mpi=False)
    assert not [word for word in argv if word.startswith("--mpi")]


@pytest.mark.parametrize(
    "action",
    [
        Bind("relative", "/a"),
        Bind("/a", "b"),
        Bind("/a\nb", "/a"),
        Bind("/a\0", "/a"),
        LaunchWith("pmix;id"),
        LaunchWith(""),
        LaunchWith("-x"),
        RuntimeEnv("A B", "1"),
        RuntimeEnv("A", "\0"),
        LibraryPathFirst("/a\0"),
    ],
    ids=repr,
)
def test_what_no_run_line_can_say_is_refused(mpi, action):
    with pytest.raises(SpecInvalid):
        mpi.start(replace(mpi.run, image_actions=(action,)), Claim.SLURM, SLURM_JOB_ID="7")


@given(env=st.dictionaries(st.sampled_from(["A", "LD_LIBRARY_PATH"]), st.text(max_size=5)))
def test_without_such_an_action_the_variables_of_the_job_are_untouched(env):
    assert environment((Bind("/a", "/b"), WritableRoot()), env) == env
