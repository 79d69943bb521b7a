"""The contract of Storage: whole files, clear misses, and no way out of the root directory."""

import contextlib
import hashlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from backends.base import Storage
from scheduler.model.errors import BackendUnavailable, FileMissing, FileRefused, NothingLearnt
from scheduler.model.runs import FileKind
from tests.contract.subjects import StorageSubject
from tests.contract.systems import STORAGES


@pytest_asyncio.fixture(params=STORAGES)
async def subject(request, tmp_path) -> AsyncIterator[StorageSubject]:
    async with STORAGES[request.param](tmp_path) as subject:
        yield subject


@pytest.fixture
def storage(subject) -> Storage:
    return subject.storage


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def broken() -> AsyncIterator[bytes]:
    yield b"half"
    raise ConnectionResetError("the sender went away")


async def content(storage: Storage, path: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join([piece async for piece in storage.read(path, offset, length)])


async def test_a_file_is_written_whole_and_read_back(storage):
    assert await storage.write("deep/er/a.txt", pieces(b"one ", b"", b"two")) == 7
    assert await content(storage, "deep/er/a.txt") == b"one two"
    found = await storage.stat("deep/er/a.txt")
    assert (found.path, found.name, found.kind, found.size_bytes) == ("deep/er/a.txt", "a.txt", FileKind.FILE, 7)
    assert found.modified_at.tzinfo is not None
    assert found.permissions.startswith("rw")


async def test_a_leading_slash_means_the_root_directory(storage):
    await storage.write("a", pieces(b"x"))
    assert await content(storage, "/a") == b"x"
    assert (await storage.stat("/")).kind is FileKind.DIRECTORY


async def test_an_empty_file_is_a_file(storage):
    assert await storage.write("empty", pieces()) == 0
    assert await content(storage, "empty") == b""


async def test_writing_again_replaces_the_whole_file(storage):
    await storage.write("a", pieces(b"a longer text"))
    await storage.write("a", pieces(b"short"))
    assert await content(storage, "a") == b"short"


async def test_a_broken_write_leaves_what_was_there_and_nothing_else(storage):
    await storage.write("a", pieces(b"before"))
    for name in ("a", "b"):
        with pytest.raises((ConnectionResetError, BackendUnavailable)):
            await storage.write(name, broken())
    assert await content(storage, "a") == b"before"
    assert [entry.name for entry in await storage.list("")] == ["a"]


async def test_reading_starts_and_stops_where_asked(storage):
    await storage.write("a", pieces(b"0123456789"))
    assert await content(storage, "a", 3) == b"3456789"
    assert await content(storage, "a", 3, 4) == b"3456"
    assert await content(storage, "a", 99) == b""


async def test_a_large_file_comes_in_pieces(storage):
    data = bytes(range(256)) * 8192
    await storage.write("big", pieces(data[:1000], data[1000:]))
    assert await content(storage, "big") == data
    assert await storage.checksum("big") == hashlib.sha256(data).hexdigest()


async def test_a_listing_is_by_name_and_pages(storage):
    for name in ("d/c", "d/a", "d/b", "d/e/inner"):
        await storage.write(name, pieces(b"x"))
    entries = await storage.list("d")
    assert [entry.name for entry in entries] == ["a", "b", "c", "e"]
    assert [entry.path for entry in entries] == ["d/a", "d/b", "d/c", "d/e"]
    assert entries[3].kind is FileKind.DIRECTORY
    assert [entry.name for entry in await storage.list("d", limit=2, offset=1)] == ["b", "c"]


async def test_listing_a_file_lists_that_file(storage):
    await storage.write("d/a", pieces(b"x"))
    assert [entry.path for entry in await storage.list("d/a")] == ["d/a"]


async def test_making_a_directory_twice_is_success(storage):
    await storage.make_directory("x/y")
    await storage.make_directory("x/y")
    assert (await storage.stat("x/y")).kind is FileKind.DIRECTORY


async def test_a_directory_where_a_file_is_is_refused(storage):
    await storage.write("a", pieces(b"x"))
    with pytest.raises(FileRefused):
        await storage.make_directory("a")
    await storage.make_directory("d")
    with pytest.raises(FileRefused):
        await storage.write("d", pieces(b"x"))


async def test_moving_takes_a_tree_along(storage):
    await storage.write("d/e/a", pieces(b"x"))
    await storage.move("d", "new/place")
    assert await content(storage, "new/place/e/a") == b"x"
    with pytest.raises(FileMissing):
        await storage.stat("d")


async def test_copying_leaves_the_source(storage):
    await storage.write("d/e/a", pieces(b"x"))
    await storage.copy("d", "f")
    await storage.copy("d/e/a", "g/b")
    assert await content(storage, "f/e/a") == b"x"
    assert await content(storage, "g/b") == b"x"
    assert await content(storage, "d/e/a") == b"x"


async def test_a_tree_is_not_copied_into_itself(storage):
    await storage.write("d/a", pieces(b"x"))
    with pytest.raises(FileRefused):
        await storage.copy("d", "d/within")


async def test_deleting_takes_a_tree_but_never_the_root(storage):
    await storage.write("d/e/a", pieces(b"x"))
    await storage.delete("d")
    with pytest.raises(FileMissing):
        await storage.stat("d")
    for root in ("", "/", "."):
        with pytest.raises(FileRefused):
            await storage.delete(root)


@pytest.mark.parametrize("path", ["none", "none/deeper", "a/none"])
async def test_what_is_missing_is_said_to_be_missing(storage, path):
    await storage.write("a.txt", pieces(b"x"))
    for call in (storage.stat(path), storage.list(path), storage.delete(path), storage.checksum(path)):
        with pytest.raises(FileMissing):
            await call
    for call in (storage.move(path, "b"), storage.copy(path, "b")):
        with pytest.raises(FileMissing):
            await call
    with pytest.raises(FileMissing):
        await content(storage, path)


async def test_reading_a_directory_is_refused(storage):
    await storage.make_directory("d")
    with pytest.raises(FileRefused):
        await content(storage, "d")
    with pytest.raises(FileRefused):
        await storage.checksum("d")


ESCAPES = ["..", "../x", "d/../../x", "d/../..", "nul\0byte", "way-out", "way-out/passwd", "one-file"]


@pytest.mark.parametrize("path", ESCAPES)
async def test_no_path_and_no_link_leads_out_of_the_root(subject, path):
    storage = subject.storage
    await storage.make_directory("d")
    await storage.write("mine", pieces(b"x"))
    subject.plant_link("way-out", subject.outside.rsplit("/", 1)[0])
    subject.plant_link("one-file", subject.outside)
    for call in (storage.stat(path), storage.list(path), storage.checksum(path)):
        with pytest.raises(FileRefused):
            await call
    for call in (storage.write(path, pieces(b"y")), storage.make_directory(path), storage.copy("mine", path)):
        with pytest.raises(FileRefused):
            await call
    with pytest.raises(FileRefused):
        await content(storage, path)
    with contextlib.suppress(FileRefused):  # a link may be copied as a link
        await storage.copy(path, "copy")
    with pytest.raises((FileRefused, FileMissing)):
        await content(storage, "copy")


async def test_an_absolute_path_is_never_that_of_the_host(subject):
    with pytest.raises((FileMissing, FileRefused)):
        await subject.storage.stat(subject.outside)


async def test_a_link_that_stays_inside_is_followed(subject):
    await subject.storage.write("real/a", pieces(b"x"))
    subject.plant_link("alias", "real")
    assert await content(subject.storage, "alias/a") == b"x"
    assert {entry.name: entry.kind for entry in await subject.storage.list("")}["alias"] is FileKind.LINK


async def test_what_is_moved_onto_a_link_does_not_go_where_it_leads(subject):
    await subject.storage.make_directory("real")
    subject.plant_link("alias", "real")
    await subject.storage.write("f", pieces(b"moved"))
    with contextlib.suppress(FileRefused):  # else it takes the link's place
        await subject.storage.move("f", "alias")
        assert await content(subject.storage, "alias") == b"moved"
    assert await subject.storage.list("real") == []


async def test_deleting_a_link_leaves_what_it_points_to(subject):
    await subject.storage.write("real/a", pieces(b"x"))
    subject.plant_link("alias", "real")
    subject.plant_link("way-out", subject.outside)
    await subject.storage.delete("alias")
    await subject.storage.delete("way-out")
    assert await content(subject.storage, "real/a") == b"x"
    assert [entry.name for entry in await subject.storage.list("")] == ["real"]


SAYS_WHAT_IT_READ = b"""
import hashlib, os, sys
read = sys.stdin.buffer.read()
sys.stdout.write("%d %s" % (len(read), hashlib.sha256(read).hexdigest()))
"""
SHOWS_ITS_COMMAND_LINE = b"""
import sys
sys.stdout.buffer.write(open("/proc/self/cmdline", "rb").read() + open("/proc/self/environ", "rb").read())
"""


@pytest.mark.parametrize("size", [0, 1, 32 << 20])
async def test_a_program_reads_all_that_it_is_given(storage, size):
    given = (bytes(range(256)) * (size // 256 + 1))[:size]
    said = await storage.run_beside(SAYS_WHAT_IT_READ, given)
    assert said.decode() == f"{size} {hashlib.sha256(given).hexdigest()}"


async def test_neither_a_program_nor_its_request_is_on_a_command_line(storage):
    said = await storage.run_beside(SHOWS_ITS_COMMAND_LINE, b"a secret request")
    assert b"python" in said
    assert b"secret" not in said
    assert b"sys.stdout.buffer.write(open" not in said


async def test_a_program_need_not_read_what_it_is_given(storage):
    assert await storage.run_beside(b"print('done')", bytes(8 << 20)) == b"done\n"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (b"raise ValueError('seven')", "seven"),
        (b"import sys; sys.exit('no room')", "no room"),
        (b"import os, sys; sys.stdin.buffer.read(1 << 20); os.kill(os.getpid(), 9)", "was ended"),
        (b"import sys; sys.stdout.buffer.write(bytes(9 << 20))", "8 MiB"),
        (b"this is no Python", "SyntaxError"),
    ],
    ids=["raises", "exits", "is killed midway", "writes without end", "is none"],
)
async def test_a_program_that_ends_badly_taught_nothing_and_the_next_one_is_run(storage, program, why):
    with pytest.raises(NothingLearnt, match=why):
        await storage.run_beside(program, bytes(16 << 20))
    assert await storage.run_beside(b"print('next')", b"") == b"next\n"
