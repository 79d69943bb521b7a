"""Volumes of pods and snapshots of volumes: filled, read and copied within their limits, and never one from another."""

from __future__ import annotations

import asyncio
import io
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.local.storage import LocalStorage
from scheduler.model.errors import FileRefused, SpecInvalid
from scheduler.pod_schedules import Retention, check_schedule, next_at, parse_retention
from scheduler.reconcile.pod_files import PodFiles
from scheduler.reconcile.pod_moves import Moves
from tests.api.test_pods import PODS, WEB, at_rest
from tests.api.world import BEGIN, World

VOLUMES, SNAPSHOTS = "/v3/pods/volumes", "/v3/pods/snapshots"
MIB = 1024 * 1024


@pytest.fixture
async def files(world: World, tmp_path: Path) -> Path:
    """Where the files of the tenant's pods lie; a volume ``data`` of 1 MB is there."""
    ports = replace(world.ports, volumes=lambda place: LocalStorage(tmp_path / "files" / place))
    world.ports = ports
    world.app.state.edge = replace(world.app.state.edge, ports=ports)
    await world.post(VOLUMES, {"volume_id": "data", "size_limit": 1})
    return tmp_path / "files" / "dev"


def inside(files: Path) -> Path:
    """The directory of the one volume."""
    (volume,) = (files / "volumes").iterdir()
    return volume


async def uploaded(world: World, path: str, content: bytes, volume: str = "data", user: str = "ada") -> httpx.Response:
    return await world.call("POST", f"{VOLUMES}/{volume}/upload/{path}", files={"file": ("f", content)}, user=user)


async def contents(world: World, path: str, where: str = f"{VOLUMES}/data", **kwargs: Any) -> httpx.Response:
    return await world.call("GET", f"{where}/contents/{path}", **kwargs)


async def tick(world: World) -> None:
    await PodFiles(world.ports, Moves(world.ports, lease_s=60)).tick()


# -- volumes -----------------------------------------------------------------------------------------------------


async def test_a_volume_is_made_filled_read_and_deleted(world: World, files: Path):
    made = await world.get(f"{VOLUMES}/data")
    assert (made["status"], made["size_limit"], made["size"]) == ("AVAILABLE", 1, 0)
    assert (await uploaded(world, "a/b.txt", b"hello")).json()["result"] == "5 bytes written to 'a/b.txt'"
    (listed,) = await world.get(f"{VOLUMES}/data/list")
    assert (listed["path"], listed["name"], listed["type"], listed["size"]) == ("a/b.txt", "b.txt", "file", 5)
    assert (await contents(world, "a/b.txt")).content == b"hello"
    archive = zipfile.ZipFile(io.BytesIO((await contents(world, "", params={"zip": "True"})).content))
    assert archive.namelist() == ["a/b.txt"]
    assert (await contents(world, "a")).status_code == 400
    assert (await contents(world, "c")).status_code == 404
    assert (await world.get(f"{VOLUMES}/data"))["size"] == 1
    changed = await world.change("PUT", f"{VOLUMES}/data", {"size_limit": 2})
    assert changed["size_limit"] == 2
    assert await world.change("DELETE", f"{VOLUMES}/data") == "volume 'data' is being deleted"
    assert (await world.call("GET", f"{VOLUMES}/data")).status_code == 404
    assert list((files / "volumes").iterdir()) == []


async def test_no_more_comes_in_than_the_limit(world: World, files: Path):
    assert (await uploaded(world, "first", bytes(MIB // 2))).status_code == 200
    refused = await uploaded(world, "second", bytes(MIB // 2 + 1))
    assert (refused.status_code, "bytes are left of volume 'data'" in refused.text) == (400, True)
    assert sorted(path.name for path in inside(files).iterdir()) == ["first"]


@pytest.mark.parametrize("path", ["../x", "a/../../x", "%2e%2e/x", "..%2f..%2fx"])
async def test_no_path_leaves_a_volume(world: World, files: Path, path: str):
    (files.parent / "x").write_bytes(b"outside")
    assert (await uploaded(world, path, b"in")).status_code in (400, 404, 405)
    assert (await contents(world, path)).status_code in (400, 404)
    assert (files.parent / "x").read_bytes() == b"outside"


async def test_no_link_that_a_pod_made_leads_out_of_its_volume(world: World, files: Path):
    (files / "other").mkdir()
    (files / "other" / "secret").write_bytes(b"of somebody else")
    (inside(files) / "out").symlink_to(files / "other")
    (inside(files) / "file").symlink_to(files / "other" / "secret")
    for path in ("out/secret", "file"):
        assert (await contents(world, path)).status_code == 400
    assert await world.get(f"{VOLUMES}/data/list") == []
    assert (await uploaded(world, "out/secret", b"x")).status_code == 400
    body = {"snapshot_id": "snap", "source_volume_id": "data", "source_volume_path": "out"}
    await world.post(SNAPSHOTS, body)
    await tick(world)
    assert (await world.get(f"{SNAPSHOTS}/snap"))["status"] == "ERROR"
    assert (files / "other" / "secret").read_bytes() == b"of somebody else"


async def test_a_volume_that_could_not_be_made_is_made_by_the_loop(world: World, files: Path):
    working, refused = world.ports.volumes, []

    class Full(LocalStorage):
        async def make_directory(self, path: str) -> None:
            refused.append(path)
            raise FileRefused("no space left on device")

    world.app.state.edge = replace(
        world.app.state.edge, ports=replace(world.ports, volumes=lambda place: Full(files / place))
    )
    made = await world.post(VOLUMES, {"volume_id": "late"})
    assert (made["status"], refused) == ("REQUESTED", [""])
    assert (await uploaded(world, "a", b"x", "late")).status_code == 409
    assert working is world.ports.volumes
    await tick(world)
    assert (await world.get(f"{VOLUMES}/late"))["status"] == "AVAILABLE"


async def test_what_a_pod_wrote_is_measured(world: World, files: Path):
    (inside(files) / "big").write_bytes(bytes(MIB + 1))
    await tick(world)
    volume = await world.get(f"{VOLUMES}/data")
    assert (volume["size"], volume["message"]) == (2, "it holds more than its size_limit of 1 MB")


async def test_a_volume_that_a_pod_has_is_not_deleted_and_one_of_another_is_never_mounted(world: World, files: Path):
    pod = {**WEB, "volume_mounts": {"data": {"type": "tapisvolume", "mount_path": "/data"}}}
    assert (await world.call("POST", PODS, {**pod, "pod_id": "bobs"}, user="bob")).status_code == 400
    made = await world.post(PODS, pod)
    assert made["volume_mounts"]["/data"]["source_id"] == "data"
    refused = await world.call("DELETE", f"{VOLUMES}/data")
    assert (refused.status_code, "pod 'web' has volume 'data' mounted" in refused.text) == (409, True)
    await world.get(f"{PODS}/web/stop")
    await at_rest(world, "web")
    await world.change("DELETE", f"{VOLUMES}/data")
    await world.post(VOLUMES, {"volume_id": "data"}, user="bob")
    assert (await world.call("GET", f"{PODS}/web/start")).status_code == 400
    await world.post(f"{VOLUMES}/data/permissions", {"user": "ada", "level": "READ"}, user="bob")
    assert (await world.call("GET", f"{PODS}/web/start")).status_code == 403
    await world.post(f"{VOLUMES}/data/permissions", {"user": "ada", "level": "USER"}, user="bob")
    await world.get(f"{PODS}/web/start")


NEEDS = [
    ("GET", "", None, "READ"),
    ("GET", "/list", None, "READ"),
    ("GET", "/contents/a", None, "USER"),
    ("GET", "/permissions", None, "USER"),
    ("PUT", "", {"description": "x"}, "USER"),
    ("POST", "/permissions", {"user": "eve", "level": "READ"}, "ADMIN"),
    ("DELETE", "", None, "ADMIN"),
]


@pytest.mark.parametrize("kind", [VOLUMES, SNAPSHOTS], ids=["volume", "snapshot"])
async def test_every_operation_checks_its_level(world: World, files: Path, kind: str):
    await uploaded(world, "a", b"x")
    await world.post(SNAPSHOTS, {"snapshot_id": "data", "source_volume_id": "data", "source_volume_path": ""})
    await tick(world)
    levels = ["READ", "USER", "ADMIN"]
    for method, path, body, needed in NEEDS:
        path = path.replace("/a", "/copy/a") if kind == SNAPSHOTS else path
        await world.call("DELETE", f"{kind}/data/permissions/bob")
        assert (await world.call(method, f"{kind}/data{path}", body, user="bob")).status_code == 404
        for level in levels:
            await world.post(f"{kind}/data/permissions", {"user": "bob", "level": level})
            status = (await world.call(method, f"{kind}/data{path}", body, user="bob")).status_code
            assert status == (200 if levels.index(level) >= levels.index(needed) else 403), (method, path, level)
    assert await world.get(kind, user="bob") == []


async def test_the_form_is_read_only_for_those_who_may_write(world: World, files: Path):
    read = 0

    async def body() -> Any:
        nonlocal read
        read += 1
        yield b"x"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    for user in (None, "bob"):
        response = await world.call("POST", f"{VOLUMES}/data/upload/a", content=body(), headers=headers, user=user)
        assert response.status_code in (401, 404)
    assert read == 0
    plain = await world.call("POST", f"{VOLUMES}/data/upload/a", {"file": "x"})
    assert (plain.status_code, "is no form" in plain.text) == (400, True)


# -- snapshots ---------------------------------------------------------------------------------------------------


async def test_a_snapshot_is_a_copy_that_stays_as_it_was(world: World, files: Path):
    await uploaded(world, "a/b", b"before")
    body = {"snapshot_id": "snap", "source_volume_id": "data", "source_volume_path": "/a", "destination_path": "kept"}
    asked = await world.post(SNAPSHOTS, body)
    assert asked["status"] == "REQUESTED"
    await tick(world)
    await uploaded(world, "a/b", b"after")
    await tick(world)
    assert (await world.get(f"{SNAPSHOTS}/snap"))["status"] == "AVAILABLE"
    assert [file["path"] for file in await world.get(f"{SNAPSHOTS}/snap/list")] == ["copy/kept/b"]
    assert (await contents(world, "copy/kept/b", f"{SNAPSHOTS}/snap")).content == b"before"
    assert "is being deleted" in await world.change("DELETE", f"{SNAPSHOTS}/snap")
    assert list((files / "snapshots").iterdir()) == []


async def test_copies_are_taken_by_the_schedule_and_kept_as_long_as_they_should(world: World, files: Path):
    await uploaded(world, "a", b"x")
    body = {"snapshot_id": "snap", "source_volume_id": "data", "source_volume_path": "", "cron": "0 * * * *"}
    await world.post(SNAPSHOTS, {**body, "retention_policy": "keep 2"})
    for hour in range(4):
        world.clock.now = BEGIN + timedelta(hours=hour, minutes=1)
        await tick(world)
        await tick(world)
    found = [file["path"] for file in await world.get(f"{SNAPSHOTS}/snap/list")]
    assert found == ["2026-03-01T14-00-00Z/a", "2026-03-01T15-00-00Z/a"]
    refused = await world.call("DELETE", f"{VOLUMES}/data")
    assert (refused.status_code, "copies volume 'data' by its schedule" in refused.text) == (409, True)


async def test_paths_of_a_snapshot_begin_in_the_volume_and_in_the_copy(world: World, files: Path):
    await uploaded(world, "a/b", b"x")
    body = {"snapshot_id": "snap", "source_volume_id": "data", "source_volume_path": "/a", "destination_path": "/in/it"}
    await world.post(SNAPSHOTS, {**body, "cron": "0 * * * *"})
    world.clock.now = BEGIN + timedelta(hours=1, minutes=1)
    await tick(world)
    assert [file["path"] for file in await world.get(f"{SNAPSHOTS}/snap/list")] == ["2026-03-01T12-00-00Z/in/it/b"]


async def test_what_is_no_copy_among_copies_keeps_none_from_being_taken(world: World, files: Path):
    await uploaded(world, "a", b"x")
    body = {"snapshot_id": "snap", "source_volume_id": "data", "source_volume_path": "", "cron": "0 * * * *"}
    await world.post(SNAPSHOTS, body)
    for hour in (1, 2):
        world.clock.now = BEGIN + timedelta(hours=hour, minutes=1)
        await tick(world)
        (kept,) = (files / "snapshots").iterdir()
        (kept / "notes").mkdir(exist_ok=True)
    names = sorted(path.name for path in kept.iterdir())
    assert names == ["2026-03-01T12-00-00Z", "2026-03-01T14-00-00Z", "notes"]


async def test_nothing_is_copied_for_whom_the_volume_was_taken_from(world: World, files: Path):
    await uploaded(world, "a", b"x")
    permissions = f"{VOLUMES}/data/permissions"
    await world.post(permissions, {"user": "bob", "level": "USER"})
    body = {"snapshot_id": "snap", "source_volume_id": "data", "source_volume_path": "", "cron": "0 * * * *"}
    await world.post(SNAPSHOTS, body, user="bob")
    await tick(world)
    await world.change("DELETE", f"{permissions}/bob")
    world.clock.now = BEGIN + timedelta(hours=2, minutes=1)
    await tick(world)
    snapshot = await world.get(f"{SNAPSHOTS}/snap", user="bob")
    assert (snapshot["status"], "bob needs USER on volume 'data'" in snapshot["message"]) == ("AVAILABLE", True)
    assert [file["path"] for file in await world.get(f"{SNAPSHOTS}/snap/list", user="bob")] == [
        "2026-03-01T12-00-00Z/a"
    ]


async def test_a_copy_larger_than_the_limit_is_not_kept_and_said_so(world: World, files: Path):
    await world.change("PUT", f"{VOLUMES}/data", {"size_limit": 3})
    await uploaded(world, "a", bytes(2 * MIB))
    body = {"snapshot_id": "snap", "source_volume_id": "data", "source_volume_path": "", "size_limit": 1}
    await world.post(SNAPSHOTS, body)
    await tick(world)
    snapshot = await world.get(f"{SNAPSHOTS}/snap")
    assert (snapshot["status"], "larger than size_limit" in snapshot["message"]) == ("ERROR", True)
    assert await world.get(f"{SNAPSHOTS}/snap/list") == []


async def test_a_copy_that_died_half_way_is_taken_again(world: World, files: Path):
    await uploaded(world, "a", b"x")
    await uploaded(world, "b", b"y")
    await world.post(SNAPSHOTS, {"snapshot_id": "snap", "source_volume_id": "data", "source_volume_path": ""})
    loop, opened = PodFiles(world.ports, Moves(world.ports, lease_s=60)), world.ports.volumes

    class Dies(LocalStorage):
        async def move(self, source: str, target: str) -> None:
            raise asyncio.CancelledError

    ports = replace(world.ports, volumes=lambda place: Dies(files.parent / place))
    dying = PodFiles(ports, Moves(ports, lease_s=60))
    with pytest.raises(asyncio.CancelledError):
        await dying.tick()
    assert opened is world.ports.volumes
    await loop.tick()
    assert [file["path"] for file in await world.get(f"{SNAPSHOTS}/snap/list")] == ["copy/a", "copy/b"]
    (snapshot,) = (files / "snapshots").iterdir()
    assert [path.name for path in snapshot.iterdir()] == ["copy"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"cron": "often"}, "cron: 'often' is not a schedule"),
        ({"cron": "* * * * *"}, "cron: '* * * * *' comes twice within 5 minutes"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"retention_policy": "forever"}, "retention_policy: 'forever' is not understood"),
        ({"source_volume_path": "../x"}, "path"),
        ({"snapshot_id": "a-b"}, "snapshot_id"),
        ({"size_limit": 0}, "size_limit"),
    ],
)
async def test_a_snapshot_that_cannot_be_meant_is_refused(
    world: World, files: Path, changes: dict[str, Any], named: str
):
    body = {"snapshot_id": "snap", "source_volume_id": "data", "source_volume_path": "", **changes}
    refused = await world.call("POST", SNAPSHOTS, body)
    assert refused.status_code == 400, refused.text
    assert named in refused.json()["message"]


# -- schedules ---------------------------------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_a_schedule_comes_in_utc():
    assert next_at("0 3 * * *", NOW) == datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
    check_schedule("*/5 * * * *", NOW)
    with pytest.raises(SpecInvalid):
        check_schedule("0,4 3 * * *", NOW)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", Retention()),
        ("7", Retention(count=7)),
        ("keep 7", Retention(count=7)),
        ("12h", Retention(age=timedelta(hours=12))),
        ("8w", Retention(age=timedelta(weeks=8))),
    ],
)
def test_what_is_kept_is_said_by_number_or_age(text: str, meant: Retention):
    assert parse_retention(text) == meant


@given(
    st.sets(st.integers(0, 10_000)),
    st.one_of(st.none(), st.integers(1, 20)),
    st.one_of(st.none(), st.timedeltas(timedelta(hours=1), timedelta(days=5))),
)
def test_the_newest_is_always_kept_and_no_older_one_longer_than_a_newer(minutes, count, age):
    taken = [NOW - timedelta(minutes=each) for each in minutes]
    dropped = Retention(count, age).dropped(taken, NOW)
    kept = set(taken) - set(dropped)
    assert not taken or max(taken) in kept
    assert not kept or not dropped or max(dropped) < min(kept)
    assert count is None or len(kept) <= count
