"""One tree, one file: the same bytes whoever converts it, nothing half done, and never on a login node unasked."""

from __future__ import annotations

import asyncio
import hashlib
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from images.convert import (
    Compressor,
    ConversionFailed,
    ConversionPolicy,
    ConverterKey,
    Place,
    Share,
    convert,
    convert_argv,
    converter_key,
    installed_version,
    parse_version,
    set_back_times,
)
from scheduler.model.errors import SpecInvalid
from tests.images.small_disks import small_disk

ROOT = Path(__file__).parents[2]
MADE_AT = datetime(2026, 5, 1, tzinfo=UTC)
ZSTD = frozenset(Compressor)


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "tree")


def make_tree(root: Path) -> Path:
    for number in range(40):
        path = root / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{number} ".encode() * 5000)
        os.utime(path, (1e9 + number, 1e9 + number))
    os.link(root / "d0/f0", root / "d1/again")
    (root / "link").symlink_to("d0/f0")
    return root


def run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


async def converted(tree, target, **share):
    return await convert(tree, target, converter_key(await installed_version(), ZSTD), Share(nice=0, **share), MADE_AT)


async def test_a_tree_gives_the_same_bytes_with_one_and_two_processors_and_when_unpacked_again(tree, tmp_path):
    again = make_tree(tmp_path / "elsewhere")
    os.utime(again, (2e9, 2e9))
    one = await converted(tree, tmp_path / "one", processors=1)
    two = await converted(tree, tmp_path / "two", processors=2, memory_mib=64)
    three = await converted(again, tmp_path / "three")
    assert one.digest == two.digest == three.digest
    assert one.digest == "sha256:" + hashlib.sha256((tmp_path / "one").read_bytes()).hexdigest()
    assert one.size_bytes == (tmp_path / "one").stat().st_size > 0
    assert one.cpu_s > 0


async def test_times_and_modes_of_the_image_are_in_the_file_and_its_owners_are_not(tree, tmp_path):
    (tree / "d0/f0").chmod(0o640)
    await converted(tree, tmp_path / "file")
    run("unsquashfs", "-q", "-n", "-d", tmp_path / "out", tmp_path / "file")
    found = (tmp_path / "out/d0/f7").stat()
    assert (found.st_mtime, stat.S_IMODE((tmp_path / "out/d0/f0").stat().st_mode)) == (1e9 + 7, 0o640)
    assert "root/root" in run("unsquashfs", "-ll", tmp_path / "file")


def test_what_is_younger_than_the_image_gets_the_image_s_time_and_a_link_is_not_followed(tree, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("")
    os.utime(outside, (3e9, 3e9))
    (tree / "out").symlink_to(outside)
    set_back_times(tree, MADE_AT)
    times = {path.lstat().st_mtime for path in (tree, *tree.rglob("*"))}
    assert max(times) == MADE_AT.timestamp()
    assert (tree / "d3/f3").stat().st_mtime == 1e9 + 3
    assert outside.stat().st_mtime == 3e9


async def test_a_conversion_that_fails_leaves_nothing_and_says_why(tmp_path):
    with pytest.raises(ConversionFailed, match="mksquashfs ended with"):
        (tmp_path / "empty").mkdir()
        await convert(tmp_path / "empty", tmp_path / "no" / "file", ConverterKey("4.5.1"), Share(nice=0), MADE_AT)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


async def test_a_conversion_past_its_time_is_ended_and_leaves_nothing(tree, tmp_path):
    with pytest.raises(ConversionFailed, match="longer than 0 s"):
        await converted(tree, tmp_path / "file", timeout_s=0.0)
    assert not list(tmp_path.glob("*file*"))


async def test_a_cancelled_conversion_leaves_no_process_and_no_file(tree, tmp_path):
    task = asyncio.create_task(converted(tree, tmp_path / "file"))
    while not list(tmp_path.glob(".file.*")) and not task.done():  # noqa: ASYNC110 - a file says when it began
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list(tmp_path.glob("*file*"))


ENDLESS = """#!/bin/sh
case $1 in -version) echo mksquashfs version 4.5.1; exit ;; esac
echo half >"$2"; echo $$ >"$STARTED"; exec sleep 600
"""
BERTH = """
import asyncio, pathlib, sys
from tests.images.test_convert import converted
from tests.images.small_disks import small_disk
asyncio.run(converted(*map(pathlib.Path, sys.argv[1:])))
"""


def test_a_killed_conversion_leaves_no_process_and_its_file_goes_with_the_next_one(tree, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mksquashfs").write_text(ENDLESS)
    (tmp_path / "bin/mksquashfs").chmod(0o755)
    os.mkfifo(tmp_path / "started")
    started = os.open(tmp_path / "started", os.O_RDONLY | os.O_NONBLOCK)
    env = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "STARTED": str(tmp_path / "started")}
    berth = subprocess.Popen([sys.executable, "-c", BERTH, tree, tmp_path / "killed"], cwd=ROOT, env=env)
    assert select.select([started], [], [], 60)[0]
    mksquashfs = os.pidfd_open(int(os.read(started, 20)))
    berth.kill()
    berth.wait()
    assert select.select([mksquashfs], [], [], 30)[0]  # it has ended
    os.close(mksquashfs)
    os.close(started)
    (left,) = tmp_path.glob(".killed.*")
    busy = left.with_name(left.name.replace(f".{berth.pid}.", f".{os.getpid()}."))
    busy.touch()
    asyncio.run(converted(tree, tmp_path / "file"))
    assert list(tmp_path.glob(".*")) == [busy]


LATE = """#!/bin/sh
echo $$ >"$STARTED"; while kill -0 $PPID 2>/dev/null; do :; done; exec "$SETPRIV" "$@"
"""


def test_a_process_that_is_killed_before_the_conversion_is_tied_to_it_leaves_none(tree, tmp_path):
    (tmp_path / "bin").mkdir()
    for name, text in (("mksquashfs", ENDLESS), ("setpriv", LATE)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    os.mkfifo(tmp_path / "started")
    started = os.open(tmp_path / "started", os.O_RDONLY | os.O_NONBLOCK)
    env = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "STARTED": str(tmp_path / "started")}
    env["SETPRIV"] = shutil.which("setpriv")
    berth = subprocess.Popen([sys.executable, "-c", BERTH, tree, tmp_path / "killed"], cwd=ROOT, env=env)
    assert select.select([started], [], [], 60)[0]
    late = os.pidfd_open(int(os.read(started, 20)))
    berth.kill()
    berth.wait()
    has_ended = select.select([late], [], [], 30)[0]  # or it is a mksquashfs without an end by now
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(late, signal.SIGKILL)
    assert has_ended
    os.close(late)
    os.close(started)
    assert not list(tmp_path.glob(".killed.*"))


async def test_a_full_disk_says_so_and_leaves_the_disk_as_it_was(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "noise").write_bytes(os.urandom(3 << 20))
    with small_disk(tmp_path, "size=1m") as disk:
        with pytest.raises(ConversionFailed, match="make room"):
            await converted(tree, disk / "file")
        assert not list(disk.iterdir())


def test_the_key_names_all_that_decides_the_bytes_and_no_more():
    key = converter_key("4.5.1", ZSTD)
    assert str(key) == "squashfs;tool=4.5.1;comp=zstd;level=3;block=131072;run=1"
    assert str(converter_key("4.5.1", frozenset())) == "squashfs;tool=4.5.1;comp=gzip;level=1;block=131072;run=1"
    small, large = (convert_argv("t", "f", key, Share(n, n * 512)) for n in (1, 8))
    assert [pair for pair in zip(small, large, strict=True) if pair[0] != pair[1]] == [("1", "8"), ("512M", "4096M")]


@pytest.mark.parametrize("text", ["mksquashfs version 4.3 (2014/05/12)\n", "sh: not found", ""])
def test_a_tool_that_cannot_repeat_itself_is_refused(text):
    with pytest.raises(SpecInvalid, match=r"4\.4"):
        parse_version(text)
    assert parse_version("mksquashfs version 4.6.1 (2023/03/25)\n") == "4.6.1"


def test_a_login_node_converts_only_where_the_policy_names_it():
    login = frozenset({Place.LOGIN_NODE})
    with pytest.raises(ConversionFailed, match="policy allows berth-host"):
        ConversionPolicy().choose(login)
    place, share = ConversionPolicy((Place.LOGIN_NODE,)).choose(login)
    assert (place, share.processors, share.memory_mib, share.nice) == (Place.LOGIN_NODE, 1, 512, 19)
    assert ConversionPolicy((Place.BATCH_JOB,)).choose(frozenset(Place))[0] is Place.BATCH_JOB


async def test_gzip_serves_where_zstd_cannot_be_mounted(tree, tmp_path):
    key = converter_key(await installed_version(), frozenset({Compressor.GZIP}))
    await convert(tree, tmp_path / "file", key, Share(nice=0), MADE_AT)
    said = run("unsquashfs", "-s", tmp_path / "file")
    assert "Compression gzip" in said
    assert "compression-level 1" in said
    shutil.rmtree(tree)
