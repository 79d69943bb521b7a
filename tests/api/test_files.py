"""Files of systems over HTTP."""

import io
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from api.downloads import streamed
from api.schemas.jobs import FileView
from scheduler.model.runs import FileInfo, FileKind
from scheduler.services import files
from scheduler.store.systems import SystemStore
from tests.api.world import World

HERE = "/v3/files/ops/alder"


async def kept(world: World) -> None:
    await world.post(HERE, {"path": "/home/ada/run"})
    sent = await world.call("POST", f"{HERE}/home/ada/run/a.txt", files={"file": ("a.txt", b"hello\n")})
    assert sent.status_code == 200, sent.text


async def test_a_file_is_sent_listed_fetched_copied_moved_and_deleted(world: World):
    await kept(world)
    (listed,) = await world.get(f"{HERE}/home/ada/run")
    assert (listed["name"], listed["size"], listed["type"]) == ("a.txt", 6, "file")
    assert listed["url"] == "tapis://alder/home/ada/run/a.txt"
    await world.change("PUT", f"{HERE}/home/ada/run/a.txt", {"operation": "COPY", "newPath": "home/ada/b.txt"})
    await world.change("PUT", f"{HERE}/home/ada/run/a.txt", {"operation": "MOVE", "newPath": "home/ada/c.txt"})
    for name in ("b.txt", "c.txt"):
        assert (await world.call("GET", f"/v3/files/content/alder/home/ada/{name}")).content == b"hello\n"
    await world.change("DELETE", f"{HERE}/home/ada/run")
    below = await world.get(f"{HERE}/home", params={"recurse": "true"})
    assert [each["path"] for each in below] == ["home/ada", "home/ada/b.txt", "home/ada/c.txt"]
    assert len(await world.get(f"{HERE}/home", params={"recurse": "true", "limit": 1, "offset": 2})) == 1


async def test_a_directory_is_fetched_as_a_zip_archive_alone(world: World):
    await kept(world)
    assert (await world.call("GET", "/v3/files/content/alder/home")).status_code == 400
    packed = (await world.call("GET", "/v3/files/content/alder/home?zip=true")).content
    assert zipfile.ZipFile(io.BytesIO(packed)).read("ada/run/a.txt") == b"hello\n"


@pytest.mark.parametrize("path", ["%2e%2e/etc/passwd", "home/%2e%2e/%2e%2e/etc", "a%00b", "a%0Ab"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_path_that_would_leave_the_root_directory_is_refused(world: World, method: str, path: str):
    assert (await world.call(method, f"{HERE}/{path}")).status_code == 400


async def test_a_path_in_a_body_is_told_by_its_name(world: World):
    refused = await world.call("POST", HERE, {"path": "a/" * 3000})
    assert refused.json()["message"] == "path: is too long; at most 4096 are allowed"


@pytest.mark.parametrize("target", ["../x", "", "/", "home/ada/run", "home/ada/run/below"])
async def test_a_target_that_cannot_be_meant_is_refused_by_its_name(world: World, target: str):
    await kept(world)
    refused = await world.call("PUT", f"{HERE}/home/ada/run", {"operation": "MOVE", "newPath": target})
    assert refused.status_code == 400
    assert "newPath" in refused.json()["message"]
    assert await world.get(f"{HERE}/home/ada/run")


async def test_the_root_directory_is_listed_and_never_written_over_or_deleted(world: World):
    await kept(world)
    assert "home" in [each["name"] for each in await world.get(HERE)]
    assert (await world.call("DELETE", f"{HERE}/%2e")).status_code == 400
    assert (await world.call("POST", f"{HERE}/%2e", files={"file": ("a", b"")})).status_code == 400
    assert await world.get(f"{HERE}/home/ada/run")


async def test_what_is_not_there_and_what_is_not_supported_is_said(world: World):
    for method in ("GET", "DELETE"):
        assert (await world.call(method, f"{HERE}/none")).status_code == 404
    assert (await world.call("GET", "/v3/files/content/alder/none")).status_code == 404
    assert (await world.call("GET", f"{HERE}?pattern=*.txt")).status_code == 400
    assert (await world.call("POST", f"{HERE}/a.txt", {"file": "no form"})).status_code == 400


async def test_files_are_for_those_who_may_run_jobs_there(world: World):
    await kept(world)
    assert (await world.call("GET", HERE, user="bob")).status_code == 404
    await world.post("/v3/systems/perms/alder/user/bob", {"permissions": ["READ"]})
    assert (await world.call("GET", HERE, user="bob")).status_code == 403
    await world.post("/v3/systems/perms/alder/user/bob", {"permissions": ["EXECUTE"]})
    await world.get(HERE, user="bob")


@pytest.mark.parametrize("shared", [{"effective_user_id": "svc"}, {"notes": {"berth": {"backend": "local"}}}])
async def test_files_of_an_account_that_users_share_are_for_the_owner_alone(world: World, shared: dict):
    await world.post("/v3/systems/perms/alder/user/bob", {"permissions": ["EXECUTE"]})
    async with world.ports.transaction() as db:
        store = SystemStore(db)
        await store.replace(replace(await store.get("dev", "alder"), **shared))
    assert (await world.call("GET", HERE, user="bob")).status_code == 403
    await world.get(HERE)


async def test_without_a_credential_the_answer_says_where_one_is_stored(world: World):
    async with world.ports.transaction() as db:
        store = SystemStore(db)
        await store.add(replace(await store.get("dev", "alder"), id="cedar", uuid="cedar"))
    refused = await world.call("GET", "/v3/files/ops/cedar")
    assert refused.status_code == 400
    assert "POST /v3/systems/credential/cedar/user/ada" in refused.json()["message"]


async def test_a_walk_keeps_nothing_of_what_is_skipped_and_ends(world: World, monkeypatch: pytest.MonkeyPatch):
    await kept(world)
    monkeypatch.setattr(files, "MOST_MET", 2)
    refused = await world.call("GET", HERE, params={"recurse": "true", "offset": 2_000_000_000})
    assert refused.status_code == 400
    assert "recurse" in refused.json()["message"]
    assert len(await world.get(f"{HERE}/home/ada/run", params={"recurse": "true"})) == 1


def test_a_name_that_is_no_text_is_shown_with_what_can_be_read_of_it():
    at = datetime(2026, 3, 1, tzinfo=UTC)
    odd = FileInfo(path="d/\udcff.txt", kind=FileKind.FILE, size_bytes=1, modified_at=at)
    assert FileView.of(odd, "alder").url == "tapis://alder/d/\N{REPLACEMENT CHARACTER}.txt"
    assert "%EF%BF%BD.txt" in streamed(nothing(), odd.name).headers["Content-Disposition"]


async def nothing() -> AsyncIterator[bytes]:
    yield b""
