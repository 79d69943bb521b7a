"""Berth opens as many files as it may; programs of others may open what Berth was given."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from backends import open_files
from backends.local.commands import LocalCommands

GIVEN = 512


@pytest.fixture
def hard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The most that this process may have; it was given less."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(open_files, "_given", None)
    resource.setrlimit(resource.RLIMIT_NOFILE, (GIVEN, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_we_take_what_we_may_have_and_programs_get_what_we_were_given(hard: int):
    assert open_files.raise_limit() == open_files.most_files() == hard
    done = await LocalCommands().run(["sh", "-c", "ulimit -Sn; ulimit -Hn"])
    assert done.stdout.split() == [str(GIVEN).encode(), str(hard).encode()]
