"""``python -m testbed k8s``: a Kubernetes to play with."""

from __future__ import annotations

import argparse

from testbed.k8s.binaries import build_in_background, ensure_binaries
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.spec import USERS, Spec, fake_nodes


def add_commands(parser: argparse.ArgumentParser) -> None:
    """The commands below ``k8s``; each sets ``act``."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act: object, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(act=act)
        return sub

    up = command("up", _up, "bring a Kubernetes up; when it is up, repair it")
    up.add_argument(
        "--fake-nodes", type=int, help="nodes on which pods only seem to run (default: 3, or 0 with --node)"
    )
    up.add_argument("--node", action="store_true", help="one real node, on which pods do run")
    up.add_argument("--gpus", type=int, default=0, help="GPUs of the last of them")
    up.add_argument("--port", type=int, default=Spec.port, help="first of ten ports on 127.0.0.1")
    down = command("down", _down, "take it down; leaves nothing")
    status = command("status", _status, "what runs; exit status 1 when something does not")
    for sub in (up, down, status):
        sub.add_argument("--name", default=Spec.name, help=f"which Kubernetes (default: {Spec.name})")
    build = command("build", _build, "build the server programs, so that a later up need not")
    build.add_argument("--background", action="store_true", help="return at once; up waits for it")


def _up(arguments: argparse.Namespace) -> None:
    count = (0 if arguments.node else 3) if arguments.fake_nodes is None else arguments.fake_nodes
    nodes = fake_nodes(count, gpus=arguments.gpus)
    plane = ControlPlane(Spec(arguments.name, nodes, apart=arguments.node, port=arguments.port))
    plane.up()
    if arguments.node:
        from testbed.k8s.node import Node  # its HTTP client is not everywhere where a Kubernetes is built

        node = Node(plane)
        node.up()
        print(f"# an image to run: {node.push_demo_image()}")
    print(f"export KUBECONFIG={plane.kubeconfig()}")
    for user in USERS:
        print(f"# {user}, who may do nothing yet: {plane.kubeconfig(user)}")


def _down(arguments: argparse.Namespace) -> None:
    ControlPlane(Spec(arguments.name)).down()


def _status(arguments: argparse.Namespace) -> int:
    plane = ControlPlane.load(arguments.name)
    status = plane.status()
    if plane.spec.apart:
        from testbed.k8s.node import Node

        status |= Node(plane).status()
    for part, runs in status.items():
        print(f"{part:24} {'runs' if runs else 'DOWN'}")
    return 0 if all(status.values()) else 1


def _build(arguments: argparse.Namespace) -> None:
    if arguments.background:
        build_in_background()
    else:
        ensure_binaries()
