"""Requests to the runner program and what its answers mean, over anything that can run a command on the host."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from backends.base import LOG_CHUNK_BYTES
from backends.beside import Commands, run_beside
from backends.container import ENV_NAME, SCRIPT_NAME, LaunchFiles
from scheduler.model.errors import NothingLearnt, SubmitError, SubmitRejected, SubmitUncertain, UnexpectedReply
from scheduler.model.ids import Marker, RemoteId, checked_marker, is_marker
from scheduler.model.runs import Ending, LogChunk, Observation, RemoteState, StagePlan, SubmitIntent
from scheduler.model.units import utc

CALL_TIMEOUT_S = 60.0


class Runner:
    """The runner program on one host as one login. ``marker_root`` is an absolute path there."""

    def __init__(self, commands: Commands, marker_root: str) -> None:
        self._commands, self._root = commands, marker_root

    def marker_dir(self, marker: Marker) -> str:
        """The directory that holds what is known under a marker."""
        return f"{self._root}/{checked_marker(marker)}"

    async def submit(
        self, intents: Sequence[tuple[SubmitIntent, LaunchFiles]]
    ) -> Mapping[Marker, RemoteId | SubmitError]:
        """Start each job now, at most once per marker."""
        if not intents:
            return {}
        asked = [_request(intent, launch) for intent, launch in intents]
        answers = await self._call("submit", root=self._root, intents=asked)
        return {intent.marker: _submitted(answers[intent.marker]) for intent, _ in intents}

    async def find(self, marker: Marker) -> RemoteId | None:
        """See ``Backend.find``."""
        answer = await self._call("find", root=self._root, marker=checked_marker(marker))
        if answer.get("busy"):
            raise NothingLearnt(f"a submission under {marker} is under way; ask again")
        return None if answer.get("absent") else RemoteId(answer["id"])

    async def unended(self) -> Mapping[Marker, RemoteId]:
        """See ``Backend.unended``."""
        answers = await self._call("unended", root=self._root)
        return {Marker(name): RemoteId(remote_id) for name, remote_id in answers.items() if is_marker(name)}

    async def observe(self, ids: Mapping[RemoteId, Marker]) -> Mapping[RemoteId, Observation]:
        """See ``Backend.observe``; one call for all."""
        if not ids:
            return {}
        checked = {remote_id: checked_marker(marker) for remote_id, marker in ids.items()}
        answers = await self._call("observe", root=self._root, ids=checked)
        return {RemoteId(remote_id): _observation(facts) for remote_id, facts in answers.items()}

    async def look(self, markers: Iterable[Marker]) -> Mapping[Marker, Observation]:
        """What is known under each marker, whatever its id; markers that started nothing are left out."""
        checked = [checked_marker(marker) for marker in markers]
        if not checked:
            return {}
        answers = await self._call("look", root=self._root, markers=checked)
        return {Marker(marker): _observation(facts) for marker, facts in answers.items()}

    async def cancel(self, marker: Marker, remote_id: RemoteId | None = None) -> None:
        """TERM to the job's processes, KILL 10 seconds later. None: whatever runs under the marker."""
        await self._call("cancel", root=self._root, marker=checked_marker(marker), remote_id=remote_id)

    async def read_log(self, path: str, offset_bytes: int) -> LogChunk:
        """See ``Backend.read_log``."""
        answer = await self._call("read_log", path=path, offset=offset_bytes, limit=LOG_CHUNK_BYTES)
        data = base64.b64decode(answer["data"])
        return LogChunk(data, offset_bytes, offset_bytes + len(data))

    async def stage(self, plan: StagePlan) -> None:
        """Make the directories and write the files of a plan."""
        small = [
            {"path": file.path, "content": base64.b64encode(file.content).decode(), "mode": file.mode}
            for file in plan.files
        ]
        await self._call("stage", directories=plan.directories, files=small)

    async def snapshot(self) -> Mapping[str, Any]:
        """``cores``, ``memory_mib``, ``available_mib``, ``load`` (one minute) and ``at`` (Unix time) of the host."""
        return await self._call("snapshot")

    async def _call(self, do: str, **arguments: Any) -> dict[str, Any]:
        request = json.dumps({"do": do, "with": arguments}).encode("ascii")
        said = await run_beside(self._commands, _program(), request, CALL_TIMEOUT_S)
        try:
            answer = json.loads(said)
        except ValueError:
            raise UnexpectedReply(f"the runner's answer to '{do}' is not JSON", _text(said)) from None
        if not isinstance(answer, dict):
            raise UnexpectedReply(f"the runner's answer to '{do}' is not an object", _text(said))
        return answer


@cache
def _program() -> bytes:
    return files(__package__).joinpath("program.py").read_bytes()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _request(intent: SubmitIntent, launch: LaunchFiles) -> dict[str, Any]:
    run = intent.run
    return {
        "marker": checked_marker(intent.marker),
        "fence": intent.fence,
        "exec_dir": run.exec_dir,
        "input_dir": run.input_dir,
        "output_dir": run.output_dir,
        "stdout": run.stdout,
        "stderr": run.stderr,
        "walltime_s": run.resources.walltime_s,
        "script_name": SCRIPT_NAME,
        "script": launch.script,
        "env_name": ENV_NAME,
        "env": launch.env,
    }


def _submitted(answer: Mapping[str, str]) -> RemoteId | SubmitError:
    if "id" in answer:
        return RemoteId(answer["id"])
    if "rejected" in answer:
        return SubmitRejected(answer["rejected"])
    return SubmitUncertain(answer["uncertain"])


def _observation(facts: Mapping[str, Any]) -> Observation:
    """UnexpectedReply when the facts are not those that the program writes."""
    try:
        if facts.get("running"):
            state, ending, word = RemoteState.RUNNING, None, "RUNNING"
        else:
            state, ending, word = RemoteState.ENDED, Ending(facts["ending"]), facts["ending"]
        return Observation(
            state=state,
            raw_state=word,
            reason=facts.get("reason", ""),
            submitted_at=_instant(facts["submitted_at"]),
            started_at=_instant(facts["started_at"]),
            ended_at=_instant(facts.get("at")) if ending else None,
            ending=ending,
            exit_code=facts.get("exit_code"),
            signal=facts.get("signal"),
            max_rss_mib=facts.get("max_rss_mib"),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UnexpectedReply(
            f"what the runner says of a job is not understood: {error!r}", json.dumps(facts)
        ) from None


def _instant(epoch_s: float | None) -> datetime | None:
    return None if epoch_s is None else utc(epoch_s)
