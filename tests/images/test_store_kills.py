"""Killed at any file operation, or out of room, the store shows nothing corrupt and the next call goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from images.programs.store import Store, answer
from tests.images.small_disks import small_disk
from tests.images.stores import Clock, image, in_sight, leftovers

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("first", "rounds"), [(0, 40), pytest.param(1000, 500, marks=pytest.mark.slow)])
def test_after_any_kill_what_is_in_sight_is_whole_and_work_goes_on(first, rounds, tmp_path):
    command = [sys.executable, "-m", "tests.images.kills", str(tmp_path), str(first), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=rounds * 10)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def disk(tmp_path):
    """1 MiB, and 40 files."""
    with small_disk(tmp_path, "size=1m,nr_inodes=40") as disk:
        yield disk


def ask(disk, do, body=None, **arguments):
    return answer({"do": do, "root": str(disk / "store"), "with": arguments}, body)


def test_a_full_disk_is_told_and_what_came_before_it_serves_once_there_is_room(disk):
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(700_000))
    new = image(*range(4))
    which = {"digest": new.digest, "chunks": new.chunks}
    missing = ask(disk, "begin", **which)["missing"]
    assert ask(disk, "fill", new.stream(missing), **which, numbers=missing)["error"] == "full"
    ballast.unlink()
    left = ask(disk, "begin", **which)["missing"]
    assert 0 < len(left) < len(missing)
    ask(disk, "fill", new.stream(left), **which, numbers=left)
    assert ask(disk, "finish", **which)["have"]


def test_a_file_for_which_the_disk_is_too_small_leaves_nothing(disk, tmp_path):
    new = image(*range(12))
    (tmp_path / "file").write_bytes(new.content)
    assert ask(disk, "put", digest=new.digest, path=str(tmp_path / "file"))["error"] == "full"
    assert not leftovers(Store(str(disk / "store")))


def test_a_limit_on_files_is_told_as_full(disk):
    said = [ask(disk, "lease", digest=image(number).digest, holder="job-a") for number in range(20)]
    assert [each for each in said if each.get("error") == "full"]
    assert not in_sight(Store(str(disk / "store"), clock=Clock()))
