"""Sending images to stores: what is there does not travel, what came stays, and what is wrong is sent again."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.local.storage import LocalStorage
from backends.ssh.storage import SftpStorage
from images.chunks import index_of
from images.keeper import Held, Keeper, Sent
from images.programs.store import Store, answer
from images.store import ChunkDamaged, StoreFull, StorePolicy, StoreRefused
from images.workshop import Workshop
from scheduler.model.errors import BackendUnavailable, FileRefused, UnexpectedReply
from tests.contract.sshd import host_system, sshd
from tests.contract.subjects import eventually
from tests.images.stores import in_sight, leftovers

MIB = 1 << 20


@dataclass
class File:
    path: Path
    digest: str
    size_bytes: int


@dataclass
class World:
    """A store reached over ``run``, and what travels to it; faults come when told to."""

    home: Path
    run: object
    asked: list[str] = field(default_factory=list)
    body_bytes: int = 0
    spoil: dict[str, object] = field(default_factory=dict)
    """By verb and how often it was asked then: ``fill 2``."""

    async def watched(self, program: bytes, stdin: bytes) -> bytes:
        line, _, body = stdin.partition(b"\n")
        self.asked.append(json.loads(line)["do"])
        self.body_bytes += len(body)
        if spoil := self.spoil.pop(f"{self.asked[-1]} {self.asked.count(self.asked[-1])}", None):
            return await spoil(program, line, body)
        return await self.run(program, stdin)

    def keeper(self, owner="ada", **changes) -> Keeper:
        policy = StorePolicy(str(self.home / "stores"), **{k: changes.pop(k) for k in ("quota_bytes",) if k in changes})
        return Keeper(
            policy.of(owner), self.watched, **{"batch_bytes": MIB, "beat_s": 1, "chance": lambda: 1.0} | changes
        )

    def file(self, *seeds, size=MIB) -> File:
        content = b"".join(random.Random(seed).randbytes(size) for seed in seeds)
        path = self.home / f"image-{'-'.join(map(str, seeds))}"
        path.write_bytes(content)
        return File(path, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))

    def store(self, owner="ada") -> Store:
        return Store(str(self.home / "stores" / f"user-{owner}"))

    def locks(self) -> list[Path]:
        return list(Path(self.store()._path("locks")).iterdir())

    def let_time_pass_for_the_trash(self, digest) -> None:
        since = Path(self.store()._trash(digest) + ".since")
        since.write_text(repr(float(since.read_text()) - 600))


def same(path, file) -> bool:
    return Path(path).read_bytes() == file.path.read_bytes()


def gone(path) -> None:
    Path(path).unlink()


def spoilt(path) -> None:
    Path(path).chmod(0o644)
    Path(path).write_bytes(b"x" * MIB)


@pytest_asyncio.fixture(params=["local", "ssh"])
async def world(request, tmp_path):
    async with AsyncExitStack() as stack:
        if request.param == "local":
            storage = LocalStorage(tmp_path)
            stack.push_async_callback(storage.aclose)
        else:
            server = await stack.enter_async_context(sshd(tmp_path))
            connection = server.connection()
            stack.push_async_callback(connection.aclose)
            storage = SftpStorage(host_system(tmp_path), connection)
        yield World(tmp_path, storage.run_beside)


def decayed(path) -> None:
    """Other bytes that no look at size and times shows."""
    before = Path(path).stat()
    spoilt(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def beside(program, stdin):
    """The store's program in this process: the same code, without the start of an interpreter for each request."""
    await asyncio.sleep(0)
    line, _, body = stdin.partition(b"\n")
    return json.dumps(answer(json.loads(line), io.BytesIO(body))).encode()


@pytest.fixture
def near(tmp_path):
    return World(tmp_path, beside)


async def test_an_image_is_sent_once_and_then_asked_for_once(world):
    keeper, new = world.keeper(), world.file(1, 2, 3)
    assert await keeper.have(new.digest) is None
    sent = await keeper.send(new.path, new.digest, record={"oci": "x"})
    assert sent == Sent(str(world.store()._blob(new.digest)), new.size_bytes, new.size_bytes, 0)
    assert same(sent.path, new)
    assert world.store().record(new.digest) == {"record": {"oci": "x"}}
    world.asked.clear()
    assert await keeper.send(new.path, new.digest) == Sent(sent.path, new.size_bytes, 0, 0)
    assert world.asked == ["have"]
    assert not leftovers(world.store())


async def test_a_new_version_moves_what_is_new(world):
    keeper, old = world.keeper(), world.file(1, 2, 3, 4)
    await keeper.send(old.path, old.digest)
    new = world.file(1, 2, 9, 3, 4)
    sent = await keeper.send(new.path, new.digest)
    assert sent.sent_bytes + sent.reused_bytes == new.size_bytes
    assert MIB <= sent.sent_bytes < 1.5 * MIB  # the megabyte in the middle, and the chunks at its ends


async def test_what_stands_in_an_image_twice_travels_once(near):
    new = near.file(1, 1, 1)
    sent = await near.keeper().send(new.path, new.digest)
    assert sent.sent_bytes < 1.5 * MIB
    assert same(sent.path, new)


async def test_progress_goes_up_to_the_whole_image(near):
    told = []

    async def progress(done, of):
        told.append((done, of))

    new = near.file(1, 2, 3)
    await near.keeper().send(new.path, new.digest, progress=progress)
    assert told == sorted(told)
    assert (told[0], told[-1]) == ((0, new.size_bytes), (new.size_bytes, new.size_bytes))
    assert len(told) > 3


async def cut_before(program, line, body):
    raise BackendUnavailable("the link broke")


async def test_after_a_broken_link_only_the_rest_travels(world):
    keeper, new = world.keeper(), world.file(1, 2, 3, 4)
    world.spoil["fill 3"] = cut_before
    with pytest.raises(BackendUnavailable):
        await keeper.send(new.path, new.digest)
    came = world.body_bytes - MIB  # the last batch did not
    sent = await world.keeper().send(new.path, new.digest)  # another process
    assert sent.sent_bytes <= new.size_bytes - came
    assert same(sent.path, new)


async def test_a_link_that_is_cut_while_chunks_come_keeps_those_that_came(tmp_path):
    over, three = tmp_path / "over", tmp_path / "three"
    slow = f"""
put, count = _Part.put, []
def slowly(*args):
    put(*args)
    count.append(1)
    if len(count) == 3:
        open({str(three)!r}, "w")
        import time
        for _ in range(600):
            os.path.exists({str(over)!r}) or time.sleep(0.05)
_Part.put = slowly
main()
"""

    async def three_came() -> bool:
        return Path.exists(three)

    async with sshd(tmp_path) as server:
        connection = server.connection()
        world = World(tmp_path, SftpStorage(host_system(tmp_path), connection).run_beside)

        async def cut(program, line, body):
            patched = program.replace(b'if __name__ == "__main__":', b"if False:") + slow.encode()
            call = asyncio.create_task(world.run(patched, line + b"\n" + body))
            await eventually(three_came, "three chunks came")
            await server.hang_up()
            return await call

        world.spoil["fill 1"] = cut
        keeper, new = world.keeper(), world.file(1, 2)
        with pytest.raises(BackendUnavailable):
            await keeper.send(new.path, new.digest)
        sent = await keeper.send(new.path, new.digest)
        over.touch()
        await connection.aclose()
    assert sent.sent_bytes < new.size_bytes
    assert same(sent.path, new)


async def test_a_program_that_is_killed_midway_costs_at_most_its_batch(world):
    async def killed(program, line, body):
        half = program.replace(b'if __name__ == "__main__":', b"if False:")
        half += b"""
put, count = _Part.put, []
def deadly(*args):
    put(*args)
    count.append(1)
    if len(count) == 3:
        os.kill(os.getpid(), 9)
_Part.put = deadly
main()
"""
        return await world.run(half, line + b"\n" + body)

    keeper, new = world.keeper(), world.file(1, 2, 3)
    world.spoil["fill 2"] = killed
    with pytest.raises(BackendUnavailable):
        await keeper.send(new.path, new.digest)
    first = world.body_bytes
    sent = await keeper.send(new.path, new.digest)
    assert first + sent.sent_bytes < new.size_bytes + MIB
    assert in_sight(world.store()) == {new.digest}
    assert not leftovers(world.store())


async def flipped(world, line, body, program):
    return await world.run(program, line + b"\n" + bytes([body[0] ^ 1]) + body[1:])


async def test_chunks_that_arrive_damaged_are_sent_again(near):
    async def flip(program, line, body):
        return await flipped(near, line, body, program)

    near.spoil |= dict.fromkeys(("fill 1", "fill 3"), flip)
    new = near.file(1, 2)
    sent = await near.keeper().send(new.path, new.digest)
    assert near.asked.count("begin") == 3
    assert same(sent.path, new)


async def test_a_link_that_damages_everything_is_given_up(near):
    async def flip(program, line, body):
        return await flipped(near, line, body, program)

    near.spoil |= dict.fromkeys(("fill 1", "fill 2", "fill 3", "fill 4"), flip)
    new = near.file(1)
    with pytest.raises(ChunkDamaged):
        await near.keeper().send(new.path, new.digest)
    assert [verb for verb in near.asked if verb != "beat"] == ["have", "lock", *["begin", "fill"] * 4, "unlock"]


CHANGES = {"a flipped byte": lambda d: b"x" + d[1:], "one too few": lambda d: d[:-1], "nothing": lambda d: b""}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_file_that_is_not_its_digest_never_becomes_an_image(near, change):
    new = near.file(1, 2)
    workshop = Workshop(near.home / "workshop")
    await workshop.chunks_of(new.path, new.digest)
    new.path.write_bytes(CHANGES[change](new.path.read_bytes()))
    with pytest.raises(FileRefused, match="is damaged"):
        await near.keeper(chunks_of=workshop.chunks_of).send(new.path, new.digest)
    assert not in_sight(near.store())


async def test_what_was_begun_and_is_swept_away_is_begun_again(near):
    async def swept(program, line, body):
        for path in leftovers(near.store()):
            path.unlink()
        return await near.run(program, line + b"\n" + body)

    near.spoil["fill 2"] = swept
    new = near.file(1, 2, 3)
    sent = await near.keeper().send(new.path, new.digest)
    assert near.asked.count("begin") == 2
    assert same(sent.path, new)


async def test_a_full_store_lets_go_of_what_nobody_needs_and_says_so_when_that_is_not_enough(near):
    keeper = near.keeper(quota_bytes=int(3.5 * MIB))
    first, leased, third = near.file(1), near.file(2), near.file(3, 4)
    for each in (first, leased):
        await keeper.send(each.path, each.digest)
    await keeper.lease(leased.digest, "job-a")
    with pytest.raises(StoreFull, match="trash for less than"):
        await keeper.send(third.path, third.digest, live_jobs=["a"])
    assert in_sight(near.store()) == {leased.digest}
    near.let_time_pass_for_the_trash(first.digest)
    await keeper.send(third.path, third.digest, live_jobs=["a"])
    assert in_sight(near.store()) == {leased.digest, third.digest}


async def test_an_image_in_the_trash_comes_back_and_does_not_travel(near):
    keeper, new = near.keeper(quota_bytes=2 * MIB), near.file(1)
    await keeper.send(new.path, new.digest)
    assert (await keeper.collect([], need_bytes=2 * MIB)).trashed == (new.digest,)
    assert (await keeper.send(new.path, new.digest)).sent_bytes == 0
    assert in_sight(near.store()) == {new.digest}


async def test_of_two_senders_of_one_image_one_waits_and_finds_it(near):
    new = near.file(1, 2, 3, 4)
    one, other = near.keeper(beat_s=1), near.keeper(beat_s=1)
    sent = await asyncio.gather(*(keeper.send(new.path, new.digest) for keeper in (one, other, one)))
    assert sorted(each.sent_bytes for each in sent) == [0, 0, new.size_bytes]
    assert near.body_bytes == new.size_bytes
    assert not near.locks()


async def test_the_image_of_a_sender_that_died_is_gone_on_with(near):
    new = near.file(1, 2, 3)
    dies, dead = asyncio.Event(), near.keeper(beat_s=0.1)

    async def hangs(program, line, body):
        dies.set()
        await asyncio.Event().wait()

    near.spoil |= {"fill 2": hangs, "unlock 1": cut_before}
    first = asyncio.create_task(dead.send(new.path, new.digest))
    await dies.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert near.locks()
    sent = await near.keeper(beat_s=0.1).send(new.path, new.digest)
    assert sent.sent_bytes < new.size_bytes
    assert in_sight(near.store()) == {new.digest}


async def test_a_sender_that_was_taken_for_dead_stops_and_waits(near):
    new = near.file(1, 2, 3)

    told = asyncio.Event()

    async def another_takes_it(program, line, body):
        said = await near.run(program, line + b"\n" + body)
        near.locks()[0].write_text(json.dumps({"host": "other", "pid": 1, "nonce": "other", "beat_s": 0.1}))
        near.spoil[f"beat {near.asked.count('beat') + 1}"] = says_so
        await told.wait()
        return said

    async def says_so(program, line, body):
        said = await near.run(program, line + b"\n" + body)
        told.set()
        return said

    near.spoil["fill 1"] = another_takes_it
    sent = await near.keeper(beat_s=0.1).send(new.path, new.digest)
    assert near.asked.count("lock") >= 2
    assert sent.sent_bytes == new.size_bytes == near.body_bytes
    assert in_sight(near.store()) == {new.digest}


async def test_leases_and_pins_hold_images_and_a_collection_tells_what_went(near):
    keeper = near.keeper(quota_bytes=4 * MIB)
    files = [near.file(number) for number in range(3)]
    assert await keeper.lease(files[0].digest, "job-berth-1") is None
    for each in files:
        await keeper.send(each.path, each.digest)
    assert await keeper.pin(files[1].digest, "owner") == Held(str(near.store()._blob(files[1].digest)), MIB)
    assert {each.digest: each.leases for each in (await keeper.stats()).images} == {
        files[0].digest: ("job-berth-1",),
        files[1].digest: ("pin-owner",),
        files[2].digest: (),
    }
    collected = await keeper.collect(["berth-1"], need_bytes=2 * MIB)
    assert collected.trashed == (files[2].digest,)
    await keeper.release(files[0].digest, "job-berth-1")
    await keeper.unpin(files[1].digest, "owner")
    assert set((await keeper.collect([], need_bytes=4 * MIB)).trashed) == {files[0].digest, files[1].digest}
    assert await keeper.lease(files[2].digest, "job-x") == Held(str(near.store()._blob(files[2].digest)), MIB)


async def test_damage_in_the_store_is_found_and_its_books_put_right(near):
    keeper, new = near.keeper(), near.file(1)
    path = (await keeper.send(new.path, new.digest)).path
    assert await keeper.verify(new.digest)
    assert await keeper.index(new.digest) == index_of(new.path)
    gone(path)
    assert (await keeper.repair()).gone == (new.digest,)
    await keeper.send(new.path, new.digest)
    spoilt(path)
    assert not await keeper.verify(new.digest)
    assert await keeper.have(new.digest) is None


async def test_now_and_then_an_image_is_read_before_it_is_leased(near):
    chances, new = [0.5, 0.001, 0.001], near.file(1)
    keeper = near.keeper(chance=lambda: chances.pop(0))
    await keeper.send(new.path, new.digest)
    assert await keeper.lease(new.digest, "job-a")
    assert "verify" not in near.asked
    assert await keeper.lease(new.digest, "job-b")
    assert near.asked[-1] == "verify"
    decayed(near.store()._blob(new.digest))
    assert await keeper.lease(new.digest, "job-c") is None
    assert not in_sight(near.store())


@pytest.mark.parametrize(
    "answer",
    [
        b"[]",
        b"{}x",
        b'{"have": true}',
        b'{"have": true, "size_bytes": "many"}',
    ],
)
async def test_answers_that_make_no_sense_are_told_and_believed_by_nobody(near, answer):
    async def run(program, stdin):
        return answer

    with pytest.raises(UnexpectedReply):
        await Keeper(StorePolicy("/s").of("ada"), run).have(near.file(1).digest)


@pytest.mark.parametrize("missing", [[99], [-1], ["0"], {}, [True]])
async def test_chunks_that_there_are_not_are_not_sent(near, missing):
    async def run(program, stdin):
        verb = json.loads(stdin.partition(b"\n")[0])["do"]
        return json.dumps(
            {"have": False, "held": True, "missing": missing, "part": "a"} if verb != "have" else {}
        ).encode()

    new = near.file(1)
    with pytest.raises(UnexpectedReply):
        await Keeper(StorePolicy("/s").of("ada"), run).send(new.path, new.digest)


async def test_a_store_that_cannot_be_used_says_why(near):
    (near.home / "stores").write_text("in the way")
    with pytest.raises(StoreRefused, match="cannot be made"):
        await near.keeper().have(near.file(1).digest)


async def test_a_file_is_cut_once_for_all_who_send_it(near, monkeypatch):
    new, workshop, cuts = near.file(1, 2), Workshop(near.home / "workshop"), []
    monkeypatch.setattr("images.workshop.index_of", lambda path: cuts.append(path) or index_of(path))
    first, second = await asyncio.gather(*(workshop.chunks_of(new.path, new.digest) for _ in range(2)))
    again = await Workshop(near.home / "workshop").chunks_of(new.path, new.digest)
    assert first == second == again == index_of(new.path)
    assert cuts == [new.path]
    kept = near.home / "workshop" / "chunks" / f"{new.digest[7:]}.json"
    kept.write_text('[[1, "')  # a lost power supply
    kept.with_name(f".{kept.name}").write_text("[")  # and a killed process
    assert await workshop.chunks_of(new.path, new.digest) == first
    assert list(kept.parent.iterdir()) == [kept]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    versions=st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=1, max_size=3),
    batch_bytes=st.sampled_from([1, 70_000, MIB]),
)
async def test_exactly_the_chunks_travel_that_no_image_there_has(near, versions, batch_bytes, tmp_path_factory):
    world = World(tmp_path_factory.mktemp("each"), near.run)
    held: set[str] = set()
    keeper = world.keeper(batch_bytes=batch_bytes)
    for version in versions:
        new = world.file(*version, size=100_000)
        index, before = index_of(new.path), world.body_bytes
        sent = await keeper.send(new.path, new.digest)
        assert sent.sent_bytes == world.body_bytes - before == index.bytes_of(index.missing(held))
        assert same(sent.path, new)
        held |= {chunk.sha256 for chunk in index.chunks}
