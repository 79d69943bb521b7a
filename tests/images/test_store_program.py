"""The store of images on a system: what is in sight is whole, what is leased stays, and what was begun is continued."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import random
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from images.programs import store as program
from images.programs.store import Refused, Store, answer
from tests.images.stores import Clock, image, in_sight, leftovers, send

QUOTA = {"bytes": 1_000_000, "inodes": 100}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    return Store(str(tmp_path / "store"), clock=clock)


def refused(kind, why=None):
    return pytest.raises(Refused, match=why, check=lambda refusal: refusal.kind == kind)


def test_an_image_comes_in_once_and_is_then_there(store):
    new = image(1)
    assert store.have(new.digest) == {"have": False}
    assert send(store, new, record={"oci": "sha256:1"}) == len(new.content)
    assert store.have(new.digest)["size_bytes"] == len(new.content)
    assert store.record(new.digest) == {"record": {"oci": "sha256:1"}}
    assert send(store, new) == 0
    assert in_sight(store) == {new.digest}
    assert not leftovers(store)


def test_only_the_chunks_that_no_image_here_has_must_come(store):
    old, new = image(1), image(1, 9)
    send(store, old)
    assert send(store, new) == len(new.content) - len(old.content)


def test_a_cut_stream_costs_at_most_the_chunk_that_it_cut(store):
    new = image(1, 2, 3)
    missing = store.begin(new.digest, new.chunks)["missing"]
    cut = new.stream(missing).read()[:-1]
    left = store.fill(new.digest, new.chunks, missing, io.BytesIO(cut))["missing"]
    assert left == missing[-1:]
    again = Store(store.root, clock=store.clock)
    assert again.begin(new.digest, new.chunks)["missing"] == left
    assert send(again, new) == new.chunks[-1][0]


def test_what_was_begun_goes_on_by_its_name(store):
    new = image(1, 2)
    begun = store.begin(new.digest, new.chunks)
    assert store.fill(new.digest, begun["part"], [0], new.stream([0]))["missing"] == [1]
    store.fill(new.digest, begun["part"], [1], new.stream([1]))
    assert store.finish(new.digest, begun["part"])["have"]
    assert store.finish(new.digest, begun["part"])["have"]
    assert not leftovers(store)
    for lost in (begun["part"], "none"):
        with refused("not-begun"):
            store.fill(image(3).digest, lost, [0], image(3).stream([0]))
    with refused("invalid"):
        store.fill(new.digest, "../x", [0], new.stream([0]))


def test_the_same_bytes_come_once_wherever_they_stand(store):
    new = image(1, 2, 1, 1)
    assert store.begin(new.digest, new.chunks)["missing"] == [0, 1, 2, 3]
    assert store.fill(new.digest, new.chunks, [2], new.stream([2]))["missing"] == [1]
    assert send(store, new) == len(image(2).content)
    newer = image(2, 3, 2)
    assert store.begin(newer.digest, newer.chunks)["reused_bytes"] == 2 * len(image(2).content)


def test_a_flipped_byte_is_refused_and_what_came_before_it_stays(store):
    new = image(1, 2)
    missing = store.begin(new.digest, new.chunks)["missing"]
    sent = bytearray(new.stream(missing).read())
    sent[-1] ^= 1
    with refused("corrupt"):
        store.fill(new.digest, new.chunks, missing, io.BytesIO(bytes(sent)))
    assert store.begin(new.digest, new.chunks)["missing"] == missing[-1:]
    assert not in_sight(store)


def test_bytes_that_a_lost_power_supply_took_are_found_before_the_image_is_in_sight(store):
    new = image(1, 2)
    missing = store.begin(new.digest, new.chunks)["missing"]
    store.fill(new.digest, new.chunks, missing, new.stream(missing))
    part = next(Path(store._path("tmp")).glob("*.part"))
    part.write_bytes(b"\0" * 1000 + part.read_bytes()[1000:])
    assert store.finish(new.digest, new.chunks) == {"have": False, "missing": [0]}
    assert not in_sight(store)
    send(store, new)
    assert in_sight(store) == {new.digest}


def test_an_index_of_another_image_is_found_out(store):
    lie, true = image(1), image(2)
    missing = store.begin(lie.digest, true.chunks)["missing"]
    store.fill(lie.digest, true.chunks, missing, true.stream(missing))
    with refused("corrupt"):
        store.finish(lie.digest, true.chunks)
    assert not in_sight(store)
    assert not leftovers(store)


def test_a_file_that_a_job_made_is_taken_when_its_bytes_are_its_name(store, tmp_path):
    new = image(1)
    (tmp_path / "file").write_bytes(new.content)
    with refused("corrupt"):
        store.put(image(2).digest, str(tmp_path / "file"))
    assert store.put(new.digest, str(tmp_path / "file")) == {"have": True}
    assert in_sight(store) == {new.digest}
    assert not leftovers(store)


def test_a_damaged_image_leaves_sight_when_it_is_looked_at_and_can_come_again(store):
    new = image(1)
    send(store, new)
    path = Path(store.have(new.digest)["path"])
    path.chmod(0o644)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert store.have(new.digest) == {"have": False}
    assert not in_sight(store)
    assert send(store, new) == len(new.content)


def test_images_are_read_only_and_closed_to_others(store, tmp_path):
    send(store, image(1))
    for path in (tmp_path / "store").rglob("*"):
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    path = Path(store.have(image(1).digest)["path"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    shared = Store(str(tmp_path / "project"), mode=0o750, clock=store.clock)
    assert stat.S_IMODE(Path(shared._path("blobs")).stat().st_mode) == 0o750


@pytest.mark.parametrize("make", [lambda p: p.mkdir(mode=0o777), lambda p: p.symlink_to("/tmp"), lambda p: p.touch()])
def test_a_root_that_others_may_write_is_refused(tmp_path, make):
    old = os.umask(0)
    try:
        make(tmp_path / "store")
    finally:
        os.umask(old)
    with refused("unsafe"):
        Store(str(tmp_path / "store"))


# -- leases and collection -------------------------------------------------------------------------------------------


def fill_up(store, clock, count=9):
    """Images of about 100 kB each, a minute apart, under a quota for ten."""
    images = [image(number) for number in range(count)]
    for each in images:
        clock.now += 60
        send(store, each)
    return images


def test_the_least_recently_used_go_first_and_only_down_to_the_low_mark(store, clock):
    images = fill_up(store, clock)
    store.lease(images[0].digest, "job-a")
    store.release(images[0].digest, "job-a")
    gone = store.gc(QUOTA)["trashed"]
    assert gone == [each.digest for each in images[1 : 1 + len(gone)]]
    assert store.stats()["bytes"] - store.stats()["trash_bytes"] <= 0.62 * QUOTA["bytes"]
    assert store.gc(QUOTA)["trashed"] == []


def test_files_are_room_too(store, clock):
    fill_up(store, clock)
    assert store.gc({"inodes": 20})["trashed"]
    assert not store.gc({"inodes": 1000, "bytes": 10**9})["trashed"]


def test_images_go_for_one_that_is_to_come_until_it_fits(store, clock):
    images = [image(number) for number in range(4)]
    for each in images:
        clock.now += 10
        send(store, each)
    quota = {"bytes": 6 * len(images[0].content)}  # 66 % full: below the marks
    assert store.gc(quota)["trashed"] == []
    assert store.gc(quota, need_bytes=len(images[0].content))["trashed"] == []
    store.lease(images[1].digest, "job-x")
    gone = store.gc(quota, need_bytes=4 * len(images[0].content) - 20_000)["trashed"]
    assert gone == [images[0].digest, images[2].digest]


def test_leases_of_known_jobs_and_pins_keep_an_image(store, clock):
    images = fill_up(store, clock)
    for number, holder in enumerate(("job-lives", "pin-owner", "job-over")):
        store.lease(images[number].digest, holder)
    clock.now += 7200
    for each in images[3:]:
        store.lease(each.digest, "job-lives")
    assert store.gc({"bytes": 1}, live=["lives"])["trashed"] == [images[2].digest]
    assert store.gc({"bytes": 1})["trashed"] == []  # no word of which jobs live: all do


def test_one_image_is_removed_when_nobody_needs_it_and_comes_back_out_of_the_trash(store, clock):
    one, other = image(1), image(2)
    send(store, one)
    send(store, other)
    store.lease(one.digest, "job-over")
    os.utime(store._path("leases", one.digest[7:], "job-over"), (clock.now, clock.now))
    assert store.remove(one.digest, live=[], grace_s=60) == {"holders": ["job-over"]}
    assert store.remove(one.digest) == {"holders": ["job-over"]}, "nobody knows which jobs there are"
    clock.now += 61
    store.lease(other.digest, "job-over")
    assert store.remove(one.digest, live=[], grace_s=60) == {"holders": []}
    assert in_sight(store) == {other.digest}
    assert store.remove(one.digest, live=[]) == {"holders": []}, "what is gone is gone"
    assert store.stats()["images"][0]["leases"] == ["job-over"], "of other images nothing is touched"
    assert store.lease(one.digest, "job-new")["have"]


def test_a_fresh_lease_counts_though_its_job_is_not_known_yet(store, clock):
    images = fill_up(store, clock, 1)
    store.lease(images[0].digest, "job-new")
    os.utime(store._path("leases", images[0].digest[7:], "job-new"), (clock.now, clock.now))
    assert store.gc({"bytes": 1}, live=[])["trashed"] == []
    clock.now += 3601
    assert store.gc({"bytes": 1}, live=[])["trashed"] == [images[0].digest]


def test_an_image_that_nobody_can_be_about_to_open_gives_its_room_back_at_once(store, clock):
    images = fill_up(store, clock, 2)
    store.lease(images[1].digest, "pin-a")
    before = store.stats()["bytes"]
    assert store.remove(images[0].digest, at_once=True) == {"holders": []}
    assert store.stats()["trash_bytes"] == 0
    assert store.stats()["bytes"] <= before - len(images[0].content)
    assert store.remove(images[1].digest, at_once=True) == {"holders": ["pin-a"]}
    assert store.have(images[1].digest)["have"]


def test_an_image_in_the_trash_comes_back_when_it_is_leased_and_goes_for_good_after_its_time(store, clock):
    kept, lost = fill_up(store, clock, 2)
    store.gc({"bytes": 1})
    assert not in_sight(store)
    assert store.lease(kept.digest, "job-a")["have"]
    clock.now += 3601
    assert store.gc({"bytes": 1})["emptied"] == [lost.digest]
    assert in_sight(store) == {kept.digest}
    assert store.record(lost.digest) == {"record": None}
    assert send(store, lost) == len(lost.content)


def test_a_lease_made_while_the_image_is_being_collected_brings_it_back(store, clock):
    (new,) = fill_up(store, clock, 1)

    class Slow(Store):
        def _leased(self, digest):
            known = Store._leased(self, digest)
            store.lease(digest, "job-quick")  # just after the collector looked
            return known

    assert Slow(store.root, clock=clock).gc({"bytes": 1})["trashed"] == []
    assert in_sight(store) == {new.digest}


def test_an_image_for_which_there_is_no_room_is_refused_and_leaves_nothing(store, clock):
    fill_up(store, clock)
    new = image(50, 51)
    with refused("full"):
        store.begin(new.digest, new.chunks, quota=QUOTA)
    assert not leftovers(store)
    with refused("full"):
        store.begin(new.digest, new.chunks, quota={"inodes": 10})


def test_an_image_that_lacks_room_gets_that_of_the_trash_once_no_job_can_be_about_to_open_it(store, clock):
    fill_up(store, clock)
    new = image(50, 51)
    trashed = store.gc(QUOTA)["trashed"]
    clock.now += 299
    with refused("full", f"{store.stats()['trash_bytes']} bytes of them in the trash"):
        store.begin(new.digest, new.chunks, quota=QUOTA)
    store.lease(trashed[0], "job-a")  # comes back, as before
    clock.now += 1
    assert store.begin(new.digest, new.chunks, quota=QUOTA)["missing"]
    assert store.stats()["trash_bytes"] == 0
    assert in_sight(store) >= {trashed[0]}


def test_the_trash_stays_its_time_while_there_is_room(store, clock):
    (old,) = fill_up(store, clock, 1)
    store.gc({"bytes": 1})
    clock.now += 3000
    send(store, image(50), quota=QUOTA)
    assert store.lease(old.digest, "job-a")["have"]


def test_what_was_given_up_half_way_is_swept(store, clock):
    new = image(1)
    store.begin(new.digest, new.chunks)
    for path in leftovers(store):
        os.utime(path, (clock.now, clock.now))
    store.gc({})
    assert store.begin(new.digest, new.chunks)["missing"]
    clock.now += 90_000
    for path in leftovers(store):
        os.utime(path, (0, 0))
    store.gc({})
    assert not leftovers(store)


def test_what_a_purge_took_is_found_and_what_it_left_is_known_again(store):
    purged, nameless, damaged = image(1), image(2), image(3)
    for each in (purged, nameless, damaged):
        send(store, each)
    Path(store._blob(purged.digest)).unlink()
    Path(store._meta(nameless.digest)).unlink()
    Path(store._meta(damaged.digest)).unlink()
    Path(store._blob(damaged.digest)).chmod(0o644)
    Path(store._blob(damaged.digest)).write_bytes(b"no")
    Path(store._path("locks")).rmdir()
    found = store.repair()
    assert found == {"gone": [purged.digest], "adopted": [nameless.digest], "corrupt": [damaged.digest]}
    assert in_sight(store) == {nameless.digest}
    assert store.repair() == {"gone": [], "adopted": [], "corrupt": []}


@pytest.mark.parametrize("steps", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_in_any_order_no_leased_image_goes_and_the_quota_holds(steps, tmp_path, clock):
    store, chance, leased = Store(str(tmp_path / "store"), clock=clock), random.Random(steps), {}
    images = [image(number, size=5_000 + 1_000 * number) for number in range(20)]
    quota = {"bytes": 90_000, "inodes": 120}
    for step in range(steps):
        clock.now += chance.randrange(400)
        each, job = chance.choice(images), f"job-{chance.randrange(6)}"
        match chance.randrange(5):
            case 0:
                with suppress(Refused):  # full
                    send(store, each, quota=quota)
            case 1:
                if store.lease(each.digest, job)["have"]:
                    leased.setdefault(each.digest, set()).add(job)
            case 2:
                store.release(each.digest, job)
                leased.get(each.digest, set()).discard(job)
            case 3:
                store.gc(quota, trash_s=chance.choice([0, 600, 3600]))
            case 4:
                live = {f"job-{number}" for number in range(6) if chance.random() < 0.7}
                store.gc(quota, live=[job[4:] for job in live], grace_s=0)
                for jobs in leased.values():
                    jobs &= live
        needed = {digest for digest, jobs in leased.items() if jobs}
        assert needed <= in_sight(store, read=False), step
        assert store.stats()["bytes"] <= quota["bytes"] + 2_000, step
    assert all(store.verify(digest)["whole"] for digest in in_sight(store))


# -- locks -----------------------------------------------------------------------------------------------------------


def test_a_lock_is_one_holder_s_until_it_is_given_back(store):
    assert store.lock("pull", "a", 1, "n1", beat_s=10)["held"]
    assert store.lock("pull", "a", 1, "n1", beat_s=10)["held"]  # asked again after a cut connection
    other = store.lock("pull", "b", 2, "n2", beat_s=10)
    assert (other["held"], other["holder"]["host"]) == (False, "a")
    store.unlock("pull", "n2")
    assert store.beat("pull", "n1") == {"held": True}
    store.unlock("pull", "n1")
    assert store.lock("pull", "b", 2, "n2", beat_s=10)["held"]


def test_a_holder_that_misses_three_beats_loses_the_lock_and_learns_of_it(store, clock):
    store.lock("pull", "a", 1, "n1", beat_s=10)
    clock.now += 25
    store.beat("pull", "n1")
    clock.now += 30
    assert not store.lock("pull", "b", 2, "n2", beat_s=10)["held"]
    clock.now += 1
    assert store.lock("pull", "b", 2, "n2", beat_s=10)["held"]
    assert store.beat("pull", "n1") == {"held": False}
    store.unlock("pull", "n1")
    assert store.beat("pull", "n2") == {"held": True}
    assert not leftovers(store)


def test_a_lock_that_was_taken_over_meanwhile_is_not_taken_again(store, clock):
    """Two saw the same silent holder; the second to act meets the first one's lock and puts it back."""
    store.lock("pull", "a", 1, "n1", beat_s=10)
    clock.now += 31
    store.lock("pull", "b", 2, "n2", beat_s=10)
    store._move_away(store._lock("pull"), "n1", "n3")
    assert store.beat("pull", "n2") == {"held": True}
    assert not store.lock("pull", "c", 3, "n3", beat_s=10)["held"]


def test_a_lock_whose_content_is_lost_goes_stale_like_any_other(store, clock):
    Path(store._lock("pull")).write_bytes(b"")
    os.utime(store._lock("pull"), (clock.now, clock.now))
    assert not store.lock("pull", "b", 2, "n2", beat_s=10)["held"]
    clock.now += 181
    assert store.lock("pull", "b", 2, "n2", beat_s=10)["held"]


# -- as a program ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "arguments"),
    [
        ("have", {"digest": "sha256:../../etc/passwd"}),
        ("have", {"digest": "sha256:" + "a" * 63 + "\n"}),
        ("lease", {"digest": "sha256:" + "a" * 64, "holder": "job-../x"}),
        ("lease", {"digest": "sha256:" + "a" * 64, "holder": "somebody"}),
        ("lock", {"name": "../x", "host": "a", "pid": 1, "nonce": "n", "beat_s": 1}),
        ("lock", {"name": "x", "host": "a", "pid": 1, "nonce": "../n", "beat_s": 1}),
        ("begin", {"digest": "sha256:" + "a" * 64, "chunks": [[-1, "b" * 64]]}),
        ("begin", {"digest": "sha256:" + "a" * 64, "chunks": [[1, "../b"]]}),
        ("__init__", {}),
    ],
)
def test_hostile_names_are_refused(tmp_path, do, arguments):
    request = {"do": do, "root": str(tmp_path / "store"), "with": arguments}
    assert answer(request, io.BytesIO())["error"] == "invalid"


def test_a_request_goes_in_on_standard_input_and_its_answer_comes_out(tmp_path):
    new = image(1, 2)

    def call(do, body=b"", **arguments):
        request = json.dumps({"do": do, "root": str(tmp_path / "store"), "with": arguments}).encode() + b"\n"
        done = subprocess.run([sys.executable, program.__file__], input=request + body, capture_output=True, check=True)
        return json.loads(done.stdout)

    which = {"digest": new.digest, "chunks": new.chunks}
    missing = call("begin", **which)["missing"]
    assert call("fill", new.stream(missing).read(), **which, numbers=missing) == {"have": False, "missing": []}
    assert call("finish", **which)["have"]
    assert call("have", digest=new.digest)["have"]
    assert call("lock", name="x", host="h", pid=1, nonce="n", beat_s=9)["held"]
    assert hashlib.sha256(Path(call("have", digest=new.digest)["path"]).read_bytes()).hexdigest() == new.digest[7:]


def test_the_program_is_in_the_words_of_python_3_6():
    source = Path(program.__file__).read_text()
    ast.parse(source, feature_version=(3, 6))
    imported = {
        name.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for name in node.names
    }
    assert imported <= {"errno", "hashlib", "json", "os", "re", "stat", "sys"}
