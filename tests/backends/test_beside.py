"""Programs of ours on a system: what a link that breaks, or a login that talks, can do to them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from backends.beside import run_beside
from backends.local.commands import Completed, LocalCommands
from backends.ssh.storage import SftpStorage
from scheduler.model.errors import BackendUnavailable, UnexpectedReply
from tests.contract.sshd import host_system, sshd
from tests.contract.subjects import eventually


class Host:
    """This machine behind a way that keeps only so many bytes of what is sent, and a login that talks."""

    def __init__(self, keeps: int | None = None, says: bytes = b"", answers: bool = True) -> None:
        self._keeps, self._says, self._answers = keeps, says, answers

    async def run(self, argv, stdin=b"", timeout_s=60.0):
        done = await LocalCommands().run(argv, stdin[: self._keeps], timeout_s)
        return Completed(done.exit_status, self._says + (done.stdout if self._answers else b""), done.stderr)


async def test_half_a_program_is_never_run(tmp_path):
    program = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
    whole = b"%d\n%s" % (len(program), program)
    with pytest.raises(UnexpectedReply, match="cut short"):
        await run_beside(Host(keeps=len(whole) - 1), program, b"")
    assert not (tmp_path / "ran").exists()
    await run_beside(Host(keeps=len(whole)), program, b"")
    assert (tmp_path / "ran").exists()


async def test_what_a_login_prints_is_not_part_of_the_answer():
    assert await run_beside(Host(says=b"Welcome!\n{}\n"), b"print('answer')", b"") == b"answer\n"
    with pytest.raises(UnexpectedReply, match="did not answer"):
        await run_beside(Host(says=b"Your password has expired.\n", answers=False), b"print('answer')", b"")


async def test_a_link_that_breaks_midway_is_told_and_the_next_call_logs_in_again(tmp_path):
    begun, over = tmp_path / "begun", tmp_path / "over"
    program = (
        f"import os, time\nopen({str(begun)!r}, 'w')\n"
        f"for _ in range(600):\n    os.path.exists({str(over)!r}) or time.sleep(0.05)\n"
    )
    async with sshd(tmp_path) as server:
        connection = server.connection()
        storage = SftpStorage(host_system(tmp_path), connection)
        call = asyncio.create_task(storage.run_beside(program.encode(), bytes(8 << 20)))

        async def it_began() -> bool:
            return Path.exists(begun)

        await eventually(it_began, "the program runs")
        await server.hang_up()
        with pytest.raises(BackendUnavailable):
            await call
        over.touch()
        assert await storage.run_beside(b"print('again')", b"") == b"again\n"
        await connection.aclose()
