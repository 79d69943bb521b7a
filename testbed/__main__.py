"""The testbed's command line: ``python -m testbed up 4``."""

import argparse
import json
import os
import sys
from pathlib import Path

from testbed import Cluster, Spec, TestbedError
from testbed.host import require_root
from testbed.k8s import cli as k8s
from testbed.rootfs import build_in_background, ensure_rootfs
from testbed.services import DAEMONS
from testbed.spec import CGROUP_CHOICES, SUITE_NAMES


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        require_root()
        return arguments.act(arguments) or 0
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1


def _up(arguments: argparse.Namespace) -> None:
    names = ("nodes", "name", "suite", "cgroup", "gpus", "rate", "tmpfs", "dbd", "ssh_port", "packages")
    Cluster(Spec(**{name: getattr(arguments, name) for name in names})).up()


def _down(arguments: argparse.Namespace) -> None:
    Cluster(Spec(name=arguments.name)).down()


def _status(arguments: argparse.Namespace) -> int:
    healthy = True
    for machine, daemons in Cluster.load(arguments.name).status().items():
        words = [name if runs else f"{name} (DOWN)" for name, runs in daemons.items()]
        print(f"{machine:6} {'  '.join(words) or 'NO POWER'}")
        healthy = healthy and bool(daemons) and all(daemons.values())
    return 0 if healthy else 1


def _info(arguments: argparse.Namespace) -> None:
    info = Cluster.load(arguments.name).info()
    if arguments.json:
        print(json.dumps(info, indent=2))
        return
    print(f"cluster     {info['name']}: Slurm {info['slurm_version']} ({info['suite']}), {len(info['nodes'])} nodes")
    print(f"ssh         ssh -F {info['ssh']['config']} testbed")
    print(f"slurmrestd  {info['slurmrestd']['url']}")
    print(f"registry    {info['registry']['address']}, here and on every machine; plain HTTP")
    print(f"image       {info['demo_image']['reference']}")
    print(f"state       {info['state_dir']}")


def _sh(arguments: argparse.Namespace) -> None:
    machine = Cluster.load(arguments.name).machine(arguments.node)
    inside = machine.inside(arguments.command or ["bash", "-l"])
    os.execvp(inside[0], inside)


def _image(arguments: argparse.Namespace) -> None:
    cluster = Cluster.load(arguments.name)
    if arguments.layout == "demo":
        print(cluster.push_demo_image())
    else:
        layout = Path(arguments.layout)
        print(cluster.push_image(layout, arguments.reference or f"{layout.resolve().name.lower()}:1"))


def _rootfs(arguments: argparse.Namespace) -> None:
    if arguments.background:
        build_in_background(arguments.suite)
    else:
        ensure_rootfs(arguments.suite)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed", description=sys.modules["testbed"].__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act: object, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.add_argument("--name", default="berth", help="which cluster (default: berth)")
        sub.set_defaults(act=act)
        return sub

    up = command("up", _up, "bring a cluster up; when it is up, repair it")
    up.add_argument("nodes", type=int, help="number of compute nodes")
    up.add_argument("--suite", choices=SUITE_NAMES, default=Spec.suite, help="Debian suite, and so Slurm's version")
    up.add_argument(
        "--cgroup", choices=CGROUP_CHOICES, default=Spec.cgroup, help="auto: real memory limits where the host has them"
    )
    up.add_argument("--gpus", type=int, default=Spec.gpus, help="stand-in GPUs on each node")
    up.add_argument("--rate", default=Spec.rate, help="speed of each machine's link, like 200mbit")
    up.add_argument("--tmpfs", action="store_true", help="keep the machines' disks in memory")
    up.add_argument("--no-dbd", dest="dbd", action="store_false", help="no slurmdbd: faster, no accounting")
    up.add_argument(
        "--ssh-port", type=int, default=Spec.ssh_port, help="first port on 127.0.0.1; the next are used too"
    )
    up.add_argument("--packages", nargs="+", default=(), help="Debian packages on all machines beside the usual ones")

    command("down", _down, "take a cluster down; leaves nothing")
    command("status", _status, "what runs; exit status 1 when something does not")
    info = command("info", _info, "how to reach the cluster")
    info.add_argument("--json", action="store_true", help="everything, for programs")

    shell = command("sh", _sh, "run a command on a machine as root, or open a shell")
    shell.add_argument("node")
    shell.add_argument("command", nargs=argparse.REMAINDER)

    image = command("image", _image, "push an OCI layout, or the demo image, into the cluster's registry")
    image.add_argument("action", choices=["push"])
    image.add_argument("layout", help="folder of an OCI layout, or: demo")
    image.add_argument("reference", nargs="?", help="NAME:TAG in the registry (default: the folder's name, tag 1)")

    summary = "a Kubernetes instead: up, down, status, build"
    k8s.add_commands(commands.add_parser("k8s", help=summary, description=summary))

    tree = commands.add_parser("rootfs", help="build a suite's root file system, so that a later up need not")
    tree.add_argument("--suite", choices=SUITE_NAMES, default=Spec.suite)
    tree.add_argument("--background", action="store_true", help="return at once; up waits for it")
    tree.set_defaults(act=_rootfs)

    faults = {
        "crash": "cut a machine's power",
        "boot": "power a machine on",
        "cut": "pull a machine's network cable",
        "heal": "put the cable back",
    }
    for name, summary in faults.items():
        command(name, _fault(name), summary).add_argument("node")
    rate = command("rate", _fault("rate", "speed"), "limit the speed of a machine's link")
    rate.add_argument("node")
    rate.add_argument("speed", help="like 200mbit, or none")
    daemon_faults = {"start": "start a daemon", "stop": "end a daemon (SIGTERM)", "kill": "end a daemon (SIGKILL)"}
    for name, summary in daemon_faults.items():
        daemon = command(name, _fault(name, "daemon"), summary)
        daemon.add_argument("node")
        daemon.add_argument("daemon", choices=DAEMONS)
    return parser


def _fault(method: str, *more: str) -> object:
    """The command that calls the cluster's method of the same name with the node and these arguments."""

    def act(arguments: argparse.Namespace) -> None:
        getattr(Cluster.load(arguments.name), method)(arguments.node, *(getattr(arguments, name) for name in more))

    return act


if __name__ == "__main__":
    sys.exit(main())
