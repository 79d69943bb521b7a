"""The command as a process against the real API over a socket: store and tokens are real, systems are in memory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from scheduler.model.ids import LoginKey, RemoteId, marker_for, new_job_uuid
from scheduler.model.images import CopyState
from scheduler.model.runs import JobType
from scheduler.services import copies
from scheduler.store.images import ImageStore
from scheduler.store.strays import StrayStore
from tests.api.test_images import may_unpack
from tests.api.test_pushed_images import may_push
from tests.api.world import BEGIN, PASSWORD, World, open_world

ROOT = Path(__file__).parents[2]
SAID = b"hello from memory\n"


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Shell:
    """Runs commands in a home of their own, against one server."""

    home: Path
    url: str

    async def __call__(self, *words: str, given: str = "", **environment: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "berth",
            *words,
            cwd=self.home,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("BERTH_")},
                "PYTHONPATH": str(ROOT / "client"),
                "XDG_CONFIG_HOME": str(self.home / "config"),
                **environment,
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(given.encode()), 60)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def ok(self, *words: str, given: str = "") -> str:
        """Standard output of a command that must end with 0."""
        ended = await self(*words, given=given)
        assert ended.code == 0, f"berth {' '.join(words)} ended with {ended.code}:\n{ended.out}{ended.err}"
        return ended.out


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite") as world:
        world.clock.now = datetime.now(UTC)  # the client looks at the wall clock
        yield world


@pytest.fixture
async def berth(world: World, tmp_path: Path) -> AsyncIterator[Shell]:
    """The command, logged in as ada."""
    async with served(world) as url:
        (tmp_path / "home").mkdir()
        shell = Shell(tmp_path / "home", url)
        await shell.ok("login", url, "--user", "ada", "--password-stdin", given=f"{PASSWORD}\n")
        yield shell


@asynccontextmanager
async def served(world: World) -> AsyncIterator[str]:
    """The world's application on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(world.app, log_level="warning", lifespan="off"))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


async def test_a_job_is_run_followed_explained_and_fetched(berth: Shell, world: World) -> None:
    world.finish_every_job(output=SAID)
    ran = await berth("run", "--cores", "2", "--time", "10", "docker://busybox", "--", "sh", "-c", "echo 'a b'; date")
    assert ran.code == 0, ran.err
    assert ran.out.encode() == SAID
    assert "FINISHED on " in ran.err
    job = json.loads(await berth.ok("ps", "--all", "-o", "json"))["items"][0]
    stored = await world.job(job["uuid"])
    assert stored.spec.args == ("sh", "-c", "echo 'a b'; date")
    assert (stored.spec.resources.cores_per_node, stored.spec.resources.walltime_s) == (2, 600)
    shown = json.loads(await berth.ok("show", "--history", "-o", "json", job["uuid"][:8]))
    assert shown["history"][-1]["eventDetail"] == "FINISHED"
    assert (await berth.ok("why", str(stored.id))).strip()
    assert "tapisjob.out" in (await berth.ok("output", "ls", "-r", "-o", "id", job["uuid"])).split()
    assert (await berth.ok("output", "get", job["uuid"], "tapisjob.out", "--to", "-")).encode() == SAID
    await berth.ok("output", "get", job["uuid"], "--to", "here")
    assert (berth.home / "here/tapisjob.out").read_bytes() == SAID
    assert (await berth.ok("wait", job["uuid"])) == ""


WHOLE = """\
name: whole
image: docker://python:3.12-slim
command: [python3, -c, "print(1)\\nprint(2)"]
env: {GREETING: hello, COUNT: 3}
resources: {nodes: 2, cores: 4, memory: 1.5G, time: 45, gpus: 2}
system: alder
queue: short
inputs: [{source: https://example.org/b, target: data/b, env: B}]
outputs: {when: on-success, include: ["*.csv"], stdout: out.txt, stderr: err.txt}
array: 0-9%2
weight: 2
options: {account: lab, exclusive: true}
tags: [one]
notes: {mine: [1, 2]}
"""


async def test_every_field_of_a_job_file_is_understood_by_the_server(berth: Shell, world: World) -> None:
    (berth.home / "job.yaml").write_text(WHOLE)
    uuid = (await berth.ok("submit", "-o", "id", "job.yaml")).strip()
    spec = (await world.job(uuid)).spec
    resources = spec.resources
    assert (resources.nodes, resources.cores_per_node, resources.memory_mib) == (2, 4, 1536)
    assert (resources.walltime_s, resources.gpus_per_node) == (2700, 2)
    assert (spec.exec_system_id, spec.queue, spec.weight) == ("alder", "short", 2.0)
    assert (spec.args, spec.use_entrypoint) == (("python3", "-c", "print(1)\nprint(2)"), False)
    assert spec.env == {"GREETING": "hello", "COUNT": "3"}
    assert (spec.stdout, spec.stderr, spec.archive_filter.includes) == ("out.txt", "err.txt", ("*.csv",))
    assert spec.array is not None
    assert (len(spec.array.indices), spec.array.limit) == (10, 2)
    assert {(option.name, option.value) for option in spec.scheduler_options} >= {
        ("--account", "lab"),
        ("--exclusive", None),
    }
    again = (await berth.ok("resubmit", "-o", "id", uuid)).strip()
    assert (await world.job(again)).spec.env == spec.env


SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=chain --time=5 --nodes=1 -n 3 --mem-per-cpu=100M
#BERTH image=docker://debian:12
\techo "$1"  # with a tab
"""


async def test_batch_scripts_are_chained_by_the_numbers_that_were_printed(berth: Shell, world: World) -> None:
    (berth.home / "job.sh").write_text(SCRIPT)
    assert (await berth.ok("sbatch", "job.sh", "one")).startswith("Submitted batch job ")
    number = (await berth.ok("sbatch", "--parsable", "job.sh")).strip()
    last = (await berth.ok("sbatch", "--parsable", "-d", f"afterany:{number}", "job.sh")).strip()
    uuids = {
        number: (await berth.ok("show", "-o", "id", which)).strip() for number, which in (("1", number), ("2", last))
    }
    spec = (await world.job(uuids["2"])).spec
    assert (spec.after[0].uuid, spec.after[0].condition) == (uuids["1"], "any")
    assert (spec.name, spec.resources.cores_per_node, spec.resources.memory_mib) == ("chain", 3, 300)
    assert spec.args == ("/bin/bash", "-c", SCRIPT, "job.sh")


async def test_several_jobs_are_taken_together_or_not_at_all(berth: Shell, world: World) -> None:
    good, bad = "image: docker://a", "image: docker://b\nqueue: nowhere\nsystem: alder"
    refused = await berth("submit", "-", given=f"{good}\n---\n{bad}\n")
    assert refused.code == 5
    assert await world.count_jobs() == 0
    taken = await berth.ok("submit", "-", given=f"{good}\n---\n{good}\n")
    assert len(set(taken.split())) == await world.count_jobs() == 2


async def test_what_no_system_can_run_is_refused_with_the_reasons(berth: Shell, world: World) -> None:
    refused = await berth("run", "--nodes", "5000", "docker://busybox")
    assert refused.code == 5
    first, *reasons = refused.err.splitlines()
    assert first.startswith("berth: JOBS_NO_MATCHING_SYSTEM")
    assert "  queue 'long' of 'alder' allows at most 16 nodes (5000 nodes asked)" in reasons, refused.err
    assert await world.count_jobs() == 0


async def test_a_plan_stores_nothing(berth: Shell, world: World) -> None:
    plan = json.loads(await berth.ok("run", "--plan", "-o", "json", "docker://busybox"))
    assert plan["kind"] == "Explanation"
    assert set(plan["item"]) >= {"sentence", "winner", "losers", "rejections"}
    assert await world.count_jobs() == 0


async def test_a_job_is_cancelled_before_it_runs(berth: Shell, world: World) -> None:
    uuid = (await berth.ok("run", "-d", "-o", "id", "docker://busybox")).strip()
    await berth.ok("cancel", uuid)
    assert (await berth("wait", uuid)).code == 1
    assert await berth.ok("ps", "-o", "id") == ""


async def test_a_log_is_followed_while_the_job_runs(berth: Shell, world: World) -> None:
    uuid = (await berth.ok("run", "-d", "-o", "id", "--system", "alder", "docker://busybox")).strip()
    await world.start(uuid, output="grüße \u2028 one\n".encode())
    assert await berth.ok("logs", uuid) == "grüße \u2028 one\n"


async def test_systems_apps_users_and_credentials_have_their_commands(berth: Shell, world: World) -> None:
    assert set((await berth.ok("systems", "ls", "-o", "id")).split()) == {"alder", "birch"}
    assert "short" in await berth.ok("systems", "show", "alder")
    assert await berth.ok("systems", "match", "batchScheduler = 'SLURM'", "-o", "id") == "alder\n"
    definition = json.loads(await berth.ok("systems", "show", "-o", "json", "alder"))["item"]
    (berth.home / "new.json").write_text(json.dumps({**definition, "id": "copy"}))
    await berth.ok("systems", "create", "new.json")
    await berth.ok("systems", "disable", "copy")
    await berth.ok("systems", "enable", "copy")
    assert (await berth("systems", "create", "new.json")).code == 5
    await berth.ok("systems", "rm", "copy")
    assert (await berth("systems", "show", "copy")).code == 3
    public = await berth.ok("systems", "credential", "birch", "--generate")
    assert public.startswith("ssh-ed25519 ")
    app = {"id": "mine", "version": "1.0", "containerImage": "docker://busybox", "runtime": "SINGULARITY"}
    (berth.home / "app.yaml").write_text(json.dumps(app))
    await berth.ok("apps", "create", "app.yaml")
    uuid = (await berth.ok("submit", "-o", "id", "-", given="app: mine:1.0\nargs: [a b, $HOME]\n")).strip()
    assert (await world.job(uuid)).spec.args == ("a b", "$HOME")
    await berth.ok("apps", "rm", "mine")
    assert (await berth("user", "add", "eve")).code == 5


async def test_an_administrator_adds_users_who_can_log_in(berth: Shell) -> None:
    await berth.ok("login", berth.url, "--user", "admin", "--password-stdin", given=f"{PASSWORD}\n")
    password = (await berth.ok("user", "add", "eve", "--name", "Eve Adams")).strip()
    assert "eve" in (await berth.ok("user", "ls", "-o", "id")).split()
    await berth.ok("login", berth.url, "--user", "eve", "--password-stdin", given=f"{password}\n")
    assert await berth.ok("whoami", "-o", "id") == "eve\n"
    await berth.ok("user", "passwd", "--password-stdin", given="another long one\n")
    assert (await berth("login", berth.url, "-u", "eve", "--password-stdin", given=f"{password}\n")).code == 4
    await berth.ok("login", berth.url, "-u", "eve", "--password-stdin", given="another long one\n")


async def test_the_doctor_and_the_errors_speak_the_servers_words(berth: Shell) -> None:
    checked = json.loads((await berth("doctor", "-o", "json")).out)["items"]
    assert {item["check"] for item in checked} >= {"server", "clock", "login", "system alder"}
    missing = await berth("show", "00000000-0000-4000-8000-000000000000-007")
    assert (missing.code, missing.err.count("\n")) == (3, 1)
    expired = await berth("ps", BERTH_URL=berth.url, BERTH_TOKEN="a.e30.c")
    assert expired.code == 4


async def test_past_jobs_are_learnt_from_a_file(berth: Shell, world: World, tmp_path: Path) -> None:
    began_s = int(world.clock.now.timestamp()) - 9000
    log = f"; UnixStartTime: {began_s}\n1 100 50 600 4 -1 -1 8 500 -1 1 7 1 1 1 -1 -1 -1\n"
    (tmp_path / "log.swf").write_text(log)
    words = ("systems", "learn", "alder", str(tmp_path / "log.swf"), "--format", "swf", "--queue", "long")
    assert "kept" in await berth.ok(*words)
    learnt = json.loads(await berth.ok(*words, "-o", "json"))
    assert (learnt["kind"], learnt["item"]["keptJobs"]) == ("LearntPastJobs", 1)
    refused = await berth(*words[:3], "-", given="no dump\n")
    assert refused.code == 5
    assert "line 1: names no column jobid" in refused.err


async def test_an_image_is_shown_with_what_it_needs_and_what_showed_it(berth: Shell) -> None:
    shown = await berth.ok("images", "inspect", "registry.test/hello:0.1")
    assert "entry point  hello" in shown
    assert "declared.cuda" in shown
    assert "label: berth.require.cuda=>=12.2" in shown
    document = json.loads(await berth.ok("images", "inspect", "registry.test/hello:0.1", "-o", "json"))
    assert (document["kind"], document["item"]["platform"]) == ("Image", "linux/amd64")
    assert (
        document["item"]["digest"]
        == (await berth.ok("images", "inspect", "registry.test/hello:0.1", "-o", "id")).strip()
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("registry.test/none",), 3, "check the name"),
        (("registry.test/hello:0.1", "--platform", "x86_64"), 5, "write linux/amd64"),
        (("registry.test/hello:0.1", "--deep"), 5, "is not allowed on this server"),
    ],
)
async def test_an_image_that_cannot_be_shown_ends_the_command_by_the_usual_codes(
    berth: Shell, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = await berth("images", "inspect", *words)
    assert (ended.code, said in ended.err) == (code, True), ended.err


async def test_a_login_for_a_registry_is_stored_listed_and_forgotten(berth: Shell, world: World) -> None:
    world.registry.realm, world.registry.private_to = "https://registry.test/token", "ada9:two\nlines"
    world.registry.push_image("private", "1")
    hidden = await berth("images", "inspect", "registry.test/private:1")
    assert hidden.code == 5
    assert "log in: berth images login registry.test" in hidden.err
    named = ("images", "login", "https://registry.test/", "--user", "ada9")
    wrong = await berth(*named, "--password-stdin", given="wrong\n")
    assert (wrong.code, "does not take the login of 'ada9'" in wrong.err) == (5, True)
    assert (await berth(*named, BERTH_REGISTRY_PASSWORD="wrong")).code == 5
    stored = await berth(*named, "--password-stdin", given="two\nlines\n")
    assert (stored.code, stored.out) == (0, "")
    assert stored.err == "berth: the login of ada9 for registry.test works and is stored\n"
    assert await berth.ok("images", "inspect", "-o", "id", "registry.test/private:1")
    document = json.loads(await berth.ok("images", "logins", "-o", "json"))
    assert (document["kind"], document["items"][0]["username"]) == ("RegistryLoginList", "ada9")
    assert await berth.ok("images", "logins", "-o", "id") == "registry.test\n"
    assert (await berth("images", "logout", "registry.test")).code == 0
    assert (await berth("images", "logout", "registry.test")).code == 3
    assert (await berth("images", "login", "registry.test", "--password-stdin", given="x")).code == 2


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set whenever somebody looks at one copy of an image."""
    looked, real = asyncio.Event(), copies.get

    async def get(*asked: Any) -> Any:
        shown = await real(*asked)
        looked.set()
        return shown

    monkeypatch.setattr(copies, "get", get)
    return looked


async def test_images_are_staged_listed_waited_for_and_kept(
    berth: Shell, world: World, tmp_path: Path, looked_at: asyncio.Event
) -> None:
    refused = await berth("images", "stage", "registry.test/hello:0.1", "alder")
    assert (refused.code, "BERTH_IMAGE_UNPACK_LIMIT_MIB" in refused.err) == (5, True)
    may_unpack(world, tmp_path / "images")
    notes = {"berth": {"images": {"store": str(tmp_path / "store")}}}
    await world.change("PATCH", "/v3/systems/alder", {"notes": notes})
    number = (await berth.ok("images", "stage", "-o", "id", "registry.test/hello:0.1", "alder")).strip()
    late = await berth("images", "stage", "--timeout", "0s", "registry.test/hello:0.1", "alder")
    assert (late.code, "it goes on: berth images ls" in late.err) == (7, True)
    listed = await berth.ok("images", "ls", "--system", "alder", "--state", "wanted")
    assert "registry.test/hello:0.1" in listed
    for state, code in ((CopyState.FAILED, 1), (CopyState.PRESENT, 0)):
        looked_at.clear()
        waiting = asyncio.create_task(berth("images", "stage", "--wait", "registry.test/hello:0.1", "alder"))
        await asyncio.wait_for(looked_at.wait(), 60)
        async with world.ports.transaction() as db:
            store = ImageStore(db)
            changes = {"state": state, "message": "no room there", "next_look_at": None}
            await store.note(await store.get(int(number)), world.clock(), **changes)
        ended = await waiting
        assert (ended.code, f"berth: alder: {state}" in ended.err) == (code, True), ended.err
        assert ("berth: alder: no room there" in ended.err) == (code == 1)
    assert json.loads(await berth.ok("images", "pin", number, "-o", "json"))["item"]["pinned"] is True
    assert "pinned   no" in await berth.ok("images", "unpin", number)
    assert "released" in await berth.ok("images", "gc", "alder")
    assert (await berth("images", "pin", "999")).code == 3
    assert f"{number} is removed" in (await berth("images", "rm", number)).err
    assert (await berth("images", "rm", number)).code == 3


async def test_why_an_image_runs_or_not_is_told_with_what_showed_it(berth: Shell, world: World) -> None:
    notes = {"berth": {"images": {"store": "/scratch/images", "facts": {"normal": {"architecture": "arm64"}}}}}
    await world.change("PATCH", "/v3/systems/alder", {"notes": notes})
    world.registry.push_index("many", "1", "linux/amd64", "linux/arm64")
    table = await berth.ok("images", "why", "registry.test/many:1")
    assert "known from its manifest and config alone" in table
    assert re.search(r"alder +normal +(yes|unknown)", table)
    assert "birch" in table
    assert "fix: let a probe look at them" in table
    only = await berth.ok("images", "why", "--system", "alder", "--mpi", "-N", "2", "-o", "id", "registry.test/many:1")
    assert only == "alder\n"
    document = json.loads(await berth.ok("images", "why", "-o", "json", "registry.test/many:1"))
    assert (document["kind"], len(document["item"]["nodes"])) == ("ImageVerdicts", 2)
    wrong = await berth.ok("images", "why", "--system", "alder", "registry.test/hello:0.1")
    assert re.search(r"alder +normal +no +.*arm64", wrong)
    assert "nodes: owner on " in wrong


async def test_facts_of_nodes_are_shown_and_looked_for_again(berth: Shell, world: World) -> None:
    assert await berth.ok("systems", "facts", "alder") == ""
    notes = {"berth": {"images": {"store": "/scratch/images", "facts": {"normal": {"architecture": "arm64"}}}}}
    await world.change("PATCH", "/v3/systems/alder", {"notes": notes})
    table = await berth.ok("systems", "facts", "alder", "--probe")
    assert "normal: not seen by a probe" in table
    assert re.search(r"architecture +arm64 +owner: set by ada", table)
    document = json.loads(await berth.ok("systems", "facts", "alder", "-o", "json"))
    assert document["kind"] == "NodeFacts"
    assert {"normal"} <= {each["nodeClass"] for each in document["items"]}


async def test_a_scheduler_profile_is_made_used_and_forgotten(berth: Shell) -> None:
    profiles = "systems", "profiles"
    assert "says nothing" in (await berth(*profiles, "create", "empty")).err
    await berth.ok(*profiles, "create", "site", "--load", "gcc", "--load", "apptainer/1.4", "--hide", "mem")
    assert re.search(r"site +ada +module load gcc apptainer/1.4 +MEM", await berth.ok(*profiles, "ls"))
    await berth.ok(*profiles, "use", "alder", "site")
    assert re.search(r"profile +site", await berth.ok("systems", "show", "alder"))
    assert json.loads(await berth.ok(*profiles, "show", "site", "-o", "json"))["item"]["hiddenOptions"] == ["MEM"]
    await berth.ok(*profiles, "use", "alder", "--none")
    assert "profile" not in await berth.ok("systems", "show", "alder")
    await berth.ok(*profiles, "rm", "site")
    assert (await berth(*profiles, "show", "site")).err.startswith("berth: scheduler profile 'site' was not found")


async def test_runs_that_nobody_waits_for_are_shown(berth: Shell, world: World) -> None:
    assert (await berth("systems", "strays", "alder")).err.strip() == "nothing runs there that nobody waits for"
    marker, login = marker_for(new_job_uuid(), 1), LoginKey("dev", "alder", "ada")
    for at in (BEGIN, BEGIN + timedelta(minutes=1)):
        async with world.ports.transaction() as db:
            await StrayStore(db).note(login, JobType.BATCH, {marker: RemoteId("4711")}, at, timedelta(minutes=1))
    assert re.search(r"4711 +ada .* UNKNOWN +nothing here knows it", await berth.ok("systems", "strays", "alder"))
    assert await berth.ok("systems", "strays", "alder", "-o", "id") == f"{marker}\n"
    assert json.loads(await berth.ok("systems", "strays", "alder", "-o", "json"))["kind"] == "Strays"


async def test_a_file_is_pushed_once_named_by_jobs_and_removed(berth: Shell, world: World, tmp_path: Path) -> None:
    (berth.home / "solver.sif").write_bytes(b"hsqs" + bytes(3 * 2**20))
    refused = await berth("images", "push", "solver.sif")
    assert (refused.code, "BERTH_IMAGE_PUSH_LIMIT_MIB" in refused.err) == (5, True)
    may_push(world, tmp_path / "pushed")
    name = (await berth.ok("images", "push", "-o", "id", "solver.sif")).strip()
    kept = tmp_path / "pushed" / name.removeprefix("berth://sha256:")
    assert kept.read_bytes() == (berth.home / "solver.sif").read_bytes()
    written_at = kept.stat().st_mtime_ns
    assert (await berth.ok("images", "push", "-o", "id", "solver.sif")).strip() == name
    assert kept.stat().st_mtime_ns == written_at
    assert "solver.sif" in await berth.ok("images", "pushed")
    nowhere = await berth("submit", "-o", "id", "-", given=f"image: {name}\n")
    assert (nowhere.code, "no store for images is there" in nowhere.err) == (5, True)
    notes = {"berth": {"images": {"store": str(tmp_path / "store")}}}
    await world.change("PATCH", "/v3/systems/alder", {"notes": notes})
    uuid = (await berth.ok("submit", "-o", "id", "-", given=f"image: {name}\n")).strip()
    assert (await world.job(uuid)).spec.image == name
    assert (await berth("images", "rm", name)).code == 0
    assert not kept.exists()
    assert (await berth("images", "rm", name)).code == 3
    assert (await berth("images", "push", "none.sif")).code == 5
