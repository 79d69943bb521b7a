"""Files on a Kubernetes' volume: the contract of Storage on a real node, and what a volume changes for runs."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from backends.k8s.api import Api
from backends.k8s.backend import KubernetesBackend
from backends.k8s.site import Access, site_of
from backends.k8s.storage import VolumeStorage
from backends.k8s.volume import FILES, VolumePod
from scheduler.model.errors import BackendUnavailable, FileRefused, SubmitError, UnexpectedReply
from scheduler.model.ids import Marker, RemoteId, marker_for, new_job_uuid
from scheduler.model.runs import Ending, Observation, RemoteState, StagedFile, StagePlan, SubmitIntent
from testbed.host import wait_until
from testbed.k8s.client import client
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.node import Node
from tests.contract.subjects import INTENDED_AT, eventually, run_spec
from tests.contract.test_storage import *  # noqa: F403 - the contract, on another subject
from tests.contract.test_storage import content
from tests.testbed.k8s_subject import Link, let_all_go
from tests.testbed.k8s_volume import CLAIM, claimed_volume, with_volume
from tests.testbed.kubernetes import made, own_namespace

pytestmark = pytest.mark.testbed

# The helper's image holds busybox alone; that such a program is refused in words is shown below.
del test_a_program_reads_all_that_it_is_given  # noqa: F821
del test_neither_a_program_nor_its_request_is_on_a_command_line  # noqa: F821
del test_a_program_need_not_read_what_it_is_given  # noqa: F821
del test_a_program_that_ends_badly_taught_nothing_and_the_next_one_is_run  # noqa: F821


@dataclass(frozen=True)
class Place:
    """A namespace with a volume, whose directory is at hand, and a way to the API server that can be cut."""

    plane: ControlPlane
    admin: httpx.Client
    namespace: str
    folder: Path
    link: Link
    port: int

    def access(self, server: str = "") -> Access:
        return Access(server or self.plane.url, self.plane.token(), self.plane.ca.read_text())

    def opened(self, server: str = "") -> VolumeStorage:
        """One more storage of the same volume, as another process would have it."""
        access = self.access(server)
        site = site_of(with_volume(self.plane, self.namespace))
        return VolumeStorage(VolumePod(Api(access, self.namespace), access, site, CLAIM))

    def pods(self) -> list[str]:
        """The ids of the pods through which files are reached."""
        path, query = f"/api/v1/namespaces/{self.namespace}/pods", {"labelSelector": FILES}
        return [pod["metadata"]["uid"] for pod in made(self.admin.get(path, params=query))["items"]]

    def end_the_pod(self) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        made(self.admin.request("DELETE", path, params={"labelSelector": FILES, "gracePeriodSeconds": "1"}))
        wait_until(lambda: not self.pods(), "the pod ends", timeout_s=120)


@dataclass(frozen=True)
class Volume:
    """Its files, and a backend whose runs have it."""

    place: Place
    storage: VolumeStorage
    backend: KubernetesBackend
    outside: str = "/bin/busybox"

    def plant_link(self, path: str, target: str) -> None:
        (self.place.folder / path).symlink_to(target)

    def run(self, marker: Marker, script: str) -> SubmitIntent:
        image = f"docker://{Node(self.place.plane).registry}/demo/busybox:1"
        run = run_spec("/work", marker, image=image, args=("sh", "-c", script), use_entrypoint=False)
        return SubmitIntent(marker, run, INTENDED_AT)

    async def started(self, intent: SubmitIntent) -> RemoteId:
        """Stage a run and submit it, as the reconciler does."""
        run = intent.run
        directories = (run.exec_dir, run.input_dir, run.output_dir)
        assert (await self.backend.stage(StagePlan(marker=intent.marker, directories=directories))).done
        remote_id = (await self.backend.submit([intent]))[intent.marker]
        assert not isinstance(remote_id, SubmitError), remote_id
        return remote_id

    async def ended(self, intent: SubmitIntent, remote_id: RemoteId) -> Observation:
        seen: dict[RemoteId, Observation] = {}

        async def has_ended() -> bool:
            seen.update(await self.backend.observe({remote_id: intent.marker}))
            return remote_id in seen and seen[remote_id].state is RemoteState.ENDED

        await eventually(has_ended, f"{intent.marker} ends", timeout_s=60)
        return seen[remote_id]


@pytest.fixture(scope="module")
def place(real_node_cluster: ControlPlane) -> Iterator[tuple[ControlPlane, httpx.Client, str, Path]]:
    with (
        client(real_node_cluster) as admin,
        own_namespace(real_node_cluster, admin) as namespace,
        claimed_volume(real_node_cluster, admin, namespace) as folder,
    ):
        yield real_node_cluster, admin, namespace, folder
        let_all_go(admin, namespace)


@pytest_asyncio.fixture
async def subject(place: tuple[ControlPlane, httpx.Client, str, Path]) -> AsyncIterator[Volume]:
    plane, admin, namespace, folder = place
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
    link = Link(plane.spec.ports["kube-apiserver"])
    async with link.up() as port:
        place = Place(plane, admin, namespace, folder, link, port)
        storage, system = place.opened(), with_volume(plane, namespace)
        backend = KubernetesBackend(system, Api(place.access(), namespace), files=place.opened())
        try:
            yield Volume(place, storage, backend)
        finally:
            await backend.aclose()
            await storage.aclose()


@pytest.fixture
def marker() -> Marker:
    return marker_for(new_job_uuid(), 1)


async def parts(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def left_over(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.name.startswith(".berth")]


async def test_what_needs_python_is_refused_where_the_helper_has_none(subject):
    with pytest.raises(UnexpectedReply, match="no python3"):
        await subject.storage.run_beside(b"print(1)", b"")


async def test_a_name_may_hold_anything_but_a_slash(subject):
    names = ["-rf", "two\nlines", "$(id)", "'\"", "ü ", "81a4", ".", "./."]
    for name in names[:6]:
        await subject.storage.write(f"d/{name}", parts(name.encode()))
        assert await content(subject.storage, f"d/{name}") == name.encode()
    assert [entry.name for entry in await subject.storage.list("d")] == sorted(names[:6])
    assert {entry.name for entry in await subject.storage.list(names[7])} == {"d"}


async def test_two_processes_share_one_pod_and_one_that_has_ended_is_made_again(subject):
    other = subject.place.opened()
    await asyncio.gather(*(each.write(f"{n}", parts(b"x")) for n, each in enumerate((subject.storage, other))))
    (first,) = subject.place.pods()
    await asyncio.to_thread(subject.place.end_the_pod)
    await asyncio.gather(*(each.stat("0") for each in (subject.storage, other)))
    (second,) = subject.place.pods()
    assert second != first
    await other.aclose()


async def test_an_upload_that_is_cut_leaves_what_was_there_and_succeeds_when_tried_again(subject):
    through = subject.place.opened(f"https://127.0.0.1:{subject.place.port}")
    await through.write("a", parts(b"before"))

    async def cut_midway() -> AsyncIterator[bytes]:
        yield bytes(3 << 20)
        subject.place.link.cut()
        yield bytes(3 << 20)

    with pytest.raises(BackendUnavailable):
        await through.write("a", cut_midway())
    with pytest.raises(BackendUnavailable):
        await through.stat("a")
    assert await content(subject.storage, "a") == b"before"

    async def nothing_left() -> bool:
        return left_over(subject.place.folder) == []

    await eventually(nothing_left, "the half file goes")
    subject.place.link.is_cut = False
    assert await through.write("a", parts(b"after")) == 5
    assert await content(through, "a") == b"after"
    await through.aclose()


async def test_a_download_that_is_cut_is_never_taken_for_the_whole(subject):
    through = subject.place.opened(f"https://127.0.0.1:{subject.place.port}")
    await through.write("a", parts(bytes(16 << 20)))
    with pytest.raises(BackendUnavailable):
        async for _ in through.read("a"):
            subject.place.link.cut()
    await through.aclose()


async def test_what_the_volume_refuses_is_said_in_its_own_words(subject):
    os.mkfifo(subject.place.folder / "pipe")
    with pytest.raises(FileRefused, match="not a file"):  # and nobody waits for a writer
        await content(subject.storage, "pipe")
    subject.place.folder.chmod(0o555)
    try:
        with pytest.raises(FileRefused, match="Permission denied"):
            await subject.storage.write("new", parts(bytes(8 << 20)))
    finally:
        subject.place.folder.chmod(0o755)
    assert left_over(subject.place.folder) == []


async def test_a_run_finds_its_inputs_and_leaves_its_outputs(subject, marker):
    intent = subject.run(marker, "cat /TapisInput/note > /TapisOutput/copy; echo said; echo wrong >&2")
    await subject.storage.write(f"jobs/{marker}/note", parts(b"staged"))
    remote_id = await subject.started(intent)
    assert (await subject.ended(intent, remote_id)).ending is Ending.COMPLETED
    assert await content(subject.storage, f"jobs/{marker}/output/copy") == b"staged"
    assert sorted((await content(subject.storage, f"jobs/{marker}/output/tapisjob.out")).splitlines()) == [
        b"said",
        b"wrong",
    ]


async def test_what_a_run_wrote_outlives_its_pod_and_is_read_by_offset(subject, marker):
    intent = subject.run(marker, "echo begun; exec sleep 600")
    remote_id = await subject.started(intent)
    path = f"{intent.run.output_dir}/tapisjob.out"

    async def wrote() -> bool:
        return (await subject.backend.read_log(remote_id, path, 0)).data == b"begun\n"

    await eventually(wrote, "the run writes", timeout_s=60)
    assert await subject.backend.cancel(remote_id, marker) is True
    assert (await subject.ended(intent, remote_id)).ending is Ending.CANCELLED
    assert (await subject.backend.read_log(remote_id, path, 2)).data == b"gun\n"


async def test_a_log_of_another_run_is_neither_read_nor_replaced_by_way_of_a_link(subject, marker):
    (subject.place.folder / "another").mkdir()
    (subject.place.folder / "another/tapisjob.out").write_text("of another\n")
    intent = subject.run(marker, "echo mine; rm -r /TapisExec/output && ln -s ../../another /TapisExec/output")
    path = f"{intent.run.output_dir}/{intent.run.stdout}"
    assert intent.run.output_dir == f"{intent.run.exec_dir}/output"
    remote_id = await subject.started(intent)
    await subject.ended(intent, remote_id)
    assert (subject.place.folder / f"jobs/{marker}/output").is_symlink()
    assert b"of another" not in (await subject.backend.read_log(remote_id, path, 0)).data
    assert (subject.place.folder / "another/tapisjob.out").read_text() == "of another\n"


async def test_staging_puts_directories_and_files_in_place_and_may_be_repeated(subject, marker):
    base = f"/work/jobs/{marker}"
    plan = StagePlan(marker=marker, directories=(f"{base}/deep/er",), files=(StagedFile(f"{base}/note", b"a\0b\n"),))
    for _ in range(2):
        assert (await subject.backend.stage(plan)).done
    assert await content(subject.storage, f"jobs/{marker}/note") == b"a\0b\n"
    assert (subject.place.folder / f"jobs/{marker}/deep/er").is_dir()
    assert ((subject.place.folder / f"jobs/{marker}/note").stat().st_mode & 0o777) == 0o600
