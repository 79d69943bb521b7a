"""One machine: a process tree in namespaces of its own, with a disk that survives when its power is cut."""

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import cgroups, network
from testbed.host import Finished, TestbedError, launch, run, wait_until
from testbed.services import DAEMONS

_BOOT = Path(__file__).with_name("boot.sh")
_DAEMON_SCRIPT = Path(__file__).with_name("daemon.sh").read_text()
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Machine:
    """``disk`` is a folder on the host; ``layers`` are the overlay's lower folders, the topmost first."""

    cluster: str
    name: str
    disk: Path
    shared: Path
    layers: tuple[Path, ...]
    gpus: int
    cgroup_mode: str

    @property
    def pid(self) -> int | None:
        """Host process id of the machine's first process; None while its power is off."""
        try:
            pid = int((self.disk / "init.pid").read_text())
            ours = network.netns_path(self.cluster, self.name).stat().st_ino
            # A process id may have been given to a stranger since; a stranger is in another network.
            return pid if Path(f"/proc/{pid}/ns/net").stat().st_ino == ours else None
        except (FileNotFoundError, ValueError):
            return None

    def boot(self, rate: str) -> None:
        """Connect the machine and start its first process."""
        network.unplug(self.cluster, self.name)
        network.plug_in(self.cluster, self.name)
        network.set_rate(self.cluster, self.name, rate)
        cgroups.create(self.cgroup_mode, self.cluster, self.name)
        failed = self.disk / "boot-failed"
        for leftover in (self.disk / "init.pid", failed):
            leftover.unlink(missing_ok=True)
        group = cgroups.path_of(self.cluster, self.name)
        lower = ":".join(str(layer) for layer in self.layers)
        argv = ["nsenter", f"--net={network.netns_path(self.cluster, self.name)}"]
        argv += ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"]
        argv += [
            str(_BOOT),
            self.name,
            lower,
            str(self.disk),
            str(self.shared),
            str(self.gpus),
            self.cgroup_mode,
            group,
        ]
        console = self.disk / "console.log"
        launch([*cgroups.entering_new(self.cgroup_mode, self.cluster, self.name), *argv], console)
        wait_until(lambda: self.pid is not None or failed.exists(), f"machine {self.name} is up")
        if failed.exists():
            raise TestbedError(f"machine {self.name} could not start:\n{console.read_text()[-2000:]}")

    def power_off(self) -> None:
        """Cut the power: the cable goes dead first, so that nobody can say goodbye, then all processes die at once."""
        with contextlib.suppress(TestbedError):
            network.set_link(self.cluster, self.name, up=False)
        kill_all([network.netns_of(self.cluster, self.name)])
        network.unplug(self.cluster, self.name)
        cgroups.remove(self.cluster, self.name)
        (self.disk / "init.pid").unlink(missing_ok=True)

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The argv that runs ``argv`` inside this machine, as root."""
        if self.pid is None:
            raise TestbedError(f"machine {self.name} has no power; boot it first")
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        clean = ["env", "-i", f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8", f"TERM={os.environ.get('TERM', 'dumb')}"]
        return [*cgroups.entering(self.cgroup_mode, self.cluster, self.name), *enter, "--", *clean, *argv]

    def sh(
        self, script: str, *arguments: str, user: str = "root", check: bool = True, timeout_s: float = 60
    ) -> Finished:
        """Run a shell script inside, in the user's home; TestbedError with its own words if it fails and ``check``."""
        argv = ["sh", "-c", script, *arguments]
        if user != "root":
            home = f"/home/{user}"
            argv = ["runuser", "-u", user, "--", "env", f"--chdir={home}", f"HOME={home}", f"USER={user}", *argv]
        done = run(self.inside(argv), check=False, timeout_s=timeout_s)
        if check and done.returncode != 0:
            output = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise TestbedError(f"on {self.name}, exit status {done.returncode}: {output}")
        return done

    def start(self, *daemons: str) -> None:
        """Start daemons, each once the one before answers; those that run are left alone."""
        for daemon in (DAEMONS[name] for name in daemons):
            self._daemon(daemon.name, "start", daemon.user, daemon.log, daemon.command, daemon.ready)

    def signal(self, daemon: str, name: str) -> None:
        """Send a daemon a signal that ends it (TERM, KILL) and wait until it has ended."""
        self._daemon(daemon, "signal", name)

    def runs(self, daemon: str) -> bool:
        return self._daemon(daemon, "alive", check=False).returncode == 0

    def _daemon(self, name: str, action: str, *arguments: str, check: bool = True) -> Finished:
        return self.sh(_DAEMON_SCRIPT, "daemon", name, action, *arguments, check=check, timeout_s=90)


def kill_all(netns_names: Sequence[str]) -> None:
    """SIGKILL everything that lives in these network namespaces, until nothing does."""

    def nothing_left() -> bool:
        pids = network.processes_in(netns_names)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait_until(nothing_left, f"all processes in {', '.join(netns_names)} are dead")
