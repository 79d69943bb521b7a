"""Small Python programs of Berth's, run on a system as one login: program and request travel on standard input.

Whatever the login shell is, it reads one fixed line. Nothing but that line is seen in a list of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from scheduler.model.errors import BackendUnavailable, UnexpectedReply

BESIDE_TIMEOUT_S = 3600.0
"""For programs that read whole images on a busy file system; a dead link is noticed much sooner."""

_FIND_PYTHON = (
    'exec "$(command -v python3 || echo /usr/libexec/platform-python)" -I -c "$0"'  # the latter: Red Hat without it
)
_BOOTSTRAP = (
    "import sys;length=int(sys.stdin.buffer.readline());text=sys.stdin.buffer.read(length);"
    "len(text)==length or sys.exit('the program was cut short');"  # half a program may still be one
    "sys.stdout.buffer.write(bytes([2]));exec(compile(text.decode(),'berth','exec'))"
)
_ANSWER_BEGINS = b"\x02"


class Completed(Protocol):
    """A command that ended; a signal ended it where the status is negative."""

    @property
    def exit_status(self) -> int: ...
    @property
    def stdout(self) -> bytes: ...
    @property
    def stderr(self) -> bytes: ...


class Commands(Protocol):
    """Runs a command on a host; raises NothingLearnt when the host cannot be asked."""

    async def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Completed: ...


def starting(program: bytes) -> tuple[list[str], bytes]:
    """The command that runs a program, and what it must read first. It writes byte 2 before it begins."""
    return ["sh", "-c", _FIND_PYTHON, _BOOTSTRAP], b"%d\n%s" % (len(program), program)


async def run_beside(commands: Commands, program: bytes, stdin: bytes, timeout_s: float = BESIDE_TIMEOUT_S) -> bytes:
    """What ``program`` writes when it reads ``stdin``, without what login scripts printed before it.

    BackendUnavailable when it was killed, UnexpectedReply when it failed or the host has no Python.
    """
    argv, first = starting(program)
    done = await commands.run(argv, first + stdin, timeout_s)
    complaint = done.stderr[-2048:].decode("utf-8", "replace").strip()
    if done.exit_status == 127:
        raise UnexpectedReply("the host has no python3; install Python 3.6 or later", complaint)
    if done.exit_status < 0 or done.exit_status >= 124:
        raise BackendUnavailable(f"a program of Berth's was ended there (status {done.exit_status}): {complaint}")
    if done.exit_status != 0:
        raise UnexpectedReply(f"a program of Berth's failed there: {complaint.rpartition(chr(10))[2]}", complaint)
    _, begun, answer = done.stdout.partition(_ANSWER_BEGINS)
    if not begun:
        raise UnexpectedReply("a program of Berth's did not answer", done.stdout[:2048].decode("utf-8", "replace"))
    return answer
