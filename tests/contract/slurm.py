"""Slurm's subject: the toy cluster of ``tests/slurm`` behind a real SSH server of the test process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from backends.slurm.backend import SlurmBackend
from backends.ssh.connection import Completed, SshConnection
from scheduler.model.errors import BackendUnavailable
from scheduler.model.ids import Marker
from scheduler.model.runs import SubmitIntent
from scheduler.model.systems import System
from tests.contract.fork import CuttableCommands, ForkSubject
from tests.slurm.ssh_server import USER, TestServer, ssh_server

TOY = Path(__file__).parents[1] / "slurm" / "toy_slurm.py"
TOOLS = ("sbatch", "squeue", "sacct", "scancel", "sinfo")


class CuttableConnection(SshConnection):
    """A connection that can be cut for good, or around the next command."""

    is_cut = False
    lose_next: str | None = None

    async def _run(self, command: str, stdin: bytes, timeout_s: float) -> Completed:
        how, self.lose_next = self.lose_next, None
        if self.is_cut or how == "before":
            raise BackendUnavailable("cut before the command was sent")
        done = await super()._run(command, stdin, timeout_s)
        if how == "after":
            raise BackendUnavailable("cut before the answer came back")
        return done


class SlurmSubject(ForkSubject):
    """Jobs of the toy cluster, which wait for a word in a file."""

    def __init__(self, backend: SlurmBackend, connection: CuttableConnection, work: Path, env: dict[str, str]) -> None:
        super().__init__(backend, CuttableCommands(connection), work)
        self.connection = connection
        self.slurm = work / "slurm"
        self.login_env = env

    def refused_intent(self, marker: Marker) -> SubmitIntent:
        self.say("sbatch.refuses", marker)
        return self.intent(marker)

    def say(self, flag: str, text: str = "") -> None:
        """Make the toy cluster misbehave from now on."""
        (self.slurm / flag).write_text(text)

    def unsay(self, flag: str) -> None:
        (self.slurm / flag).unlink()

    def lose_the_next_answer(self, accepted: bool) -> None:
        self.connection.lose_next = "after" if accepted else "before"

    def cut(self) -> None:
        self.connection.is_cut = True

    def heal(self) -> None:
        self.connection.is_cut = False
        super().heal()

    async def speak_an_unknown_word(self, marker: Marker) -> None:
        remote_id = (self.marker_dir(marker) / "id").read_text().strip()
        self.say(f"word.{remote_id}", "GONE_FISHING")
        self._spoiled.append(self.slurm / f"word.{remote_id}")

    def add_job(self, job_id: str, name: str, state: str | None = None) -> None:
        """A job that ended, which somebody else gave the toy cluster; ``state``: what it says of it."""
        folder = self.slurm / "jobs" / job_id
        folder.mkdir()
        for file, content in (("name", name), ("submitted", "1"), ("code", "0"), ("pid", "1")):
            (folder / file).write_text(content)
        if state is not None:
            self.say(f"word.{job_id}", state)

    def jobs(self) -> list[dict[str, str]]:
        """Every job that the toy cluster was given."""
        return [
            {file.name: file.read_text() for file in folder.iterdir() if file.suffix != ".new"}
            for folder in (self.slurm / "jobs").iterdir()
        ]


@contextlib.asynccontextmanager
async def slurm_server(tmp_path: Path) -> AsyncIterator[TestServer]:
    """A login node of a toy cluster."""
    (tmp_path / "slurm" / "jobs").mkdir(parents=True)
    (tmp_path / "slurm" / "next").write_text("7")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).write_text(f'#!/bin/sh\nexec python3 -S -E {TOY} "{tmp_path}/slurm" {name} "$@"\n')
        (tools / name).chmod(0o755)
    async with ssh_server(tmp_path, tools) as server:
        yield server


@contextlib.asynccontextmanager
async def slurm_subject(tmp_path: Path, *, forwards: bool = True, **settings: Any) -> AsyncIterator[SlurmSubject]:
    async with slurm_server(tmp_path) as server:
        server.forwards = forwards
        connection = CuttableConnection(
            "127.0.0.1", server.port, USER, private_key=server.private_key, host_key=server.public_host_key
        )
        system = System(
            tenant="t", id="toy", uuid="u", owner="o", host="127.0.0.1", port=server.port, root_dir=str(tmp_path)
        )
        subject = SlurmSubject(SlurmBackend(system, USER, connection, **settings), connection, tmp_path, server.env)
        try:
            yield subject
        finally:
            subject.end_everything()
            async with asyncio.timeout(20):
                while any("pid" in job and not job.keys() & {"code", "cancelled"} for job in subject.jobs()):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await connection.aclose()
