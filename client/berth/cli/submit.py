"""Commands that begin jobs: run, submit, sbatch, plan, resubmit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.cli.connect import connect
from berth.cli.inputs import read_text
from berth.cli.render import Format, Output, document, print_document, print_one, say
from berth.cli.watching import exit_code_of, follow_to_end, place_of, summary_of
from berth.errors import ExitCode, InvalidInput, UsageError

if TYPE_CHECKING:
    from berth.client import Client
    from berth.records import Job

app = typer.Typer(rich_markup_mode=None)
RESOURCES, PLACE, MORE = "Resources", "Place", "More"


@app.command()
def run(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="Container image, as docker://python:3.12 or a path to a SIF file.")
    ],
    args: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="Arguments, as for docker run and apptainer run.")
    ] = None,
    nodes: Annotated[int | None, typer.Option("--nodes", "-N", metavar="COUNT", help="Nodes.")] = None,
    cores: Annotated[int | None, typer.Option("--cores", "-c", metavar="COUNT", help="Cores on each node.")] = None,
    memory: Annotated[
        str | None, typer.Option("--mem", "-m", metavar="SIZE", help="Memory on each node, as 4G.")
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", "-t", metavar="TIME", help="Time: minutes, 1:30:00 or 1h30m.")
    ] = None,
    gpus: Annotated[
        str | None, typer.Option("--gpus", "-G", metavar="[TYPE:]COUNT", help="GPUs on each node, as 2 or a100:2.")
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", metavar="QUEUE", help="Logical queue; left out, chosen.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", "-s", metavar="SYSTEM", help="System; left out, Berth chooses.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="KEY=VALUE", help="KEY=VALUE, or KEY as it is set here.")
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", metavar="URL", help="URL or URL:NAME of an input.")
    ] = None,
    array: Annotated[
        str | None, typer.Option("--array", "-a", metavar="INDICES", help="Job array, as 0-99%10.")
    ] = None,
    after: Annotated[
        list[str] | None, typer.Option("--after", metavar="JOB", help="JOB or JOB:ok|notok|any that must have ended.")
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", "-A", metavar="ACCOUNT", help="Account to charge.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="NAME=VALUE for the system's scheduler, as qos=high."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", metavar="NAME", help="Name; left out, the image's.")
    ] = None,
    exec_: Annotated[
        bool, typer.Option("--exec", help="ARGS are the whole command; the image's entry point is not used.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Submit and end; do not follow the job.")] = False,
    dry_run: Annotated[bool, typer.Option("--plan", help="Say where it would go, and submit nothing.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Run a container image and follow it to its end.

    The log is printed as it grows; the exit code is 0 when the job finished and 1 when it did not.
    Ctrl-C leaves the job running.

    \b
    Examples:
      berth run docker://busybox -- echo hello
      berth run docker://python:3.12 -c 4 --mem 8G -t 1h -- python3 -c 'print(6 * 7)'
      berth run --exec -i https://example.org/a.bam docker://staphb/samtools -- samtools flagstat /TapisInput/a.bam
      berth run -s cluster -q long -N 4 -A lab --detach docker://me/solver -- solve --deep
    """
    job = {
        "name": name,
        "image": image,
        ("command" if exec_ else "args"): args or None,
        "env": _variables(env or []),
        "resources": _given(nodes=nodes, cores=cores, memory=memory, time=time, gpus=gpus),
        "system": system,
        "queue": queue,
        "inputs": [_input(text) for text in inputs or []],
        "array": array,
        "after": [_after(text) for text in after or []],
        "options": {**_given(account=account), **dict(_pair("--option", text) for text in option or [])},
    }
    request = _request({key: value for key, value in job.items() if value not in (None, {}, [])})
    with connect() as client:
        _resolve(client, request)
        if dry_run:
            _print_plan(client, request, output)
        elif detach:
            _print_submitted(client.jobs.submit(request), output)
        else:
            _follow(client, client.jobs.submit(request), output)


@app.command()
def submit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Job file in YAML or JSON, or - for standard input.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print the log and wait for the end.")] = False,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="TEXT", help="Idempotency-Key: the same key and file never submit twice."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Submit a job file, or several jobs at once.

    A file with several documents, or with a list, submits all of its jobs or none. `berth help job-file` explains
    the fields; a Tapis submit request is taken as it is.

    \b
    Examples:
      berth submit job.yaml
      berth submit -f job.yaml
      id=$(berth submit -o id job.yaml)
      generate-jobs | berth submit -
    """
    requests = _requests(file)
    with connect() as client:
        for request in requests:
            _resolve(client, request)
        if len(requests) > 1:
            if follow:
                raise UsageError("several jobs cannot be followed at once", "submit them, then berth wait JOB...")
            _print_batch(client.jobs.submit_all(requests, key), output)
        elif follow:
            _follow(client, client.jobs.submit(requests[0], key), output)
        else:
            _print_submitted(client.jobs.submit(requests[0], key), output)


@app.command()
def plan(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Job file in YAML or JSON, or - for standard input.")],
    output: Output = Format.TABLE,
) -> None:
    """Say where a job file's job would go, and why; submit nothing.

    \b
    Examples:
      berth plan job.yaml
      berth plan -o json job.yaml
    """
    requests = _requests(file)
    if len(requests) > 1:
        raise UsageError(f"{file} holds {len(requests)} jobs", "plan one at a time")
    with connect() as client:
        _resolve(client, requests[0])
        _print_plan(client, requests[0], output)


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": ["--help"]}
)
def sbatch(
    words: Annotated[
        list[str], typer.Argument(metavar="SCRIPT", help="Options as for Slurm's sbatch, the script, its arguments.")
    ],
) -> None:
    """Submit a Slurm batch script to run inside a container image.

    The script's #SBATCH lines count, options before SCRIPT count more. Two options are Berth's own: --image names
    the container image (or a line `#BERTH image=docker://...` in the script does) and --system the system; without it
    Berth chooses. What has no meaning here is named in a warning; what is not known is an error.
    `berth help sbatch` lists every option.

    \b
    Examples:
      berth sbatch --image docker://debian:12 job.sh
      berth sbatch -N 2 --time=2:00:00 job.sh input.dat
      next=$(berth sbatch --parsable job.sh) && berth sbatch -d afterok:$next report.sh
      berth sbatch --image docker://busybox --wrap 'echo hello'
    """
    from berth.sbatch.reading import parse_command_line
    from berth.sbatch.script import submission

    line = parse_command_line(words)
    if line.wrapped is not None:
        if line.script is not None:
            raise UsageError("--wrap and a script exclude each other")
        text, name = f"#!/bin/sh\n{line.wrapped}\n", "wrap"
    elif line.script is None:
        raise UsageError("no script is named", "berth sbatch SCRIPT, or - for standard input")
    else:
        text, name = read_text(line.script)
        name = "stdin" if line.script == "-" else name
    asked = submission(text, name, line, os.environ)
    for warning in asked.warnings:
        say(f"berth: warning: {name}: {warning}")
    request = _request(asked.job)
    with connect() as client:
        _resolve(client, request)
        if asked.test_only:
            _print_plan(client, request, Format.TABLE)
            return
        job = client.jobs.submit(request)
        number = job.id if job.id is not None else job.uuid
        if not asked.quiet:
            print(number if asked.parsable else f"Submitted batch job {number}", flush=True)
        if asked.wait:
            raise typer.Exit(exit_code_of(client.jobs.wait(job.uuid)))


@app.command()
def resubmit(
    job: Annotated[str, typer.Argument(help="Job: uuid, the beginning of one, or number.")],
    output: Output = Format.TABLE,
) -> None:
    """Submit again what a job was asked to do.

    \b
    Examples:
      berth resubmit 3f2a
      berth resubmit -o id 3f2a
    """
    with connect() as client:
        _print_submitted(client.jobs.resubmit(client.jobs.find(job)), output)


# -- requests ----------------------------------------------------------------------------------------------------


def _request(job: Any) -> dict[str, Any]:
    from berth.jobfile import request_from_job

    return request_from_job(job)


def _requests(file: str) -> list[dict[str, Any]]:
    """The submit requests in a job file: one for each document, or for each item of a list."""
    from berth.documents import read

    text, source = read_text(file)
    jobs: list[Any] = []
    for content in read(text, source):
        jobs.extend(content if isinstance(content, list) else [content])
    if not jobs:
        raise InvalidInput(f"{source} holds no job", "berth help job-file shows one")
    requests = []
    for number, job in enumerate(jobs, start=1):
        try:
            requests.append(_request(job))
        except InvalidInput as error:
            where = source if len(jobs) == 1 else f"{source}, job {number}"
            raise InvalidInput(f"{where}: {error.message}", error.fix) from None
    return requests


def _resolve(client: Client, request: dict[str, Any]) -> None:
    """Put uuids in place of the numbers and shortened uuids of the jobs that must end first."""
    notes = request.get("notes")
    own = notes.get("berth") if isinstance(notes, dict) else None
    after = own.get("after") if isinstance(own, dict) else None
    for entry in after if isinstance(after, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("uuid"), str):
            entry["uuid"] = client.jobs.find(entry["uuid"])


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _pair(option: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    return name.removeprefix("--"), value if equals else True


def _variables(texts: Sequence[str]) -> dict[str, str]:
    variables = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals and key not in os.environ:
            raise UsageError(f"--env: {key} is not set here", f"write --env {key}=VALUE")
        variables[key] = value if equals else os.environ[key]
    return variables


def _input(text: str) -> dict[str, str]:
    from berth.sbatch.values import split_input

    source, target = split_input(text)
    return _given(source=source, target=target)


def _after(text: str) -> dict[str, str]:
    job, _, condition = text.partition(":")
    return {"job": job, "condition": condition or "ok"}


# -- answers -----------------------------------------------------------------------------------------------------


def _follow(client: Client, job: Job, output: Format) -> None:
    """Follow a job to its end and end with its exit code. For scripts the result is the job itself, at its end."""
    try:
        if output is Format.TABLE:
            say(f"berth: job {job.uuid} submitted")
        ended = follow_to_end(client, job.uuid, quiet=output is not Format.TABLE)
    except KeyboardInterrupt:
        short = job.uuid[:8]
        say(f"berth: job {job.uuid} goes on; berth logs -f {short} shows it, berth cancel {short} ends it")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if output is Format.TABLE:
        say(f"berth: {summary_of(ended)}")
        if ended.is_array:
            say(f"berth: berth logs --task INDEX {ended.uuid[:8]} shows what a task printed")
        if ended.status != "FINISHED":
            say(f"berth: see berth show {ended.uuid[:8]} and berth output ls {ended.uuid[:8]}")
    else:
        _print_submitted(ended, output)
    raise typer.Exit(exit_code_of(ended))


def _print_submitted(job: Job, output: Format) -> None:
    rows = [
        ("job", job.uuid),
        ("number", job.id),
        ("name", job.name),
        ("status", job.status),
        ("place", place_of(job)),
    ]
    print_one("Job", job.raw, rows, job.uuid, output)


def _print_batch(answers: Sequence[Any], output: Format) -> None:
    if output in (Format.JSON, Format.YAML):
        print_document(document("JobList", items=list(answers)), output)
    else:
        for answer in answers:
            print(answer["uuid"])


def _print_plan(client: Client, request: dict[str, Any], output: Format) -> None:
    from berth.cli.explaining import print_explanation

    print_explanation(client.jobs.plan(request), output)
