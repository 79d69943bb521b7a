"""A directory of a storage as one of its own: nothing leads out of it, and no link is followed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backends.below import Below
from backends.local.storage import LocalStorage
from scheduler.model.errors import FileMissing, FileRefused
from scheduler.trees import files_below


async def pieces(*each: bytes) -> AsyncIterator[bytes]:
    for one in each:
        yield one


@pytest.fixture
async def volume(tmp_path: Path) -> AsyncIterator[Below]:
    outer = LocalStorage(tmp_path)
    (tmp_path / "volumes" / "other").mkdir(parents=True)
    (tmp_path / "volumes" / "other" / "secret").write_bytes(b"of somebody else")
    yield Below(outer, "volumes/mine")
    await outer.aclose()


async def test_paths_are_those_below_the_directory(volume, tmp_path):
    with pytest.raises(FileMissing):
        await volume.list("")
    assert await volume.write("a/b", pieces(b"one", b"two")) == 6
    assert (tmp_path / "volumes/mine/a/b").read_bytes() == b"onetwo"
    assert [(name, info.path) async for name, info in files_below(volume)] == [("a/b", "a/b")]
    assert (await volume.stat("")).path == ""
    assert b"".join([piece async for piece in volume.read("a/b", 3)]) == b"two"
    await volume.move("a", "c")
    await volume.copy("c/b", "d")
    assert await volume.checksum("c/b") == await volume.checksum("d")
    await volume.delete("c")
    assert [info.path for info in await volume.list("")] == ["d"]
    with pytest.raises(FileRefused):
        await volume.delete("")


@pytest.mark.parametrize("path", ["../other/secret", "out/secret", "up/other/secret", "link", "a/../../other/secret"])
async def test_nothing_leads_into_another(volume, tmp_path, path):
    await volume.write("a", pieces(b"x"))
    mine = tmp_path / "volumes" / "mine"
    (mine / "out").symlink_to("../other")
    (mine / "up").symlink_to("..")
    (mine / "link").symlink_to("../other/secret")
    for asked in (volume.stat(path), volume.list(path), volume.write(path, pieces(b"y")), volume.checksum(path)):
        with pytest.raises(FileRefused):
            await asked
    with pytest.raises(FileRefused):
        [piece async for piece in volume.read(path)]
    assert (tmp_path / "volumes/other/secret").read_bytes() == b"of somebody else"


async def test_a_link_that_is_deleted_or_moved_is_meant_itself(volume, tmp_path):
    await volume.write("a", pieces(b"x"))
    (tmp_path / "volumes/mine/out").symlink_to("../other")
    await volume.move("out", "gone")
    await volume.delete("gone")
    assert [info.path for info in await volume.list("")] == ["a"]
    assert (tmp_path / "volumes/other/secret").exists()
