"""``make demo``: one container job from Berth's API to a real Slurm cluster and back, with the commands a user types.

As root on Debian the job runs on the testbed's cluster; elsewhere on this machine, by Berth's ``local`` backend.
``--keep`` leaves cluster and server running, ``--down`` ends what ``--keep`` left.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed import host_image
from testbed.cluster import Cluster
from testbed.host import TestbedError
from testbed.server import ADMIN_PASSWORD, Server, ServerError
from testbed.spec import Spec

CLUSTER = "berth"
SYSTEM = "alder"
PORT = 8085
NODES = 4
JOB = 'echo "hello from $(hostname)"; n=0; while [ $n -lt 3 ]; do n=$((n+1)); echo "step $n of 3"; sleep 1; done; '
JOB += "echo 42 > answer.txt"


class Demo:
    """The steps, each told to the user as the command that does it."""

    def __init__(self, home: Path, on_cluster: bool) -> None:
        self.home = home
        self.on_cluster = on_cluster
        self.began = time.monotonic()
        self.cluster = Cluster(Spec(nodes=NODES, name=CLUSTER)) if on_cluster else None
        # The Quickstart of Pods names its template in a field that today's tapipy leaves out.
        settings = {"images_dir": str(home / "images"), "default_pod_template": "neo4j"}
        self.server = Server(home / "server", port=PORT, log_level="warning", **settings)

    def say(self, text: str) -> None:
        print(
            f"\n\033[1m[{time.monotonic() - self.began:5.1f} s] {text}\033[0m" if _colours() else f"\n{text}",
            flush=True,
        )

    def run(self) -> None:
        """All steps; an exception means that the demo failed."""
        self.bring_up()
        self.say(f"Berth: API, reconcilers and SQLite in one process, at {self.server.url}")
        self.server.start()
        self.berth("login", self.server.url, "--user", "admin", "--password-stdin", given=ADMIN_PASSWORD)
        image = self.register_cluster() if self.cluster else self.register_this_machine()
        self.say("A container job; no system is named, so Berth chooses")
        self.berth("run", "--name", "demo", "--time", "5", "--exec", image, "--", "sh", "-c", JOB)
        job = self.newest_job()
        self.say("Where it ran, and why")
        self.berth("why", job["uuid"])
        self.say("How long each part took")
        self.phases(job["uuid"])
        self.say("What it left")
        self.berth("output", "ls", job["uuid"])
        self.berth("output", "get", job["uuid"], "answer.txt", "--to", "-")

    def bring_up(self) -> None:
        if self.cluster is None:
            self.say("This machine is the system: a real cluster needs root on Debian 12 or later")
            return
        self.say(f"A Slurm cluster: 1 login and {NODES} compute machines, sshd, Apptainer, a registry")
        self.cluster.up()

    def register_cluster(self) -> str:
        """Look at the cluster, review what was found, register it; the demo image's reference."""
        assert self.cluster is not None
        info = self.cluster.info()
        ssh, key = info["ssh"], info["ssh"]["users"]["alice"]["key"]
        self.say("What is this cluster? Berth logs in as you and looks")
        definition = self.home / "alder.yaml"
        where = ("--port", str(ssh["port"]), "--user", "alice", "--identity", key)
        plain = "notes.berth.plainHttpRegistries=" + json.dumps([info["registry"]["from_nodes"]])
        self.berth("systems", "probe", ssh["host"], *where, "--id", SYSTEM, "--set", plain, "-o", str(definition))
        print("\n".join(f"    {line}" for line in definition.read_text().splitlines()[:32]) + "\n    ...")
        self.berth("systems", "create", str(definition), check=not self.exists())
        self.berth("systems", "credential", SYSTEM, "--login", "alice", "--identity", key)
        return str(info["demo_image"]["from_nodes"])

    def register_this_machine(self) -> str:
        """A system that is this machine, and an image made of its own shell; the image's reference."""
        definition = self.home / "here.json"
        definition.write_text(json.dumps(host_image.local_system("here", self.home / "work")))
        self.berth("systems", "create", str(definition), check=not self.exists("here"))
        return "oci:" + str(host_image.write(self.home / "image"))

    def exists(self, system: str = SYSTEM) -> bool:
        return system in self.berth("systems", "ls", "-o", "id", quiet=True).split()

    def newest_job(self) -> dict[str, Any]:
        job: dict[str, Any] = json.loads(self.berth("ps", "--all", "-o", "json", quiet=True))["items"][0]
        return job

    def phases(self, uuid: str) -> None:
        """Time in each state, from the job's history."""
        shown = json.loads(self.berth("show", uuid, "--history", "-o", "json", quiet=True))
        history = shown["history"]
        moves = [(line["eventDetail"], line["created"]) for line in history if line["event"] == "JOB_NEW_STATUS"]
        instants = [_seconds(created) for _, created in moves]
        for (state, _), start, end in zip(moves, instants, instants[1:], strict=False):
            print(f"  {state:<18} {end - start:6.2f} s")
        print(f"  {'in all':<18} {instants[-1] - instants[0]:6.2f} s")

    def berth(self, *words: str, given: str | None = None, check: bool = True, quiet: bool = False) -> str:
        """Run one ``berth`` command, shown as a user would type it; its standard output when ``quiet``."""
        if not quiet:
            print(f"$ berth {shlex.join(words)}", flush=True)
        environment = {**self.server.environment(), "XDG_CONFIG_HOME": str(self.home / "config")}
        done = subprocess.run(
            [sys.executable, "-m", "berth", *words],
            env=environment,
            input=given,
            text=True,
            stdout=subprocess.PIPE if quiet else None,
            stdin=subprocess.DEVNULL if given is None else None,
            timeout=300,
        )
        if check and done.returncode != 0:
            raise TestbedError(f"'berth {words[0]}' ended with {done.returncode}\n{self.server.tail()}")
        return done.stdout or ""

    def leave(self) -> None:
        """Say how to go on with what is kept running."""
        self.say("Everything is left running. Look further:")
        print(f"  export XDG_CONFIG_HOME={self.home / 'config'}  PATH={ROOT_BIN}:$PATH")
        print(
            "  berth ps --all;  berth run IMAGE -- COMMAND;  berth systems show " + (SYSTEM if self.cluster else "here")
        )
        if self.cluster:
            print("  ssh -F " + self.cluster.info()["ssh"]["config"] + " testbed      # alice on the login machine")
        print("  make down                                        # end it all")

    def end(self) -> None:
        self.server.stop()
        if self.cluster is not None:
            self.cluster.down()


ROOT_BIN = Path(sys.executable).parent


def _seconds(instant: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(instant).timestamp()


def _colours() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _home() -> Path:
    base = Path("/var/tmp") if os.geteuid() == 0 else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "berth-demo"


def _end_kept(home: Path) -> None:
    """End the server and cluster that ``--keep`` left, if any."""
    left = home / "server.pid"
    if left.exists():
        pid = int(left.read_text())
        if "berth" in Path(f"/proc/{pid}/cmdline").read_text() if Path(f"/proc/{pid}").exists() else False:
            os.kill(pid, signal.SIGTERM)
        left.unlink()
    if os.geteuid() == 0:
        Cluster(Spec(name=CLUSTER)).down()
    shutil.rmtree(home, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m testbed.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the cluster and the server running")
    parser.add_argument("--down", action="store_true", help="end what --keep left running")
    parser.add_argument("--local", action="store_true", help="use this machine even where a cluster could be made")
    arguments = parser.parse_args(argv)
    home = _home()
    _end_kept(home)
    if arguments.down:
        return 0
    home.mkdir(parents=True)
    can_cluster = os.geteuid() == 0 and shutil.which("apt-get") is not None
    demo = Demo(home, on_cluster=can_cluster and not arguments.local)
    kept = False
    try:
        demo.run()
        if arguments.keep:
            (home / "server.pid").write_text(str(demo.server.pid))
            demo.leave()
            kept = True
        else:
            demo.say("Done. `make up` leaves all this running to play with; docs/user-guide.md goes on from here.")
    except (TestbedError, ServerError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        if not kept:
            demo.end()
            shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
