"""Berth's small programs for a login node, and how words travel to them: over standard input, by length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from backends.ssh.connection import Completed, SshConnection
from scheduler.model.errors import BackendUnavailable, UnexpectedReply

ANSWER_BEGINS = "\x02"
COMMAND_ENDS = "\x1e"


@dataclass(frozen=True, slots=True)
class Said:
    """What one of several commands said: its exit status and its output."""

    exit_status: int
    text: str


def word(text: str | bytes) -> bytes:
    """One word for ``read_word``."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return b"%d\n%s" % (len(data), data)


def words(texts: Sequence[str]) -> bytes:
    """A list of words for ``read_words``."""
    return b"".join([word(str(len(texts))), *map(word, texts)])


async def ask(
    connection: SshConnection, program: str, args: Sequence[str] = (), stdin: bytes = b"", timeout_s: float = 60.0
) -> str:
    """What a program of this package answers. BackendUnavailable in the system's words when it fails."""
    return answer_of(await connection.run_script(_script(program), args, stdin, timeout_s), program)


async def ask_commands(
    connection: SshConnection, commands: Iterable[Sequence[str]], *, each_s: int = 30, both: bool = False
) -> tuple[list[Said], str]:
    """Run commands one after the other in one call: what each said, and all that came on standard error.

    both: standard error is part of what each said.
    """
    commands = list(commands)
    stdin = b"".join(map(words, commands))
    completed = await connection.run_script(
        _script("commands"), [str(each_s), "both" if both else "one"], stdin, each_s * len(commands) + 10
    )
    pieces = answer_of(completed, "commands").split(COMMAND_ENDS)
    if len(pieces) != 2 * len(commands) + 1 or not all(status.isdigit() for status in pieces[1::2]):
        raise UnexpectedReply(f"{connection} answered something else than was asked", completed.text)
    said = [Said(int(status), text) for text, status in zip(pieces[::2], pieces[1::2], strict=False)]
    return said, completed.stderr.decode("utf-8", "replace").strip()


def answer_of(completed: Completed, program: str) -> str:
    """The answer of a program, without what login scripts printed before it."""
    _, begun, answer = completed.text.partition(ANSWER_BEGINS)
    if completed.exit_status != 0:
        raise BackendUnavailable(f"{program}: {completed.complaint}")
    if not begun:
        raise UnexpectedReply(f"{program} did not answer", completed.text + completed.complaint)
    return answer


@cache
def _script(program: str) -> str:
    folder = resources.files("backends.slurm") / "programs"
    return "".join((folder / f"{name}.sh").read_text() for name in ("prelude", program))
