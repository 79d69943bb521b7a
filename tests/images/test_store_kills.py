"""Killed at any file operation, or out of room, the store shows nothing corrupt and the next call goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from images.programs.store import Store, answer
from tests.images.stores import Clock, image, in_sight, leftovers

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("first", "rounds"), [(0, 40), pytest.param(1000, 500, marks=pytest.mark.slow)])
def test_after_any_kill_what_is_in_sight_is_whole_and_work_goes_on(first, rounds, tmp_path):
    command = [sys.executable, "-m", "tests.images.kills", str(tmp_path), str(first), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=rounds * 10)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """1 MiB, and 40 files."""
    if os.geteuid() != 0:
        pytest.skip("mounts a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=40,mode=700", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def ask(disk, do, body=None, **arguments):
    return answer({"do": do, "root": str(disk / "store"), "with": arguments}, body)


def test_a_full_disk_is_told_and_what_came_before_it_serves_once_there_is_room(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(700_000))
    new = image(*range(4))
    which = {"digest": new.digest, "chunks": new.chunks}
    missing = ask(small_disk, "begin", **which)["missing"]
    assert ask(small_disk, "fill", new.stream(missing), **which, numbers=missing)["error"] == "full"
    ballast.unlink()
    left = ask(small_disk, "begin", **which)["missing"]
    assert 0 < len(left) < len(missing)
    ask(small_disk, "fill", new.stream(left), **which, numbers=left)
    assert ask(small_disk, "finish", **which)["have"]


def test_a_file_for_which_the_disk_is_too_small_leaves_nothing(small_disk, tmp_path):
    new = image(*range(12))
    (tmp_path / "file").write_bytes(new.content)
    assert ask(small_disk, "put", digest=new.digest, path=str(tmp_path / "file"))["error"] == "full"
    assert not leftovers(Store(str(small_disk / "store")))


def test_a_limit_on_files_is_told_as_full(small_disk):
    said = [ask(small_disk, "lease", digest=image(number).digest, holder="job-a") for number in range(20)]
    assert [each for each in said if each.get("error") == "full"]
    assert not in_sight(Store(str(small_disk / "store"), clock=Clock()))
