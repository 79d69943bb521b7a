"""Commands in containers, through the API server and the node: their streams, and how they ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backends.base import REMOTE_OUTPUT_BYTES
from backends.k8s.objects import MAIN
from backends.k8s.site import Access
from backends.k8s.spdy import Session, Stream
from scheduler.model.errors import BackendUnavailable, UnexpectedReply
from scheduler.model.pods import Executed

EXEC = "v4.channel.k8s.io"

TIMED_OUT, NOT_THERE = 124, 127
"""Exit codes in place of one that a command does not have, as shells give them."""

LAST_WORD_BYTES = 64 * 1024
"""So much of what the node says of a command's end is read."""

LINGER_S = 1.0
"""How long after a command's end its streams may still be open; some nodes leave them so."""

LOOK_S, SILENT_LOOKS = 15.0, 4
"""How often a connection is looked at; after so many looks at which nothing moved and nobody answered, it is dead."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that runs. What its streams meet raises ConnectionError, also when it ends before all was written.

    ending: its exit code, and words where it did not begin; ConnectionError where its end was not heard.
    """

    ending: asyncio.Future[tuple[int, str]]
    stdin: Stream
    stdout: Stream
    stderr: Stream


async def open_session(access: Access, namespace: str, pod: str, argv: Sequence[str]) -> Session:
    """Ask for a command in the main container of a pod. Raises as ``Session.open`` does: then nothing was begun."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
    query = [("container", MAIN), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
    return await Session.open(access, path, [*query, *(("command", word) for word in argv)], EXEC)


@contextlib.asynccontextmanager
async def command(session: Session) -> AsyncIterator[Command]:
    """The command of a session, which is closed at the end whether or not the command has ended."""
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(_guard(session))]
    try:
        names = ("error", "stdin", "stdout", "stderr")
        error, stdin, stdout, stderr = await asyncio.gather(*(session.stream({"streamtype": name}) for name in names))
        ending = asyncio.create_task(_ended(error))
        tasks.append(ending)
        later = asyncio.get_running_loop().call_later
        ending.add_done_callback(lambda _: later(LINGER_S, session.abort))
        yield Command(ending, stdin, stdout, stderr)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await session.aclose()


async def _ended(error: Stream) -> tuple[int, str]:
    said = b""
    with contextlib.suppress(ConnectionError):  # the node resets streams at the end; what counts is its last word
        while (piece := await error.read(64 * 1024)) and len(said) <= LAST_WORD_BYTES:
            said += piece
    if not said:
        raise ConnectionResetError("the node did not say how it ended")
    return exit_code_of(said)


async def executed(session: Session, give: Callable[[Stream], Awaitable[None]], timeout_s: float) -> Executed:
    """Run the command of a session. One that takes too long ends with 124 and what it wrote until then.

    give: writes what the command shall read; a ConnectionError ends that, for a command need not read all.
    """
    heard: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    async def give_all(to: Stream) -> None:
        with contextlib.suppress(ConnectionError):
            await give(to)

    async def take(name: str, stream: Stream) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await stream.read(64 * 1024):
                heard[name] += piece
                if len(heard[name]) > REMOTE_OUTPUT_BYTES:
                    raise UnexpectedReply(f"a command wrote more than {REMOTE_OUTPUT_BYTES >> 20} MiB")

    async with command(session) as running:
        giving = asyncio.create_task(give_all(running.stdin))
        taking = [asyncio.create_task(take(name, getattr(running, name))) for name in heard]
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*taking)
                code, words = await running.ending
        except TimeoutError:
            code, words = TIMED_OUT, ""
        finally:
            for task in (giving, *taking):
                task.cancel()
            await asyncio.gather(giving, *taking, return_exceptions=True)
    return Executed(exit_code=code, stdout=bytes(heard["stdout"]), stderr=bytes(heard["stderr"]) + words.encode())


async def give_at_once(content: bytes, to: Stream) -> None:
    """All there is, and its end."""
    await to.write(content)
    await to.end()


def exit_code_of(status: bytes) -> tuple[int, str]:
    """The exit code that the node tells at the end of a command, and its words where the command did not begin."""
    try:
        said = json.loads(status)
        if said["status"] == "Success":
            return 0, ""
        if said.get("reason") == "NonZeroExitCode":
            causes = said["details"]["causes"]
            return next(int(cause["message"]) for cause in causes if cause["reason"] == "ExitCode"), ""
        return NOT_THERE, str(said["message"])
    except (ValueError, KeyError, TypeError, StopIteration):
        raise UnexpectedReply("the end of a command was not understood", status.decode("latin-1")) from None


async def _guard(session: Session) -> None:
    """End a session whose connection died without a word."""
    silent = 0
    while silent < SILENT_LOOKS:
        moved = session.moved
        await asyncio.sleep(LOOK_S)
        if session.moved != moved or session.is_held:
            silent = 0
            continue
        with contextlib.suppress(BackendUnavailable, ConnectionError):
            await session.ping()
        silent = 0 if session.moved != moved else silent + 1
    session.abort()
