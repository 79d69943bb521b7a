"""A pod that has a volume, without a cluster: its commands run here, on a directory, with the same streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.k8s.site import Site
from backends.k8s.volume import VolumePod, volume_pod


class LocalPod(VolumePod):
    """The real program of the pod, its manifest's variables included, run by this machine's shell."""

    def __init__(self, folder: Path, home: Path) -> None:
        super().__init__(_NoApi(), None, Site(), "files")  # type: ignore[arg-type]
        (container,) = volume_pod(Site(), "files")["spec"]["containers"]
        given = {each["name"]: each["value"].replace("$$", "$") for each in container["env"]}
        self._env = {**os.environ, **given, "BERTH_VOLUME": str(folder), "BERTH_HOME": str(home)}

    async def _session(self, argv: Sequence[str]) -> Any:
        return LocalSession(
            await asyncio.create_subprocess_exec(
                *argv, env=self._env, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
        )


class LocalSession:
    """The streams of one command, which ends when nobody listens any more."""

    moved, is_held = 0, True

    def __init__(self, process: Process) -> None:
        self._process = process

    async def stream(self, headers: Mapping[str, str]) -> Any:
        name = headers["streamtype"]
        return LocalStream(self._process, name, None if name == "error" else getattr(self._process, name))

    def abort(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def aclose(self) -> None:
        self.abort()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.communicate()  # a process whose output nobody reads to its end has not ended for asyncio


class LocalStream:
    """One of them; the stream of errors says how it ended, as a node does."""

    def __init__(self, process: Process, name: str, pipe: Any) -> None:
        self._process, self._name, self._pipe, self._told = process, name, pipe, False

    async def read(self, most_bytes: int) -> bytes:
        if self._name != "error":
            return bytes(await self._pipe.read(most_bytes))
        if self._told:
            return b""
        code, self._told = await self._process.wait(), True
        if code == 0:
            return b'{"status":"Success"}'
        cause = {"reason": "ExitCode", "message": str(code if code > 0 else 128 - code)}
        said = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [cause]}}
        return json.dumps(said).encode()

    async def write(self, content: bytes) -> None:
        self._pipe.write(content)
        await self._pipe.drain()

    async def end(self) -> None:
        self._pipe.close()


class _NoApi:
    namespace = "none"

    async def aclose(self) -> None:
        """Nothing is open."""
