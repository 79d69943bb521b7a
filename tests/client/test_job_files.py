"""Job files and units: every field, every mistake, and nothing that raises anything but a clear error."""

from __future__ import annotations

import contextlib
import json
import shlex
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from berth.cli.topics import JOB_FILE
from berth.documents import read, read_one, write
from berth.errors import InvalidInput
from berth.jobfile import FIELDS, INPUT, OUTPUTS, RESOURCES, request_from_job
from berth.units import duration, minutes_of, parse_memory_mib, parse_time_s, size
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCHEMA = json.loads(files("berth").joinpath("job.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

WHOLE = """\
name: hello
description: says hello
image: docker://python:3.12-slim
command: [python3, -c, "print(1)"]
env: {GREETING: hello, COUNT: 3, ON: true, EMPTY: }
resources: {nodes: 2, cores: 4, memory: 1.5G, time: 1:00:00, gpus: a100:2, storage: 50G}
system: cluster
queue: normal
type: batch
constraints: ["canRunBatch = true"]
mpi: mpirun
inputs:
  - tapis://storage/a.csv
  - {source: https://example.org/b, target: data/b, env: B, mount: false}
outputs: {system: storage, directory: /keep, when: on-success, include: ["*.csv"], stdout: out.txt}
array: 0-9%2
after: [12, {job: ab12, condition: any}]
weight: 2
hedge: 2
price: 4.5
deadline: "2126-03-01T18:00:00Z"
network: true
options: {account: lab, exclusive: true, requeue: false}
tags: [one]
notes: {mine: [1, 2]}
"""

REQUEST: dict[str, Any] = {
    "name": "hello",
    "description": "says hello",
    "appId": "berth.image",
    "appVersion": "1",
    "nodeCount": 2,
    "coresPerNode": 4,
    "memoryMB": 1536,
    "maxMinutes": 60,
    "execSystemId": "cluster",
    "execSystemLogicalQueue": "normal",
    "jobType": "BATCH",
    "execSystemConstraints": ["canRunBatch = true"],
    "isMpi": True,
    "mpiCmd": "mpirun",
    "fileInputs": [
        {"sourceUrl": "tapis://storage/a.csv", "targetPath": "*"},
        {"sourceUrl": "https://example.org/b", "targetPath": "data/b", "envKey": "B", "autoMountLocal": False},
    ],
    "archiveSystemId": "storage",
    "archiveSystemDir": "/keep",
    "archiveMode": "SKIP_ON_FAIL",
    "parameterSet": {
        "envVariables": [
            {"key": "GREETING", "value": "hello"},
            {"key": "COUNT", "value": "3"},
            {"key": "ON", "value": "true"},
            {"key": "EMPTY", "value": ""},
        ],
        "archiveFilter": {"includes": ["*.csv"]},
        "logConfig": {"stdoutFilename": "out.txt"},
        "schedulerOptions": [
            {"name": "gpus-per-node", "arg": "--gpus-per-node a100:2"},
            {"name": "account", "arg": "--account lab"},
            {"name": "exclusive", "arg": "--exclusive"},
        ],
    },
    "tags": ["one"],
    "notes": {
        "mine": [1, 2],
        "berth": {
            "image": "docker://python:3.12-slim",
            "command": ["python3", "-c", "print(1)"],
            "array": "0-9%2",
            "after": [{"uuid": "12", "condition": "ok"}, {"uuid": "ab12", "condition": "any"}],
            "weight": 2.0,
            "hedge": 2,
            "storageMB": 51_200,
            "maxPrice": 4.5,
            "deadline": "2126-03-01T18:00:00Z",
            "outboundNetwork": True,
        },
    },
}


def test_every_field_has_its_place_in_the_request() -> None:
    job = read_one(WHOLE, "test")
    assert set(job) | {"app", "args"} == set(FIELDS)
    assert request_from_job(job) == REQUEST


def test_the_least_job_file_is_an_image() -> None:
    assert request_from_job({"image": "docker://staphb/samtools:1.9@sha256:ab"}) == {
        "name": "samtools",
        "appId": "berth.image",
        "appVersion": "1",
        "dynamicExecSystem": True,
        "notes": {"berth": {"image": "docker://staphb/samtools:1.9@sha256:ab"}},
    }


def test_an_apps_arguments_stay_one_word_each_and_an_images_are_words() -> None:
    words = ["a b", "$HOME", "it's", ""]
    of_app = request_from_job({"app": "solver:1.2", "args": words})
    pieces = [arg["arg"] for arg in of_app["parameterSet"]["appArgs"]]
    assert shlex.split(" ".join(pieces)) == words
    assert "dynamicExecSystem" not in of_app
    of_image = request_from_job({"image": "docker://x", "args": words})
    assert [arg["arg"] for arg in of_image["parameterSet"]["appArgs"]] == words


def test_a_tapis_request_is_passed_on_untouched() -> None:
    request = {"appId": "x", "appVersion": "1", "name": "n", "unknown": {"deep": [1]}}
    assert request_from_job(request) == request


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("imag: x", "imag: there is no such field; did you mean 'image'?"),
        ("image: ''", "image: is empty"),
        ("image:", "image: name either an image or an app"),
        ("image: 3.1", "image: must be a text, not a number; put it in quotes"),
        ("image: x\napp: y:1", "image: name either an image or an app"),
        ("app: y", "app: must say which version; write y:VERSION"),
        ("app: y:1\ncommand: [a]", "command: an app has its own command"),
        ("image: x\nargs: hi", "args: must be a list, not a text"),
        ("image: x\nargs: [[1]]", "args[0]: must be a text, not a list"),
        ("image: x\ncommand: []", "command: is empty"),
        ("image: x\nenv: {V: 1.10}", "env.V: YAML reads it as the number 1.1; put it in quotes"),
        ("image: x\nenv: {a-b: 1}", "env.a-b: is no name of a variable"),
        ("image: x\nresources: 4", "resources: must hold names and values, not a number"),
        ("image: x\nresources: {cores: 0}", "resources.cores: must be a whole number of at least 1, not '0'"),
        ("image: x\nresources: {memory: lots}", "resources.memory: 'lots' is not a memory size"),
        ("image: x\nresources: {time: 0}", "resources.time: '0' is no time at all"),
        ("image: x\nresources: {gpus: -1}", "resources.gpus: cannot read '-1'; write for example 2 or a100:2"),
        ("image: x\narray: 5-", "array: cannot read '5-'; write for example 0-99%10"),
        ("image: x\nafter: [{job: a, condition: maybe}]", "after[0].condition: there is no 'maybe'; one of ok, notok"),
        ("image: x\ninputs: [{target: y}]", "inputs[0]: names nothing"),
        ("image: x\noutputs: {when: never!}", "outputs.when: there is no 'never!'; one of always, on-success, never"),
        ("image: x\noptions: {-A: lab}", "options.-A: is no long option of the scheduler"),
        ("image: x\noptions: {qos: a b}", "options.qos: 'a b' is more than one word"),
        ("image: x\nweight: 0", "weight: must be a number above 0"),
        ("image: x\nprice: -1", "price: must be a number of USD"),
        ("image: x\nnotes: {berth: {}}", "notes.berth: is Berth's own"),
        ("- image: x", "a job file holds names and values"),
    ],
)
def test_a_mistake_names_the_field_and_the_fix(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        request_from_job(read(text, "test")[0])
    assert said in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        request_from_job({"image": "x", "resources": {"cores": "no", "mem": 1}, "arry": "1", "args": 5})
    for field in ("resources.cores", "resources.mem", "arry", "args"):
        assert f"{field}: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image: x\nimage: y", "test, line 2: 'image' is there twice"),
        ("image: [", "test, line 1"),
        ("image: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("1: x", "the key 1 is no text"),
        ("a: &a [*a]\n" + "x" * (1024 * 1024), "larger than 1 MiB"),
    ],
)
def test_a_document_that_cannot_be_read_names_the_line(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=r".") as caught:
        read(text, "test")
    assert said in str(caught.value)


def test_plain_words_keep_their_text() -> None:
    found = read_one("{a: yes, b: 1:30:00, c: 007, d: 2026-01-01, e: 0x1F, f: 1_000, g: on, h: ~}", "test")
    assert found == {
        "a": "yes", "b": "1:30:00", "c": "007", "d": "2026-01-01", "e": "0x1F", "f": "1_000", "g": "on", "h": None,
    }  # fmt: skip


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
texts = st.text(st.sampled_from("aZ09 :-%,#{}[]'\"\\|>&*!?~\n\t\r\0\x85\u2028é$"), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@unhurried
@given(st.dictionaries(st.sampled_from([*FIELDS, "wrong"]), values, max_size=6))
def test_whatever_a_file_holds_the_answer_is_a_request_or_a_clear_error(job: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidInput):
        request = request_from_job(job)
        json.dumps(request)
        assert request["name"]
        assert request["appId"]


@unhurried
@given(texts | st.text(max_size=100))
def test_whatever_a_text_holds_it_is_read_or_refused_clearly(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        json.dumps(read(text, "test"))


@unhurried
@given(st.dictionaries(texts, values, max_size=4))
def test_what_is_written_reads_back(value: dict[str, Any]) -> None:
    value = json.loads(json.dumps(value), parse_constant=lambda word: 0)
    assert read(write(value), "test") == [value]


# -- the published schema ----------------------------------------------------------------------------------------


def test_the_schema_knows_the_fields_that_the_command_knows() -> None:
    job = SCHEMA["$defs"]
    assert set(job["job"]["properties"]) == set(FIELDS)
    assert set(job["resources"]["properties"]) == set(RESOURCES)
    assert set(job["input"]["properties"]) == set(INPUT)
    assert set(job["outputs"]["properties"]) == set(OUTPUTS)


def test_the_schema_takes_what_the_command_takes() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(read_one(WHOLE, "test"))
    VALIDATOR.validate({"app": "solver:1"})
    VALIDATOR.validate({"appId": "x", "name": "y", "nodeCount": 1})


@pytest.mark.parametrize(
    "job", [{}, {"image": "x", "app": "y:1"}, {"image": "x", "resources": {"mem": 1}}, {"imag": 1}]
)
def test_the_schema_refuses_what_the_command_refuses(job: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(job)
    with pytest.raises(InvalidInput):
        request_from_job(job)


def test_the_job_file_that_help_shows_is_valid() -> None:
    block = "\n".join(line for line in JOB_FILE.split("\n\n")[1].splitlines())
    job = read_one(block, "help")
    VALIDATOR.validate(job)
    assert request_from_job(job)["maxMinutes"] == 90


# -- units -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("1:30", 90),
        ("1:00:00", 3600),
        ("2-0", 172800),
        ("1-2:03:04", 93784),
        ("1h30m", 5400),
        ("90s", 90),
    ],
)
def test_times_are_read_as_slurm_reads_them(text: str, seconds: int) -> None:
    assert parse_time_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "-5", "1.5", "h", "10 m x"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_time_s(text)


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_every_slurm_clock_reads_as_its_seconds(days: int, hours: int, minutes: int, seconds: int) -> None:
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    text = f"{days}-{hours:02d}:{minutes:02d}:{seconds:02d}"
    assert parse_time_s(text) == total
    if total:
        assert minutes_of(text) == -(-total // 60)


@pytest.mark.parametrize(
    ("text", "mib"),
    [("512", 512), ("4G", 4096), ("1.5g", 1536), ("2T", 2097152), ("1K", 1), ("4GiB", 4096), ("1025K", 2)],
)
def test_memory_is_read_in_mib_rounded_up(text: str, mib: int) -> None:
    assert parse_memory_mib(text) == mib


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (65, "1m 05s"), (7200, "2h 00m"), (90000, "1d 01h"), (-3, "0s")]
)
def test_durations_are_short(seconds: int, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 1024**4, "5.0 TiB")])
def test_sizes_are_short(count: int, text: str) -> None:
    assert size(count) == text
