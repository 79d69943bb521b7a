"""Images as files: what a user gives to Berth, how much, and that nobody else reads it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from images.exchange import Exchange, Rules
from images.pushed import Pushes
from images.reference import PushedReference, parse_reference
from images.sif import write_sif
from images.sources import MemorySink
from scheduler.model.errors import NotFound
from scheduler.ports import nothing_to_close
from scheduler.wiring import personal_images
from tests.api.world import World
from tests.fakes.images import file, oci_image
from tests.fakes.tenant import AMD64

FILES = "/v3/images/files"
SQUASHFS = b"hsqs" + bytes(range(256)) * 300
LIMIT_BYTES = 2**20


def may_push(world: World, folder: Path, limit_bytes: int = 2**30) -> None:
    """As if the operator allowed it."""
    exchange = Exchange(httpx.AsyncClient(transport=world.web), Rules())
    pushes = Pushes(folder, limit_bytes)
    images = personal_images(exchange, None, (), world.database.reading, nothing_to_close, pushes)
    world.ports = replace(world.ports, images=images)
    world.app.state.edge = replace(world.app.state.edge, ports=world.ports)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def pushing(world: World, tmp_path: Path) -> Iterator[World]:
    """Each user may keep a MiB."""
    may_push(world, tmp_path / "pushed", LIMIT_BYTES)
    yield world
    parts = [path.name for path in (tmp_path / "pushed").glob("*.part")]
    assert parts == []


async def put(world: World, content: bytes, digest: str = "", user: str = "ada", **params: str) -> Any:
    path = f"{FILES}/{digest or digest_of(content)}"
    return await world.call("PUT", path, user=user, params=params, content=content)


async def pushed(world: World, content: bytes, user: str = "ada") -> Any:
    answer = await put(world, content, user=user, name="solver.sif")
    assert answer.is_success, answer.text
    return answer.json()["result"]


def sif(tmp_path: Path) -> bytes:
    (tmp_path / "tree.sqfs").write_bytes(SQUASHFS)
    write_sif(tmp_path / "tree.sqfs", digest_of(SQUASHFS), "amd64", {}, tmp_path / "it.sif")
    return (tmp_path / "it.sif").read_bytes()


def archive(tmp_path: Path) -> bytes:
    layout = oci_image(tmp_path / "layout", [file("etc/os-release", b"ID=tiny")], Cmd=["sh"])
    return tar_of({str(path.relative_to(layout)): path.read_bytes() for path in layout.rglob("*") if path.is_file()})


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


async def test_a_file_is_kept_once_and_read_back_as_it_came(pushing: World, tmp_path: Path):
    content = sif(tmp_path)
    first, again = await pushed(pushing, content), await pushed(pushing, content)
    assert first | {"created": ""} == again | {"created": ""}
    assert (first["kind"], first["size"], first["name"]) == ("sif", len(content), "solver.sif")
    assert first["reference"] == f"berth://{digest_of(content)}"
    assert await pushing.get(FILES) == [again]
    assert await pushing.get(f"{FILES}/{digest_of(content)}") == again
    source = pushing.ports.images.source_for("dev", "ada")
    found = await source.resolve(parse_reference(first["reference"]), AMD64)
    sink = MemorySink()
    await source.fetch(found.reference, found.manifest.sif, sink)
    assert (found.config, sink.blob) == (None, content)


async def test_files_are_searched_sorted_and_paged_like_other_lists(pushing: World, tmp_path: Path):
    first, second = await pushed(pushing, sif(tmp_path)), await pushed(pushing, archive(tmp_path))
    page = (await pushing.call("GET", FILES, params={"limit": 1, "computeTotal": "true"})).json()
    assert page["metadata"]["totalCount"] == 2
    assert page["metadata"]["berth"]["next"] == {"skip": 1, "limit": 1}
    rest = await pushing.get(FILES, params={"limit": 1, "skip": 1})
    assert {each["digest"] for each in page["result"] + rest} == {first["digest"], second["digest"]}
    assert await pushing.get(FILES, params={"search": f"size.gte.{2**62}"}) == []
    only = await pushing.get(FILES, params={"search": "kind.eq.sif", "select": "digest"})
    assert only == [{"digest": first["digest"]}]
    by_size = await pushing.get(FILES, params={"orderBy": "size(desc)"})
    assert [each["size"] for each in by_size] == sorted((first["size"], second["size"]), reverse=True)
    refused = await pushing.call("GET", FILES, params={"search": "user.eq.bob"})
    assert (refused.status_code, "use one of digest" in refused.json()["message"]) == (400, True)


async def test_an_archive_is_an_image_with_needs_and_layers(pushing: World, tmp_path: Path):
    made = await pushed(pushing, archive(tmp_path))
    assert made["kind"] == "oci-archive"
    shown = await pushing.get("/v3/images/inspect", params={"reference": made["reference"]})
    assert (shown["reference"], shown["command"], shown["layers"]) == (made["reference"], ["sh"], 1)
    source = pushing.ports.images.source_for("dev", "ada")
    found = await source.resolve(parse_reference(made["reference"]), AMD64)
    sink = MemorySink()
    await source.fetch(found.reference, found.manifest.layers[0], sink)
    assert digest_of(sink.blob or b"") == found.manifest.layers[0].digest


async def test_nobody_else_sees_reads_or_removes_it(pushing: World):
    made = await pushed(pushing, SQUASHFS)
    for user in ("bob", "admin"):
        assert await pushing.get(FILES, user=user) == []
        for method, path, params in (
            ("GET", f"{FILES}/{made['digest']}", {}),
            ("DELETE", f"{FILES}/{made['digest']}", {}),
            ("GET", "/v3/images/inspect", {"reference": made["reference"]}),
        ):
            assert (await pushing.call(method, path, params=params, user=user)).status_code == 404
    for source in (pushing.ports.images.public, pushing.ports.images.source_for("other", "ada")):
        with pytest.raises(NotFound, match="you pushed no such file; berth images push FILE"):
            await source.resolve(PushedReference(made["digest"]), AMD64)


async def test_the_bytes_go_when_the_last_who_pushed_them_removes_them(pushing: World, tmp_path: Path):
    made = await pushed(pushing, SQUASHFS)
    await pushed(pushing, SQUASHFS, "bob")
    path = tmp_path / "pushed" / made["digest"].removeprefix("sha256:")
    await pushing.change("DELETE", f"{FILES}/{made['digest']}")
    assert (await pushing.get(FILES), path.exists()) == ([], True)
    await pushing.change("DELETE", f"{FILES}/{made['digest']}", user="bob")
    assert not path.exists()


async def test_what_the_disk_lost_is_not_said_to_be_there(pushing: World, tmp_path: Path):
    made = await pushed(pushing, SQUASHFS)
    (tmp_path / "pushed" / made["digest"].removeprefix("sha256:")).unlink()
    assert (await pushing.call("GET", f"{FILES}/{made['digest']}")).status_code == 404
    assert (await pushed(pushing, SQUASHFS))["digest"] == made["digest"]
    assert (await pushing.call("GET", f"{FILES}/{made['digest']}")).status_code == 200


@pytest.mark.parametrize(
    ("content", "digest", "said"),
    [
        (SQUASHFS, "sha256:" + "0" * 64, "digest: is not that of the 76804 bytes that came"),
        (SQUASHFS, "sha256:..", "digest: is no digest"),
        (SQUASHFS, "md5:1", "digest: is no digest"),
        (b"", "", "is shorter than a SIF header"),
        (b"hello" * 100, "", "is not a SIF file of version 01"),
        (tar_of({"readme": b"x"}), "", "file: is a tar, and no image; push a SIF, or what docker save"),
        (b"\x1f\x8b" + bytes(600), "", "is compressed as a whole"),
        (b"hsqs" + bytes(LIMIT_BYTES), "", "file: is larger than the 1048576 bytes that you may still push"),
    ],
)
async def test_what_is_no_image_or_too_large_says_why_and_leaves_nothing(
    pushing: World, tmp_path: Path, content: bytes, digest: str, said: str
):
    answer = await put(pushing, content, digest)
    assert (answer.status_code, said in answer.json()["message"]) == (400, True), answer.text
    assert await pushing.get(FILES) == []
    assert list((tmp_path / "pushed").glob("*")) == []


async def test_all_that_a_user_pushed_counts_and_an_unsaid_length_does_not_help(pushing: World):
    half = b"hsqs" + bytes(LIMIT_BYTES // 2)
    await pushed(pushing, half)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"hsqs" + bytes(LIMIT_BYTES // 4)

    answer = await pushing.call("PUT", f"{FILES}/sha256:{'1' * 64}", content=pieces())
    assert (answer.status_code, "you may still push" in answer.json()["message"]) == (400, True)
    assert (await put(pushing, half, user="bob")).is_success
    assert (await pushed(pushing, half))["size"] == len(half)


async def test_files_that_are_pushed_at_once_count_together(pushing: World, tmp_path: Path):
    whole = b"hsqs" + bytes(LIMIT_BYTES * 2 // 3)

    async def pieces() -> AsyncIterator[bytes]:
        yield whole[:1000]
        await pushed(pushing, whole + b"another")
        yield whole[1000:]

    answer = await pushing.call("PUT", f"{FILES}/{digest_of(whole)}", content=pieces())
    assert (answer.status_code, "you may still push" in answer.json()["message"]) == (400, True)
    assert [image["digest"] for image in await pushing.get(FILES)] == [digest_of(whole + b"another")]
    assert len(list((tmp_path / "pushed").iterdir())) == 1


async def test_the_files_of_a_user_who_is_gone_go_unless_others_pushed_them(pushing: World, tmp_path: Path):
    await pushed(pushing, SQUASHFS, "bob")
    await pushed(pushing, SQUASHFS + b"own", "bob")
    await pushed(pushing, SQUASHFS, "ada")
    await pushing.change("DELETE", "/v3/oauth2/profiles/bob", user="admin")
    assert [path.name for path in (tmp_path / "pushed").iterdir()] == [digest_of(SQUASHFS).removeprefix("sha256:")]


async def test_where_the_operator_allows_nothing_the_way_out_is_named(world: World):
    answer = await put(world, SQUASHFS)
    assert (answer.status_code, "BERTH_IMAGE_PUSH_LIMIT_MIB" in answer.json()["message"]) == (400, True)
    assert (await world.call("PUT", f"{FILES}/sha256:1", user=None, content=b"x")).status_code == 401
