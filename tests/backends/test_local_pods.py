"""Pods on this machine beyond the contract: real containers, doors that are killed, nodes without namespaces."""

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from backends.beside import Commands, Completed
from backends.local import backend as local_backend
from backends.local.backend import LocalBackend, launcher_here
from backends.local.commands import LocalCommands, account_for
from scheduler.model.errors import NothingLearnt, PortClosed, SpecInvalid, SubmitError
from scheduler.model.ids import Marker, RemoteId, marker_for, new_job_uuid
from scheduler.model.runs import Ending, RemoteState, Resources, Runtime
from tests.contract.local import RUN_AS, local_system, unprivileged_directory
from tests.contract.pods import LocalPods, door_file
from tests.contract.subjects import eventually
from tests.contract.test_pod_host import line, rest, started
from tests.fakes.images import directory, file, oci_image, symlink

PORT = 7001
SERVE = 'trap "echo asked; exit 0" TERM; httpd -p 127.0.0.1:7001 -h /srv & while :; do sleep 0.1; done'


@pytest_asyncio.fixture
async def subject(tmp_path) -> AsyncIterator[LocalPods]:
    with unprivileged_directory() as work:
        subject = LocalPods(work, tmp_path / "state")
        try:
            yield subject
        finally:
            await subject.end_pods()


@pytest.fixture
def marker() -> Marker:
    return marker_for(new_job_uuid(), 1)


def in_bubblewrap(subject: LocalPods, marker: Marker, monkeypatch):
    """A pod of busybox in a container of its own."""
    monkeypatch.setitem(local_backend._PROGRAMS, local_backend.Launcher.APPTAINER, ())
    assert shutil.which("bwrap"), "bubblewrap is missing: apt install bubblewrap"
    busybox = Path("/bin/busybox")
    assert busybox.exists(), "busybox is missing: apt install busybox-static"
    tools = [symlink(f"bin/{name}", "busybox") for name in ("sh", "cat", "httpd", "sleep")]
    layer = [directory("bin"), file("bin/busybox", busybox.read_bytes(), 0o755), *tools]
    layer += [directory("run"), directory("srv"), file("srv/index.html", b"welcome")]
    image = oci_image(
        subject.work / "image", layer, Entrypoint=["/bin/sh", "-c", SERVE], Env=["COLOUR=green", "PATH=/bin"]
    )
    intent = subject.pod(marker)
    run = replace(intent.run, image=f"oci:{image}", runtime=Runtime.SINGULARITY, args=(), ports=(PORT,))
    subject.backend = LocalBackend(
        local_system(subject.work), subject.state_dir, owner="ann", images_dir=subject.work / "images"
    )
    return replace(intent, run=run)


async def running(subject: LocalPods, intent) -> RemoteId:
    remote_id = (await subject.backend.submit([intent]))[intent.marker]
    assert not isinstance(remote_id, SubmitError), remote_id

    async def answers() -> bool:
        seen = (await subject.backend.observe({remote_id: intent.marker}))[remote_id]
        assert seen.state is not RemoteState.ENDED, "the pod ended by itself"
        try:
            await (await subject.host.connect(remote_id, intent.marker, PORT)).aclose()
        except (PortClosed, NothingLearnt):
            return False
        return True

    await eventually(answers, "the container answers", timeout_s=60)
    return remote_id


def processes_of(marker: Marker) -> list[int]:
    """Every process with the marker in its words, the oldest first."""
    return sorted(int(folder.name) for folder in Path("/proc").glob("[0-9]*") if marker in words_of(folder.name))


def is_there(path: Path) -> bool:
    return os.path.lexists(path)


def words_of(pid: int | str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


async def ended(subject: LocalPods, remote_id: RemoteId, marker: Marker):
    seen: dict = {}

    async def has_ended() -> bool:
        seen.update(await subject.backend.observe({remote_id: marker}))
        return seen[remote_id].state is RemoteState.ENDED

    await eventually(has_ended, "the pod ends", timeout_s=60)
    return seen[remote_id]


async def test_a_container_answers_and_runs_commands_with_its_own_files_and_environment(subject, marker, monkeypatch):
    remote_id = await running(subject, in_bubblewrap(subject, marker, monkeypatch))
    channel = await subject.host.connect(remote_id, marker, PORT)
    await channel.write(b"GET /index.html HTTP/1.0\r\n\r\n")
    assert (await rest(channel)).endswith(b"welcome")
    await channel.aclose()
    argv = ["sh", "-c", 'echo $COLOUR; cat /srv/index.html; [ -e /usr ] || echo ": no host"; echo $$ >&2']
    done = await subject.host.execute(remote_id, marker, argv, timeout_s=20)
    assert (done.exit_code, done.stdout) == (0, b"green\nwelcome: no host\n"), done
    assert int(done.stderr) < 100, "it is in the container's own process namespace"
    argv = ["sh", "-c", "for each in tmp run srv; do (echo > /$each/x) 2> /dev/null && echo $each; done"]
    done = await subject.host.execute(remote_id, marker, argv, timeout_s=20)
    assert done.stdout == b"tmp\nrun\n", "servers keep their sockets there; the image is not theirs to change"


async def test_the_connection_to_a_port_of_this_machine_is_the_pods_own(subject, marker, monkeypatch):
    remote_id = await running(subject, in_bubblewrap(subject, marker, monkeypatch))
    channel = await subject.host.connect(remote_id, marker, PORT)
    assert channel.socket.getpeername() == ("127.0.0.1", PORT)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", PORT))
    await channel.aclose()


async def test_what_a_container_runs_is_asked_to_end_before_it_is_ended(subject, marker, monkeypatch):
    remote_id = await running(subject, in_bubblewrap(subject, marker, monkeypatch))
    await subject.backend.cancel(remote_id, marker)
    assert (await ended(subject, remote_id, marker)).ending is Ending.CANCELLED
    assert (await subject.backend.read_log(remote_id, subject.log_path(marker), 0)).data == b"asked\n"


async def test_a_door_that_is_killed_takes_its_pod_with_it(subject, marker, monkeypatch):
    remote_id = await running(subject, in_bubblewrap(subject, marker, monkeypatch))
    door = door_file(subject.marker_dir(marker))
    os.kill(next(pid for pid in processes_of(marker) if "door.py" in words_of(pid)), signal.SIGKILL)
    seen = await ended(subject, remote_id, marker)
    assert (seen.ending, seen.exit_code) == (Ending.FAILED, 137)
    assert processes_of(marker) == []
    with pytest.raises(PortClosed):
        await subject.host.connect(remote_id, marker, PORT)
    shutil.rmtree(Path(door["socket"]).parent)  # what it could not remove itself


async def test_a_door_that_ends_leaves_no_socket_behind(subject, marker):
    remote_id = await started(subject, marker)
    door = Path(door_file(subject.marker_dir(marker))["socket"])
    assert is_there(door)
    await subject.backend.cancel(remote_id, marker)
    await ended(subject, remote_id, marker)
    assert not is_there(door.parent)


async def test_sockets_of_doors_that_were_killed_are_removed_by_the_next(subject, marker):
    first = await started(subject, marker)
    door = Path(door_file(subject.marker_dir(marker))["socket"])
    for sign in (signal.SIGSTOP, signal.SIGKILL):  # or a door that sees its pod die would clean up before its turn
        for pid in processes_of(marker):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
    await ended(subject, first, marker)
    assert is_there(door)
    os.utime(door.parent, (time.time() - 3600,) * 2)
    await started(subject, marker_for(new_job_uuid(), 1))
    assert not is_there(door)


async def test_the_walltime_ends_a_pod(subject, marker):
    intent = subject.pod(marker)
    intent = replace(intent, run=replace(intent.run, resources=Resources(walltime_s=2)))
    remote_id = (await subject.backend.submit([intent]))[marker]
    assert (await ended(subject, remote_id, marker)).ending is Ending.TIMEOUT


class WithoutNamespaces:
    """Commands on this machine as one where no user may make namespaces."""

    def __init__(self, inner: Commands) -> None:
        self._inner = inner

    async def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
        return await self._inner.run(["unshare", "-r", "sh", "-c", forbid, "sh", *argv], stdin, timeout_s)


def without_namespaces(subject: LocalPods, **notes) -> None:
    commands = WithoutNamespaces(LocalCommands(account_for(RUN_AS)))
    system = local_system(subject.work, **notes)
    subject.backend = LocalBackend(system, subject.state_dir, owner="ann", commands=commands)


async def test_a_node_without_namespaces_refuses_a_pod_and_says_why(subject, marker):
    without_namespaces(subject)
    remote_id = (await subject.backend.submit([subject.pod(marker)]))[marker]
    seen = await ended(subject, remote_id, marker)
    assert (seen.ending, seen.exit_code) == (Ending.FAILED, 127)
    look = (await subject.host.look({remote_id: marker}))[remote_id]
    assert look.phase == "Ended"
    assert "lets no user make namespaces" in look.reason
    with pytest.raises(PortClosed, match="lets no user make namespaces"):
        await subject.host.connect(remote_id, marker, PORT)
    log = await subject.backend.read_log(remote_id, subject.log_path(marker).replace(".out", ".err"), 0)
    assert b"notes.berth.pods.sharedNetwork" in log.data


async def test_a_system_may_let_pods_share_the_nodes_network(subject, marker):
    without_namespaces(subject, pods={"sharedNetwork": True})
    with socket.create_server(("127.0.0.1", 0)) as lent:
        free = lent.getsockname()[1]
    intent = subject.pod(marker)
    args = (*intent.run.args[:5], str(free))
    intent = replace(intent, run=replace(intent.run, args=args, ports=(free,)))
    remote_id = (await subject.backend.submit([intent]))[marker]

    async def is_ready() -> bool:
        seen = await subject.host.look({remote_id: marker})
        return remote_id in seen and seen[remote_id].is_ready

    await eventually(is_ready, "the pod listens")
    assert (await subject.host.look({remote_id: marker}))[remote_id].details["network"] == "shared with the node"
    channel = await subject.host.connect(remote_id, marker, free)
    assert (await line(channel)).endswith(b"port %d\n" % free)
    await channel.aclose()


def test_a_launcher_that_brings_its_own_namespaces_is_refused(monkeypatch):
    monkeypatch.setattr("backends.local.backend.shutil.which", lambda name: {"podman": "/usr/bin/podman"}.get(name))
    assert launcher_here(Runtime.DOCKER).value == "podman"
    with pytest.raises(SpecInvalid, match="bubblewrap skopeo"):
        launcher_here(Runtime.DOCKER, for_pod=True)
