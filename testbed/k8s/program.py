"""Programs that outlive the process that starts them, known by a pid file and by a mark in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.host import TestbedError, launch, wait_until

_MARK = "BERTH_TESTBED_STATE_OF"
_UNSEEN_S = 1.0
"""A process that is becoming another program shows no environment for a moment, a longer one on a busy machine."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The shell's own process id is the program's, whether or not we live to see it start.
_START = 'echo $$ > "$0.new" && mv "$0.new" "$0" && exec "$@"'


@dataclass(frozen=True)
class Program:
    """One program by name; its pid file and its log lie in ``folder``, by which it is known as ours."""

    name: str
    argv: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if _mark_of(pid) == str(self.folder) else None

    def start(self, descriptors: Sequence[int] = ()) -> None:
        """Start it unless it runs. descriptors: open files that it inherits under the same numbers."""
        if self.pid is not None:
            return
        self._pid_file.unlink(missing_ok=True)
        variables = {"PATH": _PATH, "HOME": str(self.folder), "LANG": "C.UTF-8", **self.environment}
        words = [f"{name}={value}" for name, value in {**variables, _MARK: str(self.folder)}.items()]
        launch(["env", "-i", *words, "sh", "-c", _START, self._pid_file, *self.argv], self.log, descriptors)
        wait_until(self._pid_file.exists, f"{self.name} is started")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it does not run."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, patience_s: float = 5) -> None:
        """Ask it to end; when it has not after ``patience_s``, end it at once. 0: at once."""
        if (pid := self.pid) is None:
            return
        if patience_s > 0:
            self.signal(signal.SIGTERM)
            until = time.monotonic() + patience_s
            while not _has_ended(pid) and time.monotonic() < until:
                time.sleep(0.02)
        self.signal(signal.SIGKILL)
        wait_until(lambda: _has_ended(pid), f"{self.name} has ended")

    def tail(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"


def end_all(folder: Path, name: str = "") -> None:
    """SIGKILL every process that was started for this folder, and what these have started, until there is none.

    name: only those whose program's name begins so.
    """

    def nothing_left() -> bool:
        pids = [pid for pid in _processes() if _mark_of(pid) == str(folder) and _name_of(pid).startswith(name)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.update(pids)
        return not pids and all(_has_ended(pid) for pid in killed)

    killed: set[int] = set()
    wait_until(nothing_left, f"all processes of {folder} are dead")


def require_alive(program: Program) -> None:
    """Raise TestbedError with the end of its log when a program that should run does not."""
    until = time.monotonic() + _UNSEEN_S
    while program.pid is None:
        if time.monotonic() > until:
            raise TestbedError(f"{program.name} has ended; the end of {program.log}:\n{program.tail()}")
        time.sleep(0.05)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _has_ended(pid: int) -> bool:
    """Whether a process is gone or waits to be reaped: before that it may have lost its memory and still hold ports."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _name_of(pid: int) -> str:
    """As the kernel keeps it, so cut to 15 letters."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _mark_of(pid: int) -> str | None:
    """The folder for which a process was started; None for a stranger, and for one that is dead and not yet reaped."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    mark = f"{_MARK}=".encode()
    return next((word[len(mark) :].decode() for word in environment if word.startswith(mark)), None)
