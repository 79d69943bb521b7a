"""Commands about systems: what there is, adding one by looking at it, credentials, matching."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.cli import scheduler_profiles
from berth.cli.connect import connect
from berth.cli.inputs import password as read_password
from berth.cli.inputs import private_key, read_definition, read_text
from berth.cli.render import (
    Column,
    Format,
    Output,
    document,
    print_document,
    print_list,
    print_one,
    print_table,
    safe,
    say,
)
from berth.errors import ApiError, InvalidInput, UsageError
from berth.units import duration

if TYPE_CHECKING:
    from berth.client import Client
    from berth.records import ProbeReport

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
app.add_typer(scheduler_profiles.app, name="profiles")
SystemArgument = Annotated[str, typer.Argument(metavar="SYSTEM", help="The system's id.")]
PASSWORD_VARIABLE = "BERTH_SYSTEM_PASSWORD"  # noqa: S105 - a variable's name
UNLIMITED = 2_147_483_647


@app.callback()
def main() -> None:
    """The systems that jobs run on, and your credentials there."""


# -- what there is -----------------------------------------------------------------------------------------------


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List the systems that you may see.

    \b
    Examples:
      berth systems ls
      berth systems ls -o id
    """
    with connect() as client:
        systems = list(client.systems.list(whole=True))
    columns = (
        Column("ID", lambda raw: raw["id"]),
        Column("HOST", lambda raw: raw.get("host") or ""),
        Column("SCHEDULER", lambda raw: raw.get("batchScheduler") or "-"),
        Column("QUEUES", lambda raw: ", ".join(queue["name"] for queue in raw.get("batchLogicalQueues") or ()) or "-"),
        Column("ENABLED", lambda raw: "no" if raw.get("enabled") is False else "yes"),
        Column("CREDENTIAL", lambda raw: {True: "yes", False: "no"}.get(raw.get("hasCredentials"), "")),
    )
    print_list(
        "System", systems, columns, lambda raw: raw["id"], output, "no systems; begin with berth systems probe HOST"
    )


@app.command()
def show(system: SystemArgument, output: Output = Format.TABLE) -> None:
    """Show one system with its queues.

    \b
    Examples:
      berth systems show cluster
      berth systems show -o yaml cluster
    """
    with connect() as client:
        found = client.systems.get(system)
    print_one("System", found, _rows(found), system, output)
    queues = found.get("batchLogicalQueues") or []
    if output is Format.TABLE and queues:
        print()
        print_table(
            ("QUEUE", "PARTITION", "NODES", "CORES", "MEMORY MIB", "TIME"),
            [
                (
                    queue["name"],
                    str(queue.get("hpcQueueName") or ""),
                    *(_limit(queue.get(name)) for name in ("maxNodeCount", "maxCoresPerNode", "maxMemoryMB")),
                    _limit(queue.get("maxMinutes"), lambda minutes: duration(minutes * 60)),
                )
                for queue in queues
            ],
        )


@app.command()
def match(
    constraints: Annotated[
        list[str], typer.Argument(metavar="CONDITION", help="Pieces of one condition, joined with blanks.")
    ],
    output: Output = Format.TABLE,
) -> None:
    """List the systems on which a condition holds, the best first.

    \b
    Examples:
      berth systems match "batchScheduler = 'SLURM'"
      berth systems match "canRunBatch = true AND" "port = 22"
    """
    with connect() as client:
        found = list(client.systems.match(constraints))
    columns = (Column("ID", lambda raw: raw["id"]), Column("HOST", lambda raw: raw.get("host") or ""))
    print_list("System", found, columns, lambda raw: raw["id"], output, "no system fits")


# -- adding and removing -----------------------------------------------------------------------------------------


@app.command()
def create(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Definition in YAML or JSON, or - for standard input.")],
) -> None:
    """Add a system from a definition.

    \b
    Examples:
      berth systems create cluster.yaml
      berth systems show -o json old | jq '.item | .id = "new"' | berth systems create -
    """
    definition = read_definition(file)
    with connect() as client:
        client.systems.create(definition)
    system_id = definition.get("id")
    say(f"berth: system {system_id} is added")
    if definition.get("effectiveUserId", "${apiUserId}") == "${apiUserId}" and not is_local(definition):
        say(f"berth: now your credential: berth systems credential {system_id} --identity KEYFILE")


@app.command()
def enable(system: SystemArgument) -> None:
    """Let jobs be placed on a system.

    \b
    Examples:
      berth systems enable cluster
    """
    with connect() as client:
        client.systems.enable(system)
    say(f"berth: system {system} is enabled")


@app.command()
def disable(system: SystemArgument) -> None:
    """Place no more jobs on a system; those under way go on.

    \b
    Examples:
      berth systems disable cluster
    """
    with connect() as client:
        client.systems.disable(system)
    say(f"berth: system {system} is disabled")


@app.command()
def rm(system: SystemArgument) -> None:
    """Remove a system; its jobs keep their records.

    \b
    Examples:
      berth systems rm cluster
    """
    with connect() as client:
        client.systems.delete(system)
    say(f"berth: system {system} is removed")


# -- learning ----------------------------------------------------------------------------------------------------


class RecordForm(StrEnum):
    """How a file of past jobs is written."""

    SACCT = "sacct"
    SWF = "swf"


@app.command()
def learn(
    system: SystemArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Past jobs, or - for standard input.")],
    form: Annotated[
        RecordForm, typer.Option("--format", "-f", help="sacct: its output; swf: Standard Workload Format.")
    ] = RecordForm.SACCT,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", help="Queue of the jobs, where the file does not name partitions.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option("--time-zone", help="Zone of instants that are not Unix time, as Europe/Berlin.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Teach Berth how long jobs waited, from a site's own records.

    For those who may change the system. Read as a whole or not at all; the same file again changes nothing.

    \b
    Examples:
      ssh login.cluster.example 'SLURM_TIME_FORMAT=%s sacct -a -X -P --starttime=now-30days \\
        --format=JobID,User,Partition,NCPUS,ReqCPUS,TimelimitRaw,Submit,Start,End,State' > jobs.txt
      berth systems learn cluster jobs.txt
      berth systems learn cluster log.swf --format swf --queue normal
    """
    text, _ = read_text(file)
    with connect() as client:
        learnt = client.systems.learn_past_jobs(system, text, form.value.upper(), queue=queue, time_zone=time_zone)
    rows = (
        ("jobs in the file", learnt["toldJobs"]),
        ("kept", learnt["keptJobs"]),
        ("too old", learnt["tooOldJobs"]),
        ("of other queues", learnt["otherQueueJobs"]),
    )
    print_one("LearntPastJobs", learnt, rows, system, output)


@app.command()
def facts(
    system: SystemArgument,
    probe: Annotated[bool, typer.Option("--probe", help="Let small jobs look at the nodes again, soon.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what the nodes of a system can do, and what shows it.

    \b
    Examples:
      berth systems facts cluster
      berth systems facts cluster -o json
      berth systems facts cluster --probe
    """
    with connect() as client:
        if probe:
            client.systems.look_at_nodes(system)
        found = client.systems.node_facts(system)
    if output is Format.ID:
        for nodes in found:
            print(safe(nodes["nodeClass"]))
    elif output is not Format.TABLE:
        print_document(document("NodeFacts", items=found), output)
    else:
        for nodes in found:
            print(safe(_nodes_line(nodes)))
            told: Mapping[str, Any] = nodes.get("facts") or {}
            why: Mapping[str, Any] = nodes.get("evidence") or {}
            if told:
                print_table(
                    ("FACT", "VALUE", "SHOWN BY"), [_fact_row(name, told[name], why.get(name)) for name in told]
                )
        if not found:
            say("nobody looks at its nodes; the owner may say notes.berth.images")


@app.command()
def strays(system: SystemArgument, output: Output = Format.TABLE) -> None:
    """Show runs on a system that no job and no pod waits for, and what is done about them.

    \b
    Examples:
      berth systems strays cluster
      berth systems strays cluster -o json
    """
    with connect() as client:
        found = client.systems.strays(system)
    if output is Format.ID:
        for stray in found:
            print(safe(stray["marker"]))
    elif output is not Format.TABLE:
        print_document(document("Strays", items=found), output)
    elif found:
        shown = ("remoteJobId", "owner", "firstSeenAt", "standing", "message")
        print_table(
            ("ID", "LOGIN", "SINCE", "STANDING", "WHAT IS DONE"), [[safe(one[key]) for key in shown] for one in found]
        )
    else:
        say("nothing runs there that nobody waits for")


def _nodes_line(nodes: Mapping[str, Any]) -> str:
    seen = f"seen {nodes['seenAt']}" if nodes.get("seenAt") else "not seen by a probe"
    look = nodes.get("look") or {}
    failed = f"; the last look failed: {look.get('message')}" if look.get("state") == "FAILED" else ""
    return f"{nodes['nodeClass']}: {seen}{failed}"


def _fact_row(name: str, value: Any, why: Mapping[str, Any] | None) -> tuple[str, str, str]:
    text = value if isinstance(value, str) else json.dumps(value)
    shown = f"{why.get('source')}: {why.get('detail')}" if why else "-"
    return name, text if len(text) <= 60 else text[:57] + "...", shown[:60]


# -- looking at a host -------------------------------------------------------------------------------------------


@app.command()
def probe(
    host: Annotated[
        str, typer.Argument(metavar="HOST", help="Host name or address of the login node, as the server reaches it.")
    ],
    user: Annotated[str, typer.Option("--user", "-u", help="Your account there.")],
    identity: Annotated[str | None, typer.Option("--identity", "-i", help="Private key file to log in with.")] = None,
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="Port of sshd.")] = 22,
    system_id: Annotated[
        str | None, typer.Option("--id", help="Id of the system; left out, made from the host.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE to put into the definition, as rootDir=/scratch.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="File to write; left out, standard output.")] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Add the system and store the key as your credential.")
    ] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Log in with a password from standard input.")
    ] = False,
) -> None:
    """Look at a host and write a definition of it to review.

    The server logs in, finds Slurm, its partitions and limits, the container runtime and file systems, and shows the
    command behind each fact as a comment. Nothing is stored unless --register is given. Without a key the password
    comes from --password-stdin, BERTH_SYSTEM_PASSWORD, or a question at the terminal.

    \b
    Examples:
      berth systems probe login.cluster.example --user alice --identity ~/.ssh/berth_key -o cluster.yaml
      berth systems probe login.cluster.example --user alice -i ~/.ssh/berth_key --id cluster --register
    """
    credential = _credential(user, identity, password_stdin, f"Password of {user} on {host}")
    with connect() as client:
        say(f"berth: looking at {host} as {user}")
        report = client.systems.probe(
            host,
            user,
            port=port,
            private_key=credential.get("privateKey"),
            password=credential.get("password"),
            system_id=system_id,
        )
        definition = with_changes(report.definition, changes or [])
        text = review_text(report, definition)
        if out is not None:
            try:
                Path(out).write_text(text, "utf-8")
            except OSError as error:
                raise InvalidInput(f"cannot write {out}: {error.strerror}") from None
            say(f"berth: wrote {out}; review it, then berth systems create {out}")
        elif not register:
            sys.stdout.write(text)
        for warning in report.warnings:
            say(f"berth: warning: {warning}")
        if register:
            _register(client, definition, report.host_key, credential)


def with_changes(definition: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """A definition with values put in at dotted names; a value is JSON where it reads as such, else a text."""
    whole: dict[str, Any] = json.loads(json.dumps(definition))
    for change in changes:
        path, equals, text = change.partition("=")
        *parents, name = path.split(".")
        if not equals or not name:
            raise UsageError(f"--set: '{change}' has no value", "write --set NAME=VALUE, as in --set rootDir=/scratch")
        place: Any = whole
        for parent in parents:
            place = place.setdefault(parent, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise UsageError(f"--set: nothing can be put at {path}")
        try:
            place[name] = json.loads(text)
        except ValueError:
            place[name] = text
    return whole


def review_text(report: ProbeReport, definition: Mapping[str, Any]) -> str:
    """A definition as YAML, with what showed each fact, the host's key and the warnings as comments above it."""
    from berth.documents import write

    comments = [f"Host key: {report.host_key}", *(f"Warning: {warning}" for warning in report.warnings)]
    comments += [f"{fact}: {shown}" for fact, shown in report.evidence.items()]
    lines = [f"# {line}".rstrip() for comment in comments for line in str(comment).splitlines()]
    return "\n".join([*lines, "", write(definition)])


def _register(client: Client, definition: Mapping[str, Any], host_key: str, credential: Mapping[str, str]) -> None:
    """Add the system and the credential; a system that is there already keeps its definition."""
    system_id = str(definition["id"])
    try:
        client.systems.create(definition)
        say(f"berth: system {system_id} is added")
    except ApiError as error:
        if error.status != 409:
            raise
        say(f"berth: system {system_id} was there already; its definition is left as it is")
    client.systems.put_credential(system_id, client.username, credential)
    say(f"berth: the credential of {credential['loginUser']} works and is stored; host key {host_key}")
    say(f"berth: try it: berth run --system {system_id} docker://busybox -- hostname")


# -- credentials -------------------------------------------------------------------------------------------------


@app.command()
def credential(
    system: SystemArgument,
    user: Annotated[
        str | None, typer.Option("--login", "--user", "-u", help="Your account there; left out, as in Berth.")
    ] = None,
    identity: Annotated[str | None, typer.Option("--identity", "-i", help="Private key file to store.")] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Let the server make a key pair; print its half.")
    ] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Store a password from standard input.")
    ] = False,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Store a bearer token of a Kubernetes from standard input.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Log in with the stored credential now.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the credential and the pinned host key.")] = False,
    owner: Annotated[str | None, typer.Option("--for", help="Another Berth user, for administrators.")] = None,
) -> None:
    """Store, check or remove your credential for a system.

    A key, password or token is stored only after a login with it has worked; the system's own words say why it did not.

    \b
    Examples:
      berth systems credential cluster --login alice --identity ~/.ssh/berth_key
      berth systems credential cluster --login alice --generate
      kubectl -n lab create token berth | berth systems credential kube --token-stdin
      berth systems credential cluster --check
      berth systems credential cluster --remove
    """
    if sum((bool(identity), generate, password_stdin, token_stdin, check, remove)) != 1:
        ways = "--identity FILE, --generate, --password-stdin, --token-stdin, --check, --remove"
        raise UsageError("say what to do", f"one of {ways}")
    with connect() as client:
        who = owner or client.username
        if check:
            answer = client.systems.check_credential(system, who)
            say(f"berth: the credential of {who} for {system} works")
            _warn(answer)
        elif remove:
            client.systems.remove_credential(system, who)
            say(f"berth: the credential of {who} for {system} is removed")
        elif generate:
            _generate(client, system, who, user)
        else:
            given = (
                _token(user or who)
                if token_stdin
                else _credential(user or who, identity, password_stdin, f"Password on {system}")
            )
            answer = client.systems.put_credential(system, who, given)
            say(f"berth: the credential of {who} for {system} works and is stored")
            _warn(answer)


def _warn(answer: Mapping[str, Any]) -> None:
    for warning in answer.get("warnings") or ():
        say(f"berth: {warning}")


def _token(user: str) -> dict[str, str]:
    return {"loginUser": user, "accessToken": read_password(from_stdin=True, prompt="", variable=PASSWORD_VARIABLE)}


def _generate(client: Client, system: str, who: str, login_user: str | None) -> None:
    answer = client.systems.put_credential(system, who, {"loginUser": login_user} if login_user else {})
    print(answer.get("publicKey", ""))
    message = answer.get("message") or f"add this line to ~/.ssh/authorized_keys of {login_user or who} on {system}"
    say(f"berth: {message}")
    say(f"berth: then: berth systems credential {system} --check")


def _credential(user: str, identity: str | None, password_stdin: bool, prompt: str) -> dict[str, str]:
    if identity is not None and password_stdin:
        raise UsageError("--identity and --password-stdin exclude each other")
    if identity is not None:
        return {"loginUser": user, "privateKey": private_key(identity)}
    password = read_password(from_stdin=password_stdin, prompt=prompt, variable=PASSWORD_VARIABLE)
    return {"loginUser": user, "password": password}


def is_local(definition: Mapping[str, Any]) -> bool:
    """Whether a system is the server's own machine, which takes no credential."""
    own = (definition.get("notes") or {}).get("berth") or {}
    return isinstance(own, Mapping) and own.get("backend") == "local"


def _rows(raw: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    yield "id", raw.get("id")
    yield "description", raw.get("description")
    yield "host", f"{raw.get('host')}:{raw.get('port')}"
    yield "owner", raw.get("owner")
    yield "runs jobs as", raw.get("effectiveUserId")
    yield "enabled", "no" if raw.get("enabled") is False else "yes"
    yield "scheduler", raw.get("batchScheduler")
    yield "runtimes", ", ".join(str(runtime.get("runtimeType")) for runtime in raw.get("jobRuntimes") or ())
    yield "directory", f"{raw.get('rootDir') or ''} {raw.get('jobWorkingDir') or ''}".strip()
    yield "default queue", raw.get("batchDefaultLogicalQueue")
    yield "profile", raw.get("batchSchedulerProfile")


def _limit(value: Any, shown: Any = str) -> str:
    return "-" if value in (None, UNLIMITED) else str(shown(value))
