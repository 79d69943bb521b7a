"""A control plane: up, down, and the faults one can cause in between."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from testbed import cgroups
from testbed.cluster import STATE
from testbed.host import TestbedError, install_tools, lock, require_root, run, say, wait_until
from testbed.k8s import namespace
from testbed.k8s.binaries import Binaries, ensure_binaries
from testbed.k8s.credentials import ADMIN, kubeconfig_of, token_of, write_credentials
from testbed.k8s.parts import FAKE_NODES, HEALTH, NODE_ADDRESS, PARTS, programs
from testbed.k8s.program import Program, end_all, require_alive
from testbed.k8s.spec import Spec

STATES = STATE / ".k8s"  # a Slurm cluster beside it has a name without a dot
_START_S = 90


class ControlPlane:
    """One control plane by its specification; nothing happens until ``up``. Works from any process."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.state = STATES / spec.name

    @classmethod
    def load(cls, name: str) -> Self:
        """The control plane of this name that was brought up before; TestbedError when there is none."""
        path = STATES / name / "spec.json"
        if not path.exists():
            raise TestbedError(f"no Kubernetes {name!r} is up")
        return cls(Spec(**json.loads(path.read_text())))

    # Life

    def up(self) -> None:
        """Bring everything up; when it is up already, start again what has died."""
        require_root()
        install_tools()
        binaries = ensure_binaries()  # before the lock: building takes minutes
        with self.locked():
            self._refuse_another_spec()
            if not (self.state / "up").exists():
                self._erase()
                self._create(binaries)
            self._start_all()
            (self.state / "up").touch()

    def down(self) -> None:
        """End every process and remove every trace, whatever state it is in."""
        require_root()
        with self.locked():
            self._erase()
            self._lock_path.unlink()

    def status(self) -> dict[str, bool]:
        """Part -> whether it runs."""
        return {part: program.pid is not None for part, program in self._programs.items()}

    # Reaching it

    @property
    def url(self) -> str:
        """Of the API server, on this host."""
        return f"https://127.0.0.1:{self.spec.ports['kube-apiserver']}"

    @property
    def ca(self) -> Path:
        """What proves the API server to clients."""
        return self.state / "credentials/tls.crt"

    def kubeconfig(self, user: str = ADMIN) -> Path:
        """A kubeconfig of ``admin`` or of one of the specification's users."""
        return kubeconfig_of(self.state / "credentials", user)

    def token(self, user: str = ADMIN) -> str:
        """A user's bearer token."""
        return token_of(self.state / "credentials", user)

    @cached_property
    def version(self) -> tuple[int, int]:
        """Like (1, 20)."""
        return self.binaries.version

    @cached_property
    def binaries(self) -> Binaries:
        """The programs that this control plane runs."""
        return Binaries(tuple(Path(folder) for folder in json.loads((self.state / "binaries.json").read_text())))

    # Faults

    def kill(self, part: str) -> None:
        """End a part at once (SIGKILL)."""
        self._program(part).end(patience_s=0)

    def stop(self, part: str) -> None:
        """Ask a part to end (SIGTERM), and end it at once when it has not after 5 s."""
        self._program(part).end()

    def pause(self, part: str) -> None:
        """Stop a part in its tracks: its connections stay, and nothing comes out of them."""
        self._program(part).signal(signal.SIGSTOP)

    def resume(self, part: str) -> None:
        """Let a paused part go on."""
        self._program(part).signal(signal.SIGCONT)

    def start(self, part: str) -> None:
        """Start a part, unless it runs, and wait until it answers."""
        program = self._program(part)
        program.start()
        try:
            self._await(part, program)
        except TestbedError:
            if program.pid is not None:
                raise
            program.start()  # as a supervisor would: on a busy machine one has been seen to end while it starts
            self._await(part, program)

    def restart(self, part: str) -> None:
        """Stop a part and start it again."""
        self.stop(part)
        self.start(part)

    def compact_etcd(self) -> None:
        """Throw away etcd's history: a list that goes on from before, and after a restart of the API server a watch
        too, is answered with 410 Gone."""
        revision = self._etcd("range", {"key": base64.b64encode(b"/").decode()})["header"]["revision"]
        self._etcd("compaction", {"revision": revision, "physical": True})

    # Within

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one process that changes this control plane."""
        STATES.mkdir(parents=True, exist_ok=True)
        if STATE.stat().st_uid != 0:  # its parent may be open to all, and we are about to trust what lies here
            raise TestbedError(f"{STATE} belongs to another user; remove it or set BERTH_TESTBED_STATE")
        with lock(self._lock_path):
            yield

    @property
    def entering(self) -> tuple[str, ...]:
        """What to put before an argv that must run in the control plane's network namespace, if it has one."""
        return namespace.entering(self.spec.name) if self.spec.apart else ()

    def answers(self, path: str, status: int = 200) -> bool:
        """Whether the API server answers a GET of the administrator's with this status."""
        return self._status(f"{self.url}{path}") == status

    def get(self, path: str) -> Any:
        """What the API server answers to a GET of the administrator's; TestbedError when that is no success."""
        return json.loads(self._fetch(f"{self.url}{path}"))

    def starts_pods(self, namespace: str = "default") -> bool:
        """Whether pods are admitted to a namespace: its account must be there, and old versions want a secret of it."""
        try:
            account = self.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
        except TestbedError:
            return False
        return bool(account.get("secrets")) or self.version >= (1, 24)

    def is_ready(self, node: str) -> bool:
        """Whether a node is there and says that it is ready."""
        try:
            conditions = self.get(f"/api/v1/nodes/{node}")["status"].get("conditions", [])
        except TestbedError:
            return False
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    @cached_property
    def _programs(self) -> dict[str, Program]:
        return programs(self.spec, self.state, self.binaries, self.entering)

    def _program(self, part: str) -> Program:
        if part not in self._programs:
            raise TestbedError(f"no part {part!r}; there are {', '.join(self._programs)}")
        return self._programs[part]

    def _create(self, binaries: Binaries) -> None:
        spec = self.spec
        say(f"starting {spec.name}: Kubernetes {'.'.join(map(str, binaries.version))}, {len(spec.nodes)} fake nodes")
        (self.state / "run").mkdir(parents=True, mode=0o755)
        self._write("spec.json", asdict(spec))
        self._write("binaries.json", [str(folder) for folder in binaries.folders])
        write_credentials(self.state / "credentials", self.url, spec.users, [NODE_ADDRESS] if spec.apart else [])

    def _start_all(self) -> None:
        if self.spec.apart:
            namespace.ensure(self.spec, self.state)
        for part in PARTS[:2]:
            self.start(part)
        for part in PARTS[2:]:  # these do not wait for each other
            self._program(part).start()
        for part in PARTS[2:]:
            self.start(part)
        wait_until(self.starts_pods, "pods can be started in the namespace default", _START_S)
        if self.spec.nodes:
            self.start(FAKE_NODES)

    def _await(self, part: str, program: Program) -> None:
        def works() -> bool:
            require_alive(program)
            return self._works(part)

        wait_until(works, f"{part} answers; see {program.log}", _START_S)

    def _works(self, part: str) -> bool:
        if part == FAKE_NODES:
            return all(self.is_ready(node.name) for node in self.spec.nodes)
        return self._status(HEALTH[part].format(port=self.spec.ports[part])) == 200

    def _status(self, url: str) -> int | None:
        """The status of a GET; None when nobody answers."""
        try:
            self._fetch(url)
        except TestbedError as error:
            cause = error.__cause__
            return cause.code if isinstance(cause, urllib.error.HTTPError) else None
        return 200

    def _etcd(self, action: str, body: dict[str, Any]) -> Any:
        return json.loads(self._fetch(f"http://127.0.0.1:{self.spec.ports['etcd']}/v3/kv/{action}", body))

    def _fetch(self, url: str, body: dict[str, Any] | None = None) -> bytes:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, content)
        context = None
        if url.startswith("https:"):
            request.add_header("Authorization", f"Bearer {self.token()}")
            context = ssl.create_default_context(cafile=str(self.ca))
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                return bytes(answer.read())
        except (OSError, urllib.error.URLError) as error:
            raise TestbedError(f"{url}: {error}") from error

    def _erase(self) -> None:
        end_all(self.state / "run")
        cgroups.kill(namespace.cgroup_of(self.spec.name))
        namespace.remove(self.spec.name)
        cgroups.remove(namespace.cgroup_of(self.spec.name))
        for mount in _mounts_below(self.state):
            run(["umount", "--lazy", mount])
        if self.state.exists():
            shutil.rmtree(self.state)

    def _refuse_another_spec(self) -> None:
        if (self.state / "up").exists() and (there := ControlPlane.load(self.spec.name).spec) != self.spec:
            raise TestbedError(
                f"Kubernetes {self.spec.name!r} is up with another specification ({there}); "
                f"take it down first or choose another --name"
            )

    @property
    def _lock_path(self) -> Path:
        return STATES / f".{self.spec.name}.lock"

    def _write(self, name: str, content: object) -> None:
        path = self.state / name
        new = path.with_name(f"{name}.new")
        new.write_text(json.dumps(content, indent=2) + "\n")
        new.replace(path)


def _mounts_below(folder: Path) -> list[str]:
    """Mount points below a folder, the innermost first."""
    found = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((point for point in found if point.startswith(f"{folder}/")), reverse=True)
