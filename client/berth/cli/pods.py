"""Commands about pods: pods create, ls, show, url, open, logs, exec, start, stop, restart, rm, credentials."""

from __future__ import annotations

import json
import time
import webbrowser
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from berth.cli import pod_templates, pod_volumes
from berth.cli.connect import connect
from berth.cli.render import Column, Format, Output, print_list, print_one, safe, say
from berth.errors import ExitCode, InvalidInput, UsageError
from berth.records import Raw
from berth.units import parse_time_s

if TYPE_CHECKING:
    from berth.client import Client

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
app.add_typer(pod_volumes.app, name="volumes")
app.add_typer(pod_templates.app, name="templates")

PodArgument = Annotated[str, typer.Argument(metavar="POD", help="The pod's id.")]
WaitOption = Annotated[bool, typer.Option("--wait", "-w", help="End when it is done, showing how far it is.")]
TimeoutOption = Annotated[str | None, typer.Option("--timeout", help="Wait no longer than this, as 10 or 1h30m.")]

HTTPS_PORT = 443

FOLLOW_S = 2.0
"""Between two looks at a log that is followed."""


@app.callback()
def main() -> None:
    """Long-lived containers with addresses: databases, notebooks, services."""


@app.command()
def create(
    pod_id: Annotated[str, typer.Argument(metavar="POD", help="3 to 64 lower-case letters and digits.")],
    image: Annotated[str | None, typer.Option("--image", help="The image to run, as redis:7.")] = None,
    template: Annotated[str | None, typer.Option("--template", "-t", help="NAME, NAME:TAG or NAME:TAG@TIME.")] = None,
    port: Annotated[
        list[str] | None,
        typer.Option("--port", "-p", help="[NET=]PORT[/http|tcp|postgres|local_only]; may be repeated."),
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE; may be repeated.")] = None,
    volume: Annotated[list[str] | None, typer.Option("--volume", "-v", help="VOLUME:PATH; may be repeated.")] = None,
    where: Annotated[
        str | None, typer.Option("--system", "-s", help="SYSTEM or SYSTEM.QUEUE; Berth chooses when left out.")
    ] = None,
    description: Annotated[str, typer.Option("--description", help="For people.")] = "",
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A JSON file in the words of the Pods API.")] = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a pod and start it.

    \b
    Examples:
      berth pods create mydb --template postgres --wait
      berth pods create web --image docker.io/library/nginx --port 80/http
      berth pods create cache --image redis:7 --port 6379/tcp --volume data:/data
    """
    timeout_s = _timeout_s(timeout)
    body = _file(file) if file else {}
    body["pod_id"] = pod_id
    given = {"image": image, "template": template, "compute_queue": where, "description": description}
    body |= {name: value for name, value in given.items() if value}
    if port:
        body["networking"] = dict(_net(text) for text in port)
    if env:
        body["environment_variables"] = dict(_pair(text, "=", "--env", "NAME=VALUE") for text in env)
    if volume:
        mounts = (_pair(text, ":", "--volume", "VOLUME:PATH") for text in volume)
        body["volume_mounts"] = {name: {"type": "tapisvolume", "mount_path": path} for name, path in mounts}
    with connect() as client:
        pod = client.pods.create(body)
        if wait or timeout_s is not None:
            pod = _await(client, pod_id, frozenset({"AVAILABLE"}), timeout_s)
    _print(pod, output)


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List the pods that you may see.

    \b
    Examples:
      berth pods ls
      berth pods ls -o json
    """
    with connect() as client:
        found = client.pods.list()
    print_list("Pod", found, COLUMNS, _id, output, "no pods")


@app.command()
def show(pod_id: PodArgument, output: Output = Format.TABLE) -> None:
    """Show one pod: how it stands, where, and how it is reached.

    \b
    Examples:
      berth pods show mydb
    """
    with connect() as client:
        _print(client.pods.get(pod_id), output)


@app.command()
def url(
    pod_id: PodArgument,
    net: Annotated[str, typer.Option("--net", help="Which of its ports, by name.")] = "default",
) -> None:
    """Print the address of a pod.

    \b
    Examples:
      berth pods url web
      psql "$(berth pods url mydb)" -U mydb
    """
    with connect() as client:
        print(safe(_address(_net_of(client.pods.get(pod_id), net))))


@app.command("open")
def open_(
    pod_id: PodArgument,
    net: Annotated[str, typer.Option("--net", help="Which of its ports, by name.")] = "default",
) -> None:
    """Open a pod's page in the browser.

    \b
    Examples:
      berth pods open notebook
    """
    with connect() as client:
        found = _net_of(client.pods.get(pod_id), net)
    if found.get("protocol") != "http":
        raise UsageError(f"'{net}' of {pod_id} speaks {found.get('protocol')}, which no browser does", "berth pods url")
    address = _address(found)
    say(address)
    if not webbrowser.open(address):
        raise UsageError("there is no browser here", f"open {address}")


@app.command()
def logs(
    pod_id: PodArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it rests.")] = False,
    actions: Annotated[
        bool, typer.Option("--actions", help="What Berth did with it, in place of what it wrote.")
    ] = False,
) -> None:
    """Print what a pod wrote, the newest 10 MB.

    \b
    Examples:
      berth pods logs mydb
      berth pods logs -f web
      berth pods logs --actions mydb
    """
    with connect() as client:
        shown = ""
        while True:
            ended = not follow or client.pods.get(pod_id)["status"] in ("STOPPED", "COMPLETE", "ERROR")
            found = client.pods.logs(pod_id)  # after its status: what it wrote last is in it
            text = "\n".join(found["action_logs"]) + "\n" if actions else str(found["logs"])
            print(_unseen(shown, text), end="", flush=True)
            shown = text
            if ended:
                return
            time.sleep(FOLLOW_S)


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def exec_(
    pod_id: PodArgument,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="What to run inside, with its words.")],
    timeout: TimeoutOption = None,
) -> None:
    """Run a command inside a pod; its exit code is that of berth, beyond 0 as 1.

    \b
    Examples:
      berth pods exec mydb psql -c 'select 1'
      berth pods exec --timeout 10 web ls /www
    """
    with connect() as client:
        done = client.pods.execute(pod_id, command, timeout_s=_timeout_s(timeout) or 60.0)
    print(done.get("stdout") or "", end="")
    typer.echo(done.get("stderr") or "", nl=False, err=True)
    if done.get("exit_code") != 0:
        if done.get("message"):
            say(f"berth: {done['message']}")
        raise typer.Exit(ExitCode.JOB_FAILED)


@app.command()
def start(pod_id: PodArgument, wait: WaitOption = False, timeout: TimeoutOption = None) -> None:
    """Start a pod that rests.

    \b
    Examples:
      berth pods start --wait mydb
    """
    _want(lambda client: client.pods.start(pod_id), pod_id, frozenset({"AVAILABLE"}), wait, timeout)


@app.command()
def stop(pod_id: PodArgument, wait: WaitOption = False, timeout: TimeoutOption = None) -> None:
    """Stop a pod; it stays, to be started again.

    \b
    Examples:
      berth pods stop mydb
    """
    _want(lambda client: client.pods.stop(pod_id), pod_id, frozenset({"STOPPED"}), wait, timeout)


@app.command()
def restart(
    pod_id: PodArgument,
    newest_template: Annotated[bool, typer.Option("--newest-template", help="With its template's newest tag.")] = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
) -> None:
    """Stop a pod and start it again.

    \b
    Examples:
      berth pods restart web
      berth pods restart --newest-template mydb
    """

    def again(client: Client) -> Raw:
        return client.pods.restart(pod_id, newest_template=newest_template)

    _want(again, pod_id, frozenset({"AVAILABLE"}), wait, timeout)


@app.command()
def rm(pods: Annotated[list[str], typer.Argument(metavar="POD...", help="The pods' ids.")]) -> None:
    """End pods and forget them; their volumes stay.

    \b
    Examples:
      berth pods rm web cache
    """
    with connect() as client:
        for pod_id in pods:
            client.pods.remove(pod_id)
            say(f"{pod_id} is being ended")


@app.command()
def credentials(pod_id: PodArgument, output: Output = Format.TABLE) -> None:
    """Show the user and the password of the software in a pod.

    \b
    Examples:
      berth pods credentials mydb
    """
    with connect() as client:
        found = client.pods.credentials(pod_id)
    rows = [("user", found["user_username"]), ("password", found["user_password"])]
    print_one("PodCredentials", found, rows, str(found["user_username"]), output)


# -- below ---------------------------------------------------------------------------------------------------------


def _want(ask: Callable[[Client], Raw], pod_id: str, wanted: frozenset[str], wait: bool, timeout: str | None) -> None:
    timeout_s = _timeout_s(timeout)
    with connect() as client:
        pod = ask(client)
        if wait or timeout_s is not None:
            pod = _await(client, pod_id, wanted, timeout_s)
    say(f"{pod_id} is {pod['status']}")


def _await(client: Client, pod_id: str, wanted: frozenset[str], timeout_s: float | None) -> Raw:
    """The pod as it was wanted; what is said meanwhile is each new status, and each new reason for it, as of an image
    that cannot be fetched. Exit code 1 when it rests otherwise."""
    seen = ""

    def tell(pod: Raw) -> None:
        nonlocal seen
        standing = _standing(pod)
        if standing != seen and pod["status"] not in wanted:
            say(f"{pod_id} is {standing}")
        seen = standing

    pod = client.pods.wait(pod_id, wanted, timeout_s=timeout_s, on_change=tell)
    if pod["status"] not in wanted:
        say(f"berth: {pod_id} is {_standing(pod)}; see: berth pods logs --actions {pod_id}")
        raise typer.Exit(ExitCode.JOB_FAILED)
    return pod


def _print(pod: Raw, output: Format) -> None:
    print_one("Pod", pod, _rows(pod), _id(pod), output)


def _rows(pod: Raw) -> Iterable[tuple[str, Any]]:
    yield "pod", pod.get("pod_id")
    yield "status", pod.get("status")
    yield "message", pod.get("status_message")
    yield "wanted", pod.get("status_requested")
    yield "description", pod.get("description")
    yield "template", pod.get("template")
    yield "image", pod.get("image")
    for name, net in (pod.get("networking") or {}).items():
        address = _address(net) if net.get("url") else "(inside only)"
        yield f"port {net.get('port')}", f"{net.get('protocol')} {address} ({name})"
    yield "volumes", ", ".join(str(name) for name in pod.get("volume_mounts") or ())
    yield "where", pod.get("compute_queue")
    yield "container", ", ".join(f"{name}={value}" for name, value in (pod.get("status_container") or {}).items())
    yield "created", pod.get("creation_ts")
    yield "stops", pod.get("time_to_stop_ts")


def _id(pod: Raw) -> str:
    return str(pod.get("pod_id"))


def _addresses(pod: Raw) -> str:
    return " ".join(_address(net) for net in (pod.get("networking") or {}).values() if net.get("url"))


def _address(net: Mapping[str, Any]) -> str:
    """What a client of the net's protocol takes: a URL where there is one for it, else host and port."""
    host, port = str(net.get("url")), int(net.get("url_port") or HTTPS_PORT)
    match net.get("protocol"):
        case "http":
            return f"https://{host}" + (f":{port}" if port != HTTPS_PORT else "")
        case "postgres":
            return f"postgresql://{host}:{port}/?sslmode=require"
        case _:
            return f"{host}:{port}"


def _standing(pod: Raw) -> str:
    """The status, with why it is so where that is told."""
    return f"{pod['status']}: {pod['status_message']}" if pod.get("status_message") else str(pod["status"])


COLUMNS = (
    Column("ID", _id),
    Column("STATUS", lambda pod: str(pod.get("status"))),
    Column("FROM", lambda pod: str(pod.get("template") or pod.get("image") or "-")),
    Column("ADDRESS", _addresses),
)


def _net_of(pod: Raw, net: str) -> Mapping[str, Any]:
    nets = pod.get("networking") or {}
    if not (nets.get(net) or {}).get("url"):
        known = ", ".join(name for name, each in nets.items() if each.get("url"))
        raise UsageError(f"{pod.get('pod_id')} has no address '{net}'", f"it has: {known}" if known else "")
    return dict(nets[net])


def _unseen(shown: str, text: str) -> str:
    """What of a log was not shown yet; all of it where it does not go on from there.

    It grows in two places, since standard error follows standard output: what is new of that comes before what of the
    other was shown.
    """
    if text.startswith(shown):
        return text[len(shown) :]
    same = bisect_left(range(len(shown)), True, key=lambda size: not text.startswith(shown[: size + 1]))
    line = text.rfind("\n", 0, same) + 1
    for at, begin in ((line, "\n"), (same, "")):  # where a line begins; else within one that had not ended
        if (found := text.find(begin + shown[at:], max(at - len(begin), 0))) >= 0:
            again = found + len(begin)
            return text[at:again] + text[again + len(shown) - at :]
    tail = shown[-1000:]
    _, found, rest = text.rpartition(tail)
    return rest if found else text


def _net(text: str) -> tuple[str, Mapping[str, Any]]:
    name, _, rest = text.rpartition("=")
    port, _, protocol = rest.partition("/")
    if not port.isdecimal():
        raise UsageError(f"--port {text}: '{port}' is no port", "write [NET=]PORT[/PROTOCOL], as 5432/postgres")
    return name or "default", {"protocol": protocol or "http", "port": int(port)}


def _pair(text: str, between: str, option: str, form: str) -> tuple[str, str]:
    name, found, value = text.partition(between)
    if not found or not name:
        raise UsageError(f"{option} {text}: not of the form {form}", f"write {option} {form}")
    return name, value


def _file(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read {file}: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{file}: not an object")
    return found


def _timeout_s(text: str | None) -> float | None:
    return None if text is None else float(parse_time_s(text))
