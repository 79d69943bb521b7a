"""A whole cluster: up, down, and the faults one can cause in between."""

import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from testbed import cgroups, network, slurm_conf
from testbed.host import TestbedError, install_tools, launch, lock, require_root, run, say, wait_until
from testbed.info import describe
from testbed.layer import write_common_layer, write_machine_keys, write_shared_folder
from testbed.machine import Machine, kill_all
from testbed.oci import DEMO_REFERENCE, write_demo_image
from testbed.rootfs import ensure_rootfs, package_versions
from testbed.services import daemons_of
from testbed.spec import USERS, Spec

STATE = Path(os.environ.get("BERTH_TESTBED_STATE", "/var/tmp/berth-testbed"))
_RELAY = Path(__file__).with_name("relay.py")


class Cluster:
    """One cluster by its specification; nothing happens until ``up``. Every method may be called from any process."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.state = STATE / spec.name

    @classmethod
    def load(cls, name: str) -> Self:
        """The cluster of this name that was brought up before; TestbedError when there is none."""
        path = STATE / name / "spec.json"
        if not path.exists():
            raise TestbedError(f"no cluster {name!r} is up")
        return cls(Spec(**json.loads(path.read_text())))

    # Life

    def up(self) -> dict[str, Any]:
        """Bring the cluster up and return ``info()``; when it is up already, start again whatever has died."""
        require_root()
        with self._locked(), _open_umask():
            self._refuse_another_spec()
            if (self.state / "spec.json").exists() and not (self.state / "info.json").exists():
                say("the last start did not finish: clearing it away")
                self._erase()
            if not (self.state / "info.json").exists():
                self._create()
            elif self._repair():
                say(f"cluster {self.spec.name} was up already; repaired")
            else:
                say(f"cluster {self.spec.name} is up already")
        return self.info()

    def down(self) -> None:
        """End every process and remove every trace, whatever state the cluster is in."""
        require_root()
        with self._locked():
            self._erase()
            self._lock_path.unlink()

    def info(self) -> dict[str, Any]:
        """All that a program needs to use the cluster; ``testbed.info`` says what."""
        try:
            content: dict[str, Any] = json.loads((self.state / "info.json").read_text())
            return content
        except FileNotFoundError:
            raise TestbedError(f"cluster {self.spec.name!r} is not up") from None

    def status(self) -> dict[str, dict[str, bool]]:
        """Machine -> daemon -> whether it runs; a machine without power has no daemons."""
        powered = {name: machine for name, machine in self.machines.items() if machine.pid is not None}
        return {
            name: {daemon: powered[name].runs(daemon) for daemon in self._daemons(name)} if name in powered else {}
            for name in self.machines
        }

    # Faults

    def crash(self, node: str) -> None:
        """Cut a machine's power: no process says goodbye, connections simply fall silent. Its disk survives."""
        self.machine(node).power_off()

    def boot(self, node: str) -> None:
        """Power a machine on and start its daemons; nothing happens when it runs."""
        machine = self.machine(node)
        if machine.pid is None:
            machine.boot(self.spec.rate)
        machine.start(*self._daemons(node))

    def cut(self, node: str) -> None:
        """Pull a machine's cable."""
        self.machine(node)
        network.set_link(self.spec.name, node, up=False)

    def heal(self, node: str) -> None:
        """Put a machine's cable back."""
        self.machine(node)
        network.set_link(self.spec.name, node, up=True)

    def rate(self, node: str, rate: str) -> None:
        """Limit a machine's link to ``rate`` (like 200mbit) each way, until its next boot; ``none`` lifts the limit."""
        self.machine(node)
        network.set_rate(self.spec.name, node, rate)

    def start(self, node: str, daemon: str) -> None:
        """Start a daemon and wait until it answers."""
        self.machine(node).start(self._daemon(node, daemon))

    def stop(self, node: str, daemon: str) -> None:
        """Ask a daemon to end (SIGTERM) and wait until it has."""
        self.machine(node).signal(self._daemon(node, daemon), "TERM")

    def kill(self, node: str, daemon: str) -> None:
        """End a daemon at once (SIGKILL)."""
        self.machine(node).signal(self._daemon(node, daemon), "KILL")

    def sh(self, node: str, script: str, *, user: str = "root", check: bool = True, timeout_s: float = 60) -> str:
        """Standard output of a shell script run on a machine; TestbedError when it fails and ``check``."""
        return self.machine(node).sh(script, user=user, check=check, timeout_s=timeout_s).stdout

    def push_image(self, layout: Path, reference: str) -> str:
        """Push an OCI layout into the cluster's registry as ``reference`` (NAME:TAG) and return its digest."""
        if not re.fullmatch(r"[a-z0-9]+([._/-][a-z0-9]+)*:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", reference):
            raise TestbedError(f"image reference {reference!r} is not like demo/busybox:1")
        if not (layout / "oci-layout").is_file():
            raise TestbedError(f"{layout} is not an OCI layout: it has no file oci-layout")
        login = self.machines["login"]
        with tempfile.TemporaryDirectory(dir=login.disk / "scratch") as folder:
            shutil.copytree(layout, Path(folder) / "layout")
            source = f"/scratch/{Path(folder).name}"
            target = f"docker://127.0.0.1:5000/{reference}"
            copy = "skopeo copy --quiet --preserve-digests --dest-tls-verify=false --digestfile"
            login.sh(f'{copy} {source}/digest oci:{source}/layout "$1"', "push", target, timeout_s=600)
            return (Path(folder) / "digest").read_text().strip()

    def push_demo_image(self) -> str:
        """Make the demo image, push it as ``demo/busybox:1`` and return its digest."""
        with tempfile.TemporaryDirectory(dir=self.state) as folder:
            write_demo_image(Path(folder) / "layout", self.rootfs / "usr/bin/busybox")
            return self.push_image(Path(folder) / "layout", DEMO_REFERENCE)

    # Parts

    def machine(self, name: str) -> Machine:
        """One machine by its name; TestbedError when there is none."""
        if name not in self.spec.machines:
            raise TestbedError(f"no machine {name!r}; there are {', '.join(self.spec.machines)}")
        return self.machines[name]

    @property
    def machines(self) -> dict[str, Machine]:
        return {
            name: Machine(
                cluster=self.spec.name,
                name=name,
                disk=self.state / "machines" / name,
                shared=self.state / "shared",
                layers=(self.state / "common", self.rootfs),
                gpus=self.spec.gpus if name != "login" else 0,
                cgroup_mode=self._setup["cgroup"],
            )
            for name in self.spec.machines
        }

    @property
    def rootfs(self) -> Path:
        """What all machines stand on; never written to."""
        return Path(self._setup["rootfs"])

    @property
    def _setup(self) -> dict[str, str]:
        """What ``up`` found out beyond the specification: the root file system and the cgroup version."""
        found: dict[str, str] = json.loads((self.state / "setup.json").read_text())
        return found

    def _create(self) -> None:
        install_tools()
        rootfs = ensure_rootfs(self.spec.suite, self.spec.packages)
        cgroup_mode = cgroups.available_mode() if self.spec.cgroup == "auto" else "none"
        versions = package_versions(rootfs)
        say(f"starting {self.spec.name}: {self.spec.nodes} nodes, Slurm {versions['slurmctld']}, cgroup {cgroup_mode}")
        doors = self._open_doors()
        try:
            (self.state / "machines").mkdir(parents=True, exist_ok=True)
            _write(self.state / "spec.json", asdict(self.spec))
            _write(self.state / "setup.json", {"rootfs": str(rootfs), "cgroup": cgroup_mode})
            if self.spec.tmpfs:
                run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", self.state / "machines"])
            write_common_layer(self.state / "common", rootfs, slurm_conf.files(self.spec, cgroup_mode))
            write_machine_keys(self.state, self.spec)
            write_shared_folder(self.state, USERS)
            network.create_switch(self.spec.name)
            self._start_relay(doors)
        finally:
            for door in doors:
                door.close()
        _each(self.spec.machines, lambda name: self.machines[name].boot(self.spec.rate))
        self._start_daemons()
        self._await_first_job()
        demo_digest = self.push_demo_image()
        _write(self.state / "info.json", describe(self.spec, self.state, cgroup_mode, versions, demo_digest))
        say(f"up: ssh -F {self.state}/ssh/config testbed")

    def _start_daemons(self) -> None:
        """login first, and beside it what the nodes can start without a controller; slurmd once there is one."""
        login = self.machines["login"]

        def start(name: str) -> None:
            if name != "login":
                self.machines[name].start("munged", "sshd", "registrydoor")
                return
            if self.spec.dbd:  # slurmctld must find its cluster and its users in the database
                login.start("munged", "mariadbd", "slurmdbd")
                commands = (command.format(cluster=self.spec.name) for command in slurm_conf.ACCOUNTING)
                login.sh("set -e\n" + "".join(f"sacctmgr -i {command}\n" for command in commands))
            login.start(*self._daemons("login"))

        _each(self.spec.machines, start)
        _each(self.spec.compute_nodes, lambda name: self.machines[name].start("slurmd"))

    def _await_first_job(self) -> None:
        login, job = self.machines["login"], f"srun -N{self.spec.nodes} --immediate=5 true"
        wait_until(
            lambda: login.sh(job, user="alice", check=False).returncode == 0,
            "a first job ran on all nodes",
            timeout_s=60,
        )
        wait_until(self._ssh_answers, "sshd answers through the relay")

    def _ssh_answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.spec.ssh_port), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _repair(self) -> bool:
        """Start again what has died; whether there was anything."""
        dead = [name for name, daemons in self.status().items() if not daemons or not all(daemons.values())]
        relay_dead = not network.processes_in([network.netns_of(self.spec.name, network.SWITCH)])
        if relay_dead:
            doors = self._open_doors()
            self._start_relay(doors)
            for door in doors:
                door.close()
        for name in dead:  # login is first in the list, and the others need it
            self.boot(name)
        return bool(dead) or relay_dead

    def _open_doors(self) -> list[socket.socket]:
        doors = []
        for port in self.spec.doors:
            try:
                doors.append(socket.create_server(("127.0.0.1", port), backlog=512))
            except OSError as error:
                for door in doors:
                    door.close()
                raise TestbedError(f"127.0.0.1:{port}: {error.strerror}; choose another --ssh-port") from error
        return doors

    def _start_relay(self, doors: list[socket.socket]) -> None:
        targets = self.spec.doors
        argv: list[str | Path] = ["nsenter", f"--net={network.netns_path(self.spec.name, network.SWITCH)}"]
        argv += [sys.executable, "-I", _RELAY]
        for door in doors:
            machine, port = targets[door.getsockname()[1]]
            argv.append(f"{door.fileno()}={network.address_of(machine)}:{port}")
        launch(argv, self.state / "relay.log", [door.fileno() for door in doors])

    def _erase(self) -> None:
        names = network.namespaces(self.spec.name)
        if names:
            kill_all(names)
        for name in names:
            run(["ip", "netns", "del", name], check=False)
        cgroups.remove(self.spec.name)
        disks = self.state / "machines"
        while disks.is_mount():
            run(["umount", disks])
        if self.state.exists():
            shutil.rmtree(self.state)

    def _refuse_another_spec(self) -> None:
        if (self.state / "info.json").exists() and (there := Cluster.load(self.spec.name).spec) != self.spec:
            raise TestbedError(
                f"cluster {self.spec.name!r} is up with another specification ({there}); "
                f"take it down first or choose another --name and --ssh-port"
            )

    @property
    def _lock_path(self) -> Path:
        return STATE / f".{self.spec.name}.lock"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        STATE.mkdir(parents=True, exist_ok=True)
        if STATE.stat().st_uid != 0:  # its parent may be open to all, and we are about to trust what lies here
            raise TestbedError(f"{STATE} belongs to another user; remove it or set BERTH_TESTBED_STATE")
        with lock(self._lock_path):
            yield

    def _daemon(self, node: str, daemon: str) -> str:
        """The daemon's name, once it is sure that this machine has such a daemon."""
        if daemon not in self._daemons(node):
            raise TestbedError(f"no daemon {daemon!r} on {node}; there are {', '.join(self._daemons(node))}")
        return daemon

    def _daemons(self, node: str) -> tuple[str, ...]:
        return daemons_of(node, self.spec.dbd)


def _each(names: tuple[str, ...], act: Callable[[str], None]) -> None:
    """Act on several machines at once; the first error is raised after all have ended."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        for outcome in [pool.submit(act, name) for name in names]:
            outcome.result()


@contextmanager
def _open_umask() -> Iterator[None]:
    """What we write is read by the machines' users, whatever the caller's umask."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def _write(path: Path, content: object) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content, indent=2) + "\n")
    new.rename(path)
