"""What users may ask about images, and what the server does not let them reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest

from images.bring import Bringer
from images.errors import ImageUnusable
from images.reference import parse_reference
from images.streams import Limits
from images.workshop import Workshop
from scheduler import wiring
from scheduler.addresses import GuardedTransport
from scheduler.model.errors import FileRefused
from scheduler.settings import Settings
from tests.api.world import World
from tests.fakes.registry import always, reply
from tests.fakes.tenant import AMD64, busy
from tests.images.tarballs import entry, tar

PATH = "/v3/images/inspect"
STATUS = b"Package: libpmix2\nVersion: 4.2.2-1\n\n"


async def refused(world: World, **params: str) -> tuple[int, str]:
    response = await world.call("GET", PATH, params=params)
    return response.status_code, response.json()["message"]


def may_unpack(world: World, home: Path, limit_bytes: int = 2**20) -> None:
    """As if the operator allowed it."""
    images = world.ports.images
    assert images is not None
    limits = Limits(unpacked_bytes=limit_bytes, file_bytes=limit_bytes)
    bringer = Bringer(Workshop(home), limits=limits, keeps_bytes=0)
    world.ports = replace(world.ports, images=replace(images, bringer=bringer))
    world.app.state.edge = replace(world.app.state.edge, ports=world.ports)


async def test_a_light_look_moves_no_layer_and_shows_each_need_with_its_evidence(world: World):
    asked: list[str] = []

    def note(request: httpx.Request) -> None:
        asked.append(request.url.path)

    world.registry.faults.append(note)
    shown = await world.get(PATH, params={"reference": "registry.test/hello:0.1"})
    assert (shown["entryPoint"], shown["environment"]) == (["hello"], {"PATH": "/bin"})
    assert shown["needs"][0]["evidence"] == [{"source": "label", "detail": "berth.require.cuda=>=12.2"}]
    blobs = [path.rpartition("/")[2] for path in asked if "/blobs/" in path]
    assert blobs == [shown["configDigest"]]


async def test_of_several_platforms_the_one_asked_for_is_shown_and_another_is_refused_with_what_there_is(world: World):
    world.registry.push_index("many", "1", "linux/amd64", "linux/arm64")
    shown = await world.get(PATH, params={"reference": "registry.test/many:1", "platform": "linux/arm64"})
    assert shown["platform"] == "linux/arm64"
    assert shown["indexDigest"] in shown["reference"]
    assert shown["digest"] != shown["indexDigest"]
    status, message = await refused(world, reference="registry.test/many:1", platform="linux/riscv64")
    assert (status, "it has linux/amd64, linux/arm64" in message) == (400, True)


@pytest.mark.parametrize(
    ("params", "status", "said"),
    [
        ({}, 400, "reference: is missing"),
        ({"reference": "registry.test/none:1"}, 404, "has no such repository, tag or digest"),
        ({"reference": "http://registry.test/app.sif"}, 400, "reference: 'http://registry.test/app.sif' would come"),
        ({"reference": "/etc/passwd"}, 400, "lies on a system"),
        ({"reference": "oci:../../etc"}, 400, "leads elsewhere"),
        ({"reference": "oci:etc"}, 400, "does not lie in a folder that images may be read from"),
        ({"reference": "registry.test/hello:0.1", "platform": "x86_64"}, 400, "write linux/amd64"),
        ({"reference": "registry.test/hello:0.1", "platform": "linux/amd64/../v2"}, 400, "is no platform"),
        ({"reference": "registry.test/hello:0.1", "deep": "true"}, 400, "BERTH_IMAGE_UNPACK_LIMIT_MIB"),
    ],
)
async def test_what_cannot_be_shown_says_why(world: World, params: dict[str, str], status: int, said: str):
    found, message = await refused(world, **params)
    assert (found, said in message) == (status, True), message


async def test_a_registry_that_is_down_or_talks_nonsense_is_no_bug_of_ours(world: World):
    world.registry.faults.append(always(busy(503)))
    assert (await refused(world, reference="registry.test/hello:0.1"))[0] == 503
    world.registry.faults[:] = [always(lambda _: reply(200, ["nonsense"]))]
    assert (await refused(world, reference="registry.test/hello:0.1"))[0] in (400, 503)


async def test_nobody_asks_without_a_token(world: World):
    response = await world.call("GET", PATH, params={"reference": "registry.test/hello:0.1"}, user=None)
    assert response.status_code == 401


async def test_text_that_is_no_unicode_is_refused_and_not_a_server_error(world: World):
    world.registry.push_image("odd", "1", Labels={"a": "\ud800"}, Env=["B=\ud800"], Entrypoint=["\udfff"])
    assert (await refused(world, reference="registry.test/odd:1"))[0] in (200, 400)


# -- looking into it ---------------------------------------------------------------------------------------------


async def test_a_deep_look_sees_files_and_keeps_nothing_but_what_it_learnt(world: World, tmp_path: Path):
    world.registry.push_image("deep", "1", (tar(entry("var/lib/dpkg/status", STATUS)),))
    may_unpack(world, tmp_path / "images")
    for _ in range(2):
        shown = await world.get(PATH, params={"reference": "registry.test/deep:1", "deep": "true"})
        assert (shown["filesSeen"], shown["unpackedSize"]) == (True, len(STATUS))
        assert {need["need"]: need["value"] for need in shown["needs"]}["mpi"] == []
    left = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert [path.parent.name for path in left] == ["needs"]


async def test_a_deep_look_ends_at_the_operator_s_limit(world: World, tmp_path: Path):
    world.registry.push_image("big", "1", (tar(entry("zeros", bytes(2**16))),))
    may_unpack(world, tmp_path / "images", limit_bytes=2**15)
    status, message = await refused(world, reference="registry.test/big:1", deep="true")
    assert (status, "more than 32768 bytes" in message) == (400, True), message
    assert not [path for path in (tmp_path / "images").rglob("*") if path.is_file()]


# -- where the server connects ------------------------------------------------------------------------------------


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Names and their addresses; what is connected to answers with the request that it got."""
    names: dict[str, str] = {}

    async def look_up(host: str) -> list[object]:
        return [ip_address(names[host])]

    async def connected(transport: object, request: httpx.Request) -> httpx.Response:
        return reply(200, {"to": str(request.url), "as": request.headers["host"]})

    monkeypatch.setattr("scheduler.addresses.addresses_of", look_up)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", connected)
    return names.__setitem__


async def test_a_registry_is_reached_at_the_address_that_was_checked(looked_up: Callable[[str, str], None]):
    looked_up("reg.org", "8.8.8.8")
    async with httpx.AsyncClient(transport=GuardedTransport(())) as http:
        assert (await http.get("https://reg.org:5000/v2/")).json() == {
            "to": "https://8.8.8.8:5000/v2/",
            "as": "reg.org:5000",
        }


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:127.0.0.1"])
async def test_a_private_address_is_not_reached(looked_up: Callable[[str, str], None], address: str):
    looked_up("inside.org", address)
    async with httpx.AsyncClient(transport=GuardedTransport(())) as http:
        with pytest.raises(FileRefused, match=r"inside\.org: .* is not a public address"):
            await http.get("https://inside.org/v2/")


async def test_what_the_operator_named_is_reached_under_that_port_alone(looked_up: Callable[[str, str], None]):
    looked_up("login", "10.0.0.1")
    async with httpx.AsyncClient(transport=GuardedTransport((), {"login:5000"})) as http:
        assert (await http.get("http://login:5000/v2/")).json()["to"] == "http://login:5000/v2/"
        with pytest.raises(FileRefused):
            await http.get("http://login:6379/")


def no_store() -> Any:
    raise AssertionError("nobody's logins are asked for")


async def test_the_settings_say_what_may_be_reached(looked_up: Callable[[str, str], None], tmp_path: Path):
    looked_up("inside.org", "10.0.0.1")
    settings = Settings(home=tmp_path, plain_http_registries=("inside.org:5000",), image_unpack_limit_mib=0)
    images = wiring.images(settings, no_store)
    assert images.bringer is None
    with pytest.raises(FileRefused, match="not a public address"):
        await images.source.resolve(parse_reference("inside.org/app"), AMD64)
    with pytest.raises(ImageUnusable):  # it was asked, and is no registry
        await images.source.resolve(parse_reference("inside.org:5000/app"), AMD64)
    await images.aclose()
    allowed = wiring.images(Settings(home=tmp_path, image_unpack_limit_mib=1), no_store)
    assert allowed.bringer is not None
    await allowed.aclose()
