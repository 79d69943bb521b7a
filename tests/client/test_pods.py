"""Commands about pods, as a process against the real API; nothing moves the pods but the test."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scheduler.model.pods import PodEvent
from scheduler.store.pods import PodStore
from tests.api.world import PASSWORD, World, open_world
from tests.client.test_against_the_api import Shell, served


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(f"sqlite+aiosqlite:///{tmp_path}/berth.sqlite") as world:
        world.clock.now = datetime.now(UTC)
        yield world


@pytest.fixture
async def berth(world: World, tmp_path: Path) -> AsyncIterator[Shell]:
    async with served(world) as url:
        (tmp_path / "home").mkdir()
        shell = Shell(tmp_path / "home", url)
        await shell.ok("login", url, "--user", "ada", "--password-stdin", given=f"{PASSWORD}\n")
        yield shell


async def test_a_pod_is_made_looked_at_and_removed(berth: Shell, world: World) -> None:
    made = await berth.ok("pods", "create", "mydb", "-t", "postgres", "--description", "for tests", "-o", "id")
    assert made == "mydb\n"
    shown = await berth.ok("pods", "show", "mydb")
    assert "status       REQUESTED" in shown
    address = (await berth.ok("pods", "url", "mydb")).strip()
    assert re.fullmatch(r"postgresql://mydb\.pods\.[\w.]+:443/\?sslmode=require", address)
    assert address in shown
    assert address in await berth.ok("pods", "ls")
    user, password = (line.split()[1] for line in (await berth.ok("pods", "credentials", "mydb")).splitlines())
    assert (user, len(password)) == ("mydb", 30)
    stopped = await berth("pods", "stop", "mydb")
    assert (stopped.code, stopped.err.strip()) == (0, "mydb is REQUESTED")
    await berth.ok("pods", "rm", "mydb")


async def test_a_pod_is_made_of_an_image_with_ports_variables_and_a_volume(berth: Shell) -> None:
    assert "AVAILABLE" in await berth.ok("pods", "volumes", "create", "data", "--size", "64")
    words = ("--image", "redis:7", "-p", "6379/tcp", "-p", "page=8080/http", "-e", "A=b=c", "-v", "data:/data")
    pod = json.loads(await berth.ok("pods", "create", "cache", *words, "-o", "json"))["item"]
    assert pod["networking"]["default"]["port"] == 6379
    assert pod["networking"]["page"]["url"].startswith("cache-page.pods.")
    assert (await berth.ok("pods", "url", "cache")).startswith("cache.pods.")
    assert (await berth.ok("pods", "url", "cache", "--net", "page")).startswith("https://cache-page.pods.")
    assert pod["environment_variables"] == {"A": "b=c"}
    assert "data" in json.dumps(pod["volume_mounts"])
    assert "data" in await berth.ok("pods", "volumes", "ls")
    assert (await berth("pods", "volumes", "files", "data")).err.strip() == "nothing lies there"


async def test_templates_say_what_they_stand_for(berth: Shell) -> None:
    assert "postgres" in await berth.ok("pods", "templates", "ls")
    assert "postgres:" in await berth.ok("pods", "templates", "show", "postgres")
    missing = await berth("pods", "templates", "show", "postgres:none")
    assert missing.code != 0
    assert "latest" in missing.err


async def test_waiting_ends_when_the_pod_rests_and_says_how_it_stands(berth: Shell, world: World) -> None:
    await berth.ok("pods", "create", "broken", "--image", "redis:7")
    async with world.database.transaction() as db:
        store = PodStore(db)
        [pod] = await store.list("dev")
        await store.move(pod, PodEvent.FAILED, world.clock(), "no such image")
    ended = await berth("pods", "start", "nothere")
    assert ended.code != 0
    waited = await berth("pods", "create", "broken", "--image", "redis:7")
    assert "exists" in waited.err
    assert "ERROR" in await berth.ok("pods", "ls")
    assert "no such image" in await berth.ok("pods", "show", "broken")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "one", "--image", "a", "-p", "http"), "--port http: 'http' is no port"),
        (("create", "one", "--image", "a", "-e", "A"), "--env A: not of the form NAME=VALUE"),
        (("create", "Bad-Pod", "--image", "a"), "pod_id"),
        (("show", "nothere"), "not found"),
        (("create", "one", "--image", "a", "-p", "70000"), "port"),
    ],
)
async def test_what_cannot_be_meant_is_told_with_its_fix(berth: Shell, words: tuple[str, ...], said: str) -> None:
    ended = await berth("pods", *words)
    assert ended.code != 0
    assert said in ended.err
    assert await berth.ok("pods", "ls", "-o", "id") == ""
