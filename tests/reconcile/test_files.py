"""Inputs come in and outputs go home: whole, once, and only from and to where a user may."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address, ip_network

import pytest
from sqlalchemy import update

from scheduler.addresses import may_reach
from scheduler.model.apps import ArchiveFilter, FileInput
from scheduler.model.errors import BackendUnavailable, FileRefused
from scheduler.model.jobs import ArchiveMode, Job
from scheduler.model.states import Condition, S
from scheduler.reconcile.archive import wanted_by
from scheduler.reconcile.fetch import WebRules, open_url
from scheduler.store import schema
from scheduler.store.systems import SystemStore
from tests.reconcile.world import World

LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.fixture
def web() -> Iterator[str]:
    """A web server on loopback: /file, /moved, /inside (redirects to a private address), /gone, /broken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            moved = {"/moved": "/file", "/inside": "http://10.1.2.3/secret", "/round": "/round"}.get(self.path)
            status = 302 if moved else {"/gone": 404, "/broken": 503}.get(self.path, 200)
            body = b"" if moved else b"from the web\n"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if moved:
                self.send_header("Location", moved)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def fetched(url: str, rules: WebRules) -> bytes:
    async with open_url(url, rules) as file:
        return b"".join([chunk async for chunk in file.chunks])


# -- the web -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/file", "/moved"])
async def test_a_file_is_fetched_also_through_a_redirect(web: str, path: str):
    assert await fetched(web + path, WebRules(private_allow=LOOPBACK)) == b"from the web\n"


@pytest.mark.parametrize("path", ["/inside", "/gone", "/round"])
async def test_what_no_retry_mends_is_refused(web: str, path: str):
    with pytest.raises(FileRefused):
        await fetched(web + path, WebRules(private_allow=LOOPBACK))


async def test_a_server_in_trouble_is_asked_again_later(web: str):
    with pytest.raises(BackendUnavailable, match="503"):
        await fetched(web + "/broken", WebRules(private_allow=LOOPBACK))


async def test_a_file_above_the_limit_is_refused(web: str):
    with pytest.raises(FileRefused, match="larger than 5 bytes"):
        await fetched(web + "/file", WebRules(private_allow=LOOPBACK, limit_bytes=5))


async def test_loopback_is_out_of_reach_unless_allowed(web: str):
    with pytest.raises(FileRefused, match="not a public address"):
        await fetched(web + "/file", WebRules())


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x", "http:///x", "http://127.0.0.1:99999/"])
async def test_other_urls_are_refused(url: str):
    with pytest.raises(FileRefused):
        await fetched(url, WebRules())


@pytest.mark.parametrize(
    ("address", "reachable"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_only_public_addresses_are_reachable(address: str, reachable: bool):
    assert may_reach(ip_address(address), ()) is reachable


# -- inputs ------------------------------------------------------------------------------------------------------


async def test_inputs_from_a_system_are_brought_as_trees_and_files(world: World):
    world.system.files.put("/data/tree/a.txt", b"a")
    world.system.files.put("/data/tree/deep/b.txt", b"b")
    world.system.files.put("/data/one.bin", b"1" * 1000)
    inputs = (
        FileInput(name="tree", source_url="tapis://cluster/data/tree"),
        FileInput(name="one", source_url="tapis://cluster/data/one.bin", target_path="in/renamed.bin"),
    )
    [job] = await world.submit(file_inputs=inputs)
    job = await world.run_until(job, S.QUEUED)
    base = f"/work/jobs/{job.uuid}"
    assert world.system.files.nodes[f"{base}/tree/deep/b.txt"] == b"b"
    assert world.system.files.nodes[f"{base}/in/renamed.bin"] == b"1" * 1000


async def test_an_input_that_is_missing_fails_the_job_and_names_it(world: World):
    [job] = await world.submit(file_inputs=(FileInput(name="x", source_url="tapis://cluster/no/such"),))
    job = await world.run_until(job, S.FAILED)
    assert job.condition is Condition.JOB_UNABLE_TO_STAGE_INPUTS
    assert "no/such" in job.last_message


async def test_an_input_on_a_system_that_is_not_visible_is_as_one_that_does_not_exist(world: World):
    [job] = await world.submit(file_inputs=(FileInput(name="x", source_url="tapis://others/secret"),))
    job = await world.run_until(job, S.FAILED)
    assert "system 'others' was not found" in job.last_message


async def on_a_shared_account(world: World) -> tuple[Job, Job]:
    """A job of one's own and one of another user, on a system where both have one account."""
    [own] = await world.submit()
    [other] = await world.submit()
    async with world.database.transaction() as db:
        await db.execute(update(schema.jobs).where(schema.jobs.c.uuid == other.uuid).values(owner="eve"))
        system = await SystemStore(db).get("dev", "cluster")
        await SystemStore(db).replace(replace(system, owner="root", is_public=True))
    return own, other


@pytest.mark.parametrize(
    ("path", "state"),
    [
        ("/work/jobs/OTHER/output/a", S.FAILED),
        ("/work//./jobs/OTHER", S.FAILED),
        ("/work/pod-volumes/dev/rows", S.FAILED),
        ("/work/pods/rows/1/pod.env", S.FAILED),
        ("/work", S.FAILED),
        ("/", S.FAILED),
        ("/work/jobs/OWN/../OTHER/output/a", S.FAILED),
        ("/work/jobs/OWN/output/a", S.QUEUED),
        ("/work/jobs/OWN/.hidden", S.QUEUED),
        ("/data/a", S.QUEUED),
    ],
)
async def test_where_users_share_an_account_no_input_comes_from_a_job_of_another(world: World, path: str, state: S):
    own, other = await on_a_shared_account(world)
    for each in (
        f"/work/jobs/{own.uuid}/output/a",
        f"/work/jobs/{other.uuid}/output/a",
        "/data/a",
        f"/work/jobs/{own.uuid}/.hidden",
    ):
        world.system.files.put(each, b"a")
    named = path.replace("OWN", own.uuid).replace("OTHER", other.uuid)
    [job] = await world.submit(file_inputs=(FileInput(name="x", source_url=f"tapis://cluster{named}"),))
    job = await world.run_until(job, state)
    assert (state is S.QUEUED) != ("users share the account" in job.last_message), job.last_message


async def test_where_users_share_an_account_a_link_brings_nothing_of_a_job_of_another(world: World):
    own, other = await on_a_shared_account(world)
    here, there = f"/work/jobs/{own.uuid}/output", f"/work/jobs/{other.uuid}/output"
    world.system.files.put(f"{here}/a", b"mine")
    world.system.files.put(f"{there}/a", b"of another")
    world.system.files.link(f"{here}/file", f"{there}/a")
    world.system.files.link(f"{here}/folder", there)
    [through] = await world.submit(file_inputs=(FileInput(name="x", source_url=f"tapis://cluster{here}/folder/a"),))
    await world.run_until(through, S.FAILED)
    whole = FileInput(name="x", source_url=f"tapis://cluster{here}", target_path="x")
    [job] = await world.submit(file_inputs=(whole,))
    job = await world.run_until(job, S.QUEUED)
    input_dir = f"/{job.place.input_dir}/x"
    assert world.system.files.nodes[f"{input_dir}/a"] == b"mine"
    assert f"{input_dir}/file" not in world.system.files.nodes
    assert f"{input_dir}/folder" not in world.system.files.nodes


async def test_a_local_input_is_mounted_and_not_moved(world: World):
    inputs = (FileInput(name="ref", source_url="tapislocal://exec.tapis/refs/genome", env_key="GENOME"),)
    [job] = await world.submit(file_inputs=inputs)
    await world.run_until(job, S.QUEUED)
    [attempt] = await world.attempts(job)
    [mount] = attempt.run.mounts
    assert (mount.source, mount.target, mount.read_only) == ("/refs/genome", "/TapisInput/genome", True)
    assert attempt.run.env["GENOME"] == "/TapisInput/genome"


# -- outputs -----------------------------------------------------------------------------------------------------


async def ended(world: World, exit_code: int, **changes):
    [job] = await world.submit(archive_system_id="cluster", archive_dir="kept", **changes)
    job = await world.run_until(job, S.QUEUED)
    [attempt] = await world.attempts(job)
    for name, data in {"result.csv": b"1", "scratch.tmp": b"2", "deep/more.csv": b"3"}.items():
        world.system.files.put(f"{attempt.run.output_dir}/{name}", data)
    world.system.end(attempt.marker, exit_code=exit_code)
    return await world.run_until(job, S.FAILED if exit_code else S.FINISHED)


async def test_only_wanted_outputs_are_archived(world: World):
    chosen = ArchiveFilter(includes=("*.csv",), excludes=("deep",), include_launch_files=False)
    await ended(world, 0, archive_filter=chosen)
    kept = [name for name in world.system.files.tree("/kept") if name != "/kept"]
    assert kept == ["/kept/result.csv"]


@pytest.mark.parametrize(
    ("mode", "exit_code", "kept"),
    [
        (ArchiveMode.ALWAYS, 1, True),
        (ArchiveMode.SKIP_ON_FAIL, 0, True),
        (ArchiveMode.SKIP_ON_FAIL, 1, False),
        (ArchiveMode.NEVER, 0, False),
    ],
)
async def test_the_archive_mode_decides_whether_outputs_are_kept(world: World, mode, exit_code, kept):
    job = await ended(world, exit_code, archive_mode=mode)
    assert bool(world.system.files.tree("/kept")) is kept
    skipped = "FAILED_SKIP_ARCHIVE" if not kept else "FAILED"
    assert job.remote_outcome == (skipped if exit_code else "FINISHED")


@pytest.mark.parametrize(
    ("path", "wanted"), [("a.txt", True), ("logs/x.log", False), ("b.bin", False), ("run-12.dat", True)]
)
def test_filters_know_globs_directories_and_expressions(path: str, wanted: bool):
    chosen = ArchiveFilter(includes=("*.txt", "REGEX:run-[0-9]+\\.dat", "logs"), excludes=("logs",))
    assert wanted_by(chosen)(path) is wanted


async def test_where_users_share_an_account_no_output_of_another_is_archived_through_a_link(world: World):
    _, other = await on_a_shared_account(world)
    there = f"/work/jobs/{other.uuid}/output"
    world.system.files.put(f"{there}/secret", b"of another")
    [job] = await world.submit(archive_system_id="cluster", archive_dir="kept")
    job = await world.run_until(job, S.QUEUED)
    [attempt] = await world.attempts(job)
    here = attempt.run.output_dir
    world.system.files.put(f"{here}/a", b"mine")
    for name, leads_to in {"inside": f"{here}/a", "file": f"{there}/secret", "folder": there}.items():
        world.system.files.link(f"{here}/{name}", leads_to)
    world.system.end(attempt.marker)
    await world.run_until(job, S.FINISHED)
    kept = [name for name in world.system.files.tree("/kept") if name != "/kept" and "tapisjob" not in name]
    assert kept == ["/kept/a", "/kept/inside"]


async def test_an_outage_while_archiving_is_waited_out(world: World):
    [job] = await world.submit(archive_system_id="cluster", archive_dir="kept")
    job = await world.run_until(job, S.QUEUED)
    [attempt] = await world.attempts(job)
    world.system.end(attempt.marker)
    job = await world.run_until(job, S.ARCHIVING)
    world.connections.refused.add("alice")
    await world.run(ticks=5)
    job = await world.job(job)
    assert job.state is S.ARCHIVING
    assert job.last_message.startswith("the login fails")
    world.connections.refused.clear()
    await world.run_until(job, S.FINISHED, step_s=10)
