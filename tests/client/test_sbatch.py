"""Batch scripts: read as sbatch reads them, and turned into jobs without guessing."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from berth.errors import BerthError, InvalidInput, UsageError
from berth.jobfile import request_from_job
from berth.sbatch.options import OPTIONS, How
from berth.sbatch.reading import parse_command_line, parse_script
from berth.sbatch.script import MAX_SCRIPT_BYTES, command_for, submission
from berth.sbatch.values import dependencies, file_name, split_input
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def job(*options: str, script: str = "#!/bin/sh\ntrue\n", environ: dict[str, str] | None = None) -> dict[str, Any]:
    """The job that options and a script come to, without its command; it is a valid job file."""
    asked = submission(script, "job.sh", parse_command_line(["--image=docker://x", *options]), environ or {})
    request_from_job(asked.job)
    return {name: value for name, value in asked.job.items() if name not in ("command", "image", "name")}


@pytest.mark.parametrize(
    ("options", "resources"),
    [
        ("", {"nodes": 1, "cores": 1}),
        ("-N4", {"nodes": 4, "cores": 1}),
        ("-n 4", {"nodes": 1, "cores": 4}),
        ("-N 2 -n 7", {"nodes": 2, "cores": 4}),
        ("-n 4 -c 8", {"nodes": 1, "cores": 32}),
        ("-N 2 --ntasks-per-node=4 --cpus-per-task=2", {"nodes": 2, "cores": 8}),
        ("-n 9 --ntasks-per-node=4", {"nodes": 3, "cores": 4}),
        ("-c 4 --mem-per-cpu=2G", {"nodes": 1, "cores": 4, "memory": "8192M"}),
        ("--mem=1T", {"nodes": 1, "cores": 1, "memory": "1048576M"}),
        ("--mem=4G --mem-per-cpu=1", {"nodes": 1, "cores": 1, "memory": "4096M"}),
        ("-t 1-12", {"nodes": 1, "cores": 1, "time": 2160}),
        ("-t 0:30", {"nodes": 1, "cores": 1, "time": 1}),
        ("--gres=gpu:2", {"nodes": 1, "cores": 1, "gpus": "2"}),
        ("--gres=gpu", {"nodes": 1, "cores": 1, "gpus": "1"}),
        ("--gres=shard:1,gpu:a100:4", {"nodes": 1, "cores": 1, "gpus": "a100:4"}),
        ("-N 2 -G 8", {"nodes": 2, "cores": 1, "gpus": "4"}),
        ("-n 4 --gpus-per-task=h100:1", {"nodes": 1, "cores": 4, "gpus": "h100:4"}),
        ("--gpus-per-node a100:2", {"nodes": 1, "cores": 1, "gpus": "a100:2"}),
    ],
)
def test_tasks_cores_memory_and_gpus_become_those_of_a_node(options: str, resources: dict[str, Any]) -> None:
    assert job(*options.split())["resources"] == resources


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ("-p long", {"queue": "long"}),
        ("-M cluster", {"system": "cluster"}),
        ("-M a --system b", {"system": "b"}),
        ("-a 0-9%2", {"array": "0-9%2"}),
        ("--comment=words", {"description": "words"}),
        ("-d afterok:1:2,afterany:3", {"after": [
            {"job": "1", "condition": "ok"}, {"job": "2", "condition": "ok"}, {"job": "3", "condition": "any"},
        ]}),
        ("-A lab -q high -C a&b --exclusive --nice", {"options": {
            "account": "lab", "qos": "high", "constraint": "a&b", "exclusive": True, "nice": True,
        }}),
        ("--exclusive=user --nice=5", {"options": {"exclusive": "user", "nice": "5"}}),
        ("--gres=gpu:1,shard:2", {"options": {"gres": "shard:2"}}),
        ("-o out.txt", {"outputs": {"stdout": "out.txt", "stderr": "out.txt"}}),
        ("-e err.txt", {"outputs": {"stderr": "err.txt"}}),
        ("-o logs/slurm-%j.out -e %x.err", {"outputs": {"stdout": "slurm.out", "stderr": "job.sh.err"}}),
        ("--env A=1 --env B=x=y --export=NONE,C=3,D", {"env": {"C": "3", "D": "here", "A": "1", "B": "x=y"}}),
        ("--input https://e.org/a --input tapis://s/b:c", {"inputs": [
            {"source": "https://e.org/a"}, {"source": "tapis://s/b", "target": "c"},
        ]}),
    ],
)  # fmt: skip
def test_each_option_has_its_field(options: str, fields: dict[str, Any]) -> None:
    found = job(*options.split(), environ={"D": "here"})
    del found["resources"]
    assert found == fields


def test_lines_of_the_script_count_until_the_first_command_and_the_command_line_counts_more() -> None:
    script = (
        "#!/bin/bash\n#\n\n# words\n#SBATCH -t 10 -p 'my queue' # a remark\n##SBATCH --bogus\n #SBATCH --bogus\n"
        "#SBATCH\t--bogus\n#SBATCH --nodes=2\n#BERTH system=cluster\n#BERTH --env=A=1\necho\n#SBATCH --bogus\n"
    )
    found = job("-t", "20", script=script)
    assert found["resources"] == {"nodes": 2, "cores": 1, "time": 20}
    assert (found["queue"], found["system"], found["env"]) == ("my queue", "cluster", {"A": "1"})


@pytest.mark.parametrize(
    ("words", "given", "script", "arguments"),
    [
        (["-N2", "-QW", "job.sh", "-N", "3"], {"nodes": "2", "quiet": "", "wait": ""}, "job.sh", ["-N", "3"]),
        (["--time", "5", "--", "-odd.sh"], {"time": "5"}, "-odd.sh", []),
        (["--ntasks-per-n=2", "-c=3", "-"], {"ntasks-per-node": "2", "cpus-per-task": "3"}, "-", []),
        (["--wrap", "echo hi"], {"wrap": "echo hi"}, None, []),
    ],
)
def test_the_command_line_reads_as_getopt_reads_it(
    words: list[str], given: dict[str, str], script: str | None, arguments: list[str]
) -> None:
    line = parse_command_line(words)
    assert {one.option.long: one.value for one in line.given} == given
    assert (line.script, line.arguments) == (script, arguments)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bogus"], "command line: --bogus is no option that Berth knows"),
        (["--tiem=5"], "--tiem is no option that Berth knows"),
        (["--mem-"], "--mem- is not clear"),
        (["-Z"], "command line: sbatch has no option -Z"),
        (["--time"], "command line: --time needs a value"),
        (["--wait=1"], "command line: --wait takes no value"),
        (["--account="], "command line: --account needs a value"),
        (["--hold"], "command line: --hold is refused: submit the job when it may run"),
        (["--uid=root"], "--uid is refused: a job runs as the login of your credential"),
        (["--mem=0"], "command line: --mem: '0' means all memory of a node; name a size"),
        (["-N", "2-4"], "--nodes: '2-4' is a range; name one number of nodes"),
        (["-n", "0"], "--ntasks: '0' is no whole number of at least 1"),
        (["-p", "a,b"], "--partition: 'a,b' names several"),
        (["-t", "later"], "--time: 'later' is not a time"),
        (["-N", "3", "-G", "4"], "4 GPUs cannot be spread evenly over 3 nodes"),
        (["-d", "singleton"], "--dependency: 'singleton' is not understood"),
        (["-d", "afterok:1?afterok:2"], "--dependency"),
        (["-o", "%q.txt"], "--output: '%q.txt' holds a pattern that means nothing here"),
        (["--export=GONE"], "--export: GONE is not set here"),
        (["--env=A"], "--env: 'A' has no value"),
    ],
)
def test_what_cannot_be_meant_names_the_option_and_where_it_stands(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        job(*words)
    assert said in str(caught.value)


def test_a_mistake_in_the_script_names_the_line() -> None:
    for line, said in (
        ("#SBATCH --tiem=5", "line 2: --tiem"),
        ("#SBATCH 'open", "line 2: No closing quotation"),
        ("#SBATCH word", "line 2: 'word' is no option"),
        ("#SBATCH --mem=x", "line 2: --mem: 'x' is not a memory size"),
    ):
        with pytest.raises(UsageError) as caught:
            job(script=f"#!/bin/sh\n{line}\n")
        assert said in str(caught.value)


def test_what_is_not_taken_over_is_named_in_a_warning() -> None:
    line = parse_command_line(
        ["--image=x", "-D", "/tmp", "--requeue", "-o", "logs/a", "--export=ALL", "-e", "/dev/null"]
    )
    warnings = "\n".join(submission("#!/bin/sh\n", "job.sh", line, {}).warnings)
    for said in ("--chdir is ignored", "--requeue is ignored", "'a' in the job's", "stays at home", "/dev/null"):
        assert said in warnings


def test_every_ignored_option_warns_and_every_refused_one_is_refused() -> None:
    for option in OPTIONS:
        words = [f"--{option.long}=1" if option.needs_value else f"--{option.long}"]
        line = parse_command_line(["--image=x", *words])
        if option.how is How.REFUSED:
            with pytest.raises(UsageError, match=f"--{option.long} is refused"):
                submission("#!/bin/sh\n", "job.sh", line, {})
        elif option.how is How.IGNORED:
            assert f"--{option.long} is ignored" in submission("#!/bin/sh\n", "job.sh", line, {}).warnings[0]


def test_no_option_is_there_twice() -> None:
    longs = [option.long for option in OPTIONS]
    shorts = [option.short for option in OPTIONS if option.short]
    assert len(set(longs)) == len(longs)
    assert len(set(shorts)) == len(shorts)


# -- the script in the job ---------------------------------------------------------------------------------------


def run(command: list[str], cwd: Path) -> str:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=20).stdout


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ('#!/bin/sh\necho "$0 $# $2"\n', "job.sh 2 b c\n"),
        ('#!/bin/bash -e\na=(1 2); echo "${a[1]} $1"\n', "2 a\n"),
        ('#!/usr/bin/env bash\necho "$2"\n', "b c\n"),
        ("#!/usr/bin/env python3\nimport sys\nprint(sys.argv[1:])\n", "['a', 'b c']\n"),
        ("#!/bin/sh\ncat <<'X'\n$HOME `date` \\ 'x' \"y\"\nX\n", "$HOME `date` \\ 'x' \"y\"\n"),
    ],
)
def test_the_command_runs_the_script_as_the_file_would_run(script: str, printed: str, home: Path) -> None:
    assert run(command_for(script, "job.sh", ["a", "b c"]), home) == printed


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo hi\n", "does not begin with #!"),
        ("#!/bin/sh\n\0", "NUL"),
        ("#!/bin/sh\r\ntrue\r\n", "has DOS line ends"),
        ("#!/bin/sh\n" + "x" * MAX_SCRIPT_BYTES, "larger than 48 KiB"),
    ],
)
def test_a_text_that_is_no_script_is_refused(script: str, said: str) -> None:
    with pytest.raises((UsageError, InvalidInput), match=said):
        command_for(script, "job.sh", [])


# -- properties --------------------------------------------------------------------------------------------------

words = st.lists(
    st.sampled_from(
        [f"--{option.long}" for option in OPTIONS] + [f"-{option.short}" for option in OPTIONS if option.short]
    )
    | st.text(st.sampled_from("-=aN1:,%'\"\\ #\n\0é"), max_size=8),
    max_size=6,
)


@unhurried
@given(words)
def test_any_command_line_is_read_or_refused_clearly(words: list[str]) -> None:
    with contextlib.suppress(BerthError):
        line = parse_command_line(words)
        submission("#!/bin/sh\n", "job.sh", line, {})


@unhurried
@given(words)
def test_options_mean_the_same_in_a_script_and_on_the_command_line(words: list[str]) -> None:
    with contextlib.suppress(BerthError):
        on_line = parse_command_line(words)
        if on_line.script is None and not any("\n" in word or "\0" in word for word in words) and "--" not in words:
            in_script = parse_script(f"#!/bin/sh\n#SBATCH {shlex.join(words)}\n")
            assert [(g.option, g.value) for g in in_script] == [(g.option, g.value) for g in on_line.given]


@unhurried
@given(st.text(max_size=200))
def test_any_script_is_read_or_refused_clearly(text: str) -> None:
    with contextlib.suppress(BerthError):
        parse_script("#!/bin/sh\n#SBATCH " + text)


@unhurried
@given(st.text(max_size=40))
def test_values_are_read_or_refused_clearly(text: str) -> None:
    for reader in (dependencies, lambda value: file_name(value, "job"), split_input):
        with contextlib.suppress(ValueError):
            reader(text)


@pytest.mark.parametrize(
    ("text", "url", "name"),
    [
        ("https://h:8080/a", "https://h:8080/a", None),
        ("https://h:8080/a:b.txt", "https://h:8080/a", "b.txt"),
        ("https://h:8080", "https://h:8080", None),
        ("tapis://s/a:0", "tapis://s/a", "0"),
        ("plain", "plain", None),
    ],
)
def test_an_input_may_have_a_name_behind_its_url(text: str, url: str, name: str | None) -> None:
    assert split_input(text) == (url, name)
