"""Outputs and logs over HTTP."""

import asyncio
import io
import json
import tarfile
import zipfile
from dataclasses import replace

import pytest

from scheduler.model.ids import marker_for
from scheduler.store.systems import CredentialStore, SystemStore
from tests.api.world import World


async def finished(world: World, **changes) -> str:
    uuid = (await world.submit(**changes))["uuid"]
    job = await world.start(uuid)
    files = world.connections.systems["alder"].files
    files.put(f"/{job.place.output_dir}/data/a.bin", bytes(range(256)) * 10)
    files.put(f"/{job.place.output_dir}/empty.txt", b"")
    await world.end(uuid, b"hello\n")
    return uuid


@pytest.mark.parametrize("path", ["", "/", "//", "."])
async def test_every_spelling_of_the_root_lists_the_output(world: World, path):
    uuid = await finished(world)
    files = await world.get(f"/v3/jobs/{uuid}/output/list/{path}")
    assert {file["name"]: file["type"] for file in files} == {
        "data": "dir",
        "empty.txt": "file",
        "tapisjob.exitcode": "file",
        "tapisjob.out": "file",
    }
    (log,) = [file for file in files if file["name"] == "tapisjob.out"]
    assert (log["size"], log["mimeType"]) == (6, None)
    assert log["url"] == f"tapis://alder/{log['path']}"


async def test_where_users_share_an_account_no_link_shows_what_another_user_wrote(world: World):
    uuid = (await world.submit())["uuid"]
    job = await world.start(uuid)
    files = world.connections.systems["alder"].files
    there, here = "/work/jobs/another/output", f"/{job.place.output_dir.strip('/')}"
    files.put(f"{there}/secret", b"of another")
    files.put(f"{here}/a", b"mine")
    for name, leads_to in {"inside": f"{here}/a", "file": f"{there}/secret", "folder": there}.items():
        files.link(f"{here}/{name}", leads_to)
    await world.end(uuid, b"hello\n")
    async with world.database.transaction() as db:
        system = await SystemStore(db).get("dev", "alder")
        await SystemStore(db).replace(replace(system, effective_user_id="shared"))
    assert (await world.call("GET", f"/v3/jobs/{uuid}/output/download/a")).content == b"mine"
    assert (await world.call("GET", f"/v3/jobs/{uuid}/output/download/inside")).content == b"mine"
    for path in ("download/file", "download/folder/secret", "list/folder", "download/folder"):
        refused = await world.call("GET", f"/v3/jobs/{uuid}/output/{path}")
        assert 400 <= refused.status_code < 500, (path, refused.text)
    packed = (await world.call("GET", f"/v3/jobs/{uuid}/output/download")).content
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert all(b"of another" not in archive.read(name) for name in archive.namelist())


async def test_where_users_share_an_account_the_log_of_a_running_job_is_no_link_either(world: World):
    async with world.database.transaction() as db:
        system = await SystemStore(db).get("dev", "alder")
        await SystemStore(db).replace(replace(system, effective_user_id="shared"))
        holder = await CredentialStore(db).get("dev", "alder", "ada")
        await CredentialStore(db).put(replace(holder, user="shared"))
    uuid = (await world.submit())["uuid"]
    job = await world.start(uuid, b"mine\n")
    assert (await world.get(f"/v3/jobs/{uuid}/logs"))["data"] == "mine\n"
    assert (await world.get(f"/v3/jobs/{uuid}/logs?stream=stderr"))["data"] == ""
    files = world.connections.systems["alder"].files
    files.put("/work/jobs/another/secret", b"of another")
    log = f"/{job.place.output_dir.strip('/')}/{job.spec.stdout}"
    files.nodes.pop(log)
    files.link(log, "/work/jobs/another/secret")
    refused = await world.call("GET", f"/v3/jobs/{uuid}/logs")
    assert 400 <= refused.status_code < 500, refused.text


async def test_a_file_comes_as_it_is(world: World):
    uuid = await finished(world)
    response = await world.call("GET", f"/v3/jobs/{uuid}/output/download/data/a.bin")
    assert response.content == bytes(range(256)) * 10
    assert response.headers["content-type"] == "application/octet-stream"


async def test_a_directory_comes_as_zip_or_tgz(world: World):
    uuid = await finished(world)
    packed = (await world.call("GET", f"/v3/jobs/{uuid}/output/download/")).content
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        assert archive.read("data/a.bin") == bytes(range(256)) * 10
        assert archive.read("empty.txt") == b""
    packed = (await world.call("GET", f"/v3/jobs/{uuid}/output/download/data?format=tgz")).content
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.extractfile("a.bin").read() == bytes(range(256)) * 10
    one = (await world.call("GET", f"/v3/jobs/{uuid}/output/download/tapisjob.out?compress=True")).content
    assert zipfile.ZipFile(io.BytesIO(one)).read("tapisjob.out") == b"hello\n"


async def test_outputs_come_from_the_archive_once_there_is_one(world: World):
    uuid = await finished(world, archiveSystemId="birch")
    (log,) = await world.get(f"/v3/jobs/{uuid}/output/list/tapisjob.out")
    assert log["url"] == f"tapis://birch/jobs/{uuid}/archive/tapisjob.out"
    assert (await world.call("GET", f"/v3/jobs/{uuid}/output/download/tapisjob.out")).content == b"hello\n"


async def test_outputs_of_a_running_job_are_shown_when_asked_for(world: World):
    uuid = (await world.submit())["uuid"]
    await world.start(uuid, b"so far\n")
    refused = await world.call("GET", f"/v3/jobs/{uuid}/output/list/")
    assert refused.status_code == 400
    assert "allowIfRunning" in refused.json()["message"]
    assert len(await world.get(f"/v3/jobs/{uuid}/output/list/?allowIfRunning=True")) == 1
    path = f"/v3/jobs/{uuid}/output/download/tapisjob.out?allowIfRunning=true"
    assert (await world.call("GET", path)).content == b"so far\n"


async def test_a_missing_file_is_404(world: World):
    uuid = await finished(world)
    for what in ("list", "download"):
        response = await world.call("GET", f"/v3/jobs/{uuid}/output/{what}/none.txt")
        assert response.status_code == 404
        assert "none.txt" in response.json()["message"]


async def test_a_log_is_read_by_offset_and_ends_with_the_job(world: World):
    uuid = (await world.submit())["uuid"]
    path = f"/v3/jobs/{uuid}/logs"
    assert await world.get(path) == {"data": "", "offset": 0, "nextOffset": 0, "complete": False}
    await world.start(uuid, "grün".encode())
    first = await world.get(path)
    assert (first["data"], first["nextOffset"], first["complete"]) == ("grün", 5, False)
    await world.end(uuid, b"!\n")
    rest = await world.get(f"{path}?offset={first['nextOffset']}")
    assert rest == {"data": "!\n", "offset": 5, "nextOffset": 7, "complete": True}
    assert (await world.get(f"{path}?stream=stderr"))["complete"] is True


async def test_each_task_of_an_array_has_a_log_of_its_own(world: World):
    uuid = (await world.submit(notes={"berth": {"array": "3,7"}}))["uuid"]
    job = await world.start(uuid)
    files = world.connections.systems["alder"].files
    for task in (3, 7):
        files.put(f"/{job.place.output_dir}/tapisjob.out.{task}", b"task %d\n" % task)
    path = f"/v3/jobs/{uuid}/logs"
    assert (await world.get(f"{path}?task=7"))["data"] == "task 7\n"
    for wrong in ("", "?task=5"):
        refused = await world.call("GET", path + wrong)
        assert refused.status_code == 400
        assert "name one from 3 to 7" in refused.text
    await world.end(uuid)
    assert (await world.get(f"{path}?task=3")) == {"data": "task 3\n", "offset": 0, "nextOffset": 7, "complete": True}
    response = await world.call("GET", f"{path}?task=3", headers={"Accept": "text/event-stream"})
    assert response.text.startswith('id: 7\ndata: {"data":"task 3\\n","offset":0}')


async def test_a_job_that_is_no_array_has_no_tasks(world: World):
    uuid = (await world.submit())["uuid"]
    refused = await world.call("GET", f"/v3/jobs/{uuid}/logs?task=0")
    assert refused.status_code == 400
    assert "is for job arrays" in refused.json()["message"]


async def test_a_character_that_is_cut_by_the_end_is_left_for_later(world: World):
    uuid = (await world.submit())["uuid"]
    await world.start(uuid, "ü".encode()[:1])
    assert (await world.get(f"/v3/jobs/{uuid}/logs"))["nextOffset"] == 0
    world.connections.systems["alder"].write_log(marker_for(uuid, 1), "ü".encode()[1:])
    assert (await world.get(f"/v3/jobs/{uuid}/logs"))["data"] == "ü"


async def test_a_followed_log_streams_to_its_end_and_resumes(world: World):
    uuid = (await world.submit())["uuid"]
    await world.start(uuid, b"one\n")

    async def follow(**headers: str) -> list[str]:
        response = await world.call("GET", f"/v3/jobs/{uuid}/logs", headers={"Accept": "text/event-stream", **headers})
        assert response.headers["content-type"].startswith("text/event-stream")
        return [block for block in response.text.split("\n\n") if block and not block.startswith(":")]

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    await world.end(uuid, b"two\n")
    events = await asyncio.wait_for(following, 10)
    text = "".join(json.loads(block.split("data: ", 1)[1])["data"] for block in events[:-1])
    assert text == "one\ntwo\n"
    assert events[-1] == 'event: end\ndata: {"status":"FINISHED","condition":"NORMAL_COMPLETION"}'
    resumed = await follow(**{"Last-Event-ID": "4"})
    assert resumed[0] == 'id: 8\ndata: {"data":"two\\n","offset":4}'
