"""One image from the first node of an allocation to the local disks of all, on a real Slurm cluster with slow links.

    python -m bench.relay [--nodes 4 8 16 32] [--runs 5]        (root; brings clusters up and takes them down)

Ways take turns: our relay as a chain and as a binary tree, ``sbcast`` with several fanouts, and every node fetching
for itself from an rsync server on the first. Each link is limited so that links and not this machine's cores decide:
all of them together to 400 Mbit/s, and S/B (the image over one link) is 15 s. Bytes are those that the switch counted.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import random
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.report import Row, show, spread
from images.broadcast import Errand, errand_files, preamble
from images.programs import relay
from images.staging import RelayPlan, Shape, chunk_bytes, parents
from testbed.cluster import Cluster
from testbed.host import TestbedError, run
from testbed.network import SWITCH, netns_of
from testbed.spec import Spec

ALL_LINKS_MBIT_S = 400
IMAGE, COPY = "/scratch/image", "/scratch/alice/copy"
TIMED = """set -e
cd /scratch
began=$(date +%s%N)
{{ {command}
}} >/scratch/said 2>&1 || {{ cat /scratch/said >&2; exit 1; }}
ended=$(date +%s%N)
echo $(( (ended - began) / 1000000 ))
"""
RSYNCD = "port = 8730\nuse chroot = no\n[image]\npath = /scratch\nread only = yes\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one run: its seconds, and the most bytes that any node's link carried in one direction."""

    took_s: float
    most_bytes: int


@dataclass(frozen=True)
class Site:
    """A cluster whose links carry ``link_bytes_per_s`` each, with an image on its first node's disk."""

    cluster: Cluster
    link_bytes_per_s: float
    size_bytes: int
    digest: str

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.cluster.spec.compute_nodes

    @property
    def ideal_s(self) -> float:
        """S/B: the image over one link."""
        return self.size_bytes / self.link_bytes_per_s

    @property
    def every(self) -> str:
        """Begins a line that runs once on each node."""
        return f"srun --nodes={len(self.nodes)} --ntasks-per-node=1"

    def time(self, command: str) -> Outcome:
        """Run a command on the first node in an allocation of all, and see that each has the image afterwards."""
        script = self.cluster.state / "shared/shared/timed.sh"
        script.write_text(TIMED.format(command=command))
        allocate = f"salloc --quiet --mem=0 --nodes={len(self.nodes)} --time=30"
        self.cluster.sh("n1", f"{allocate} {self.every} sh -c 'rm -rf {COPY}* /scratch/alice/.copy*'", user="alice")
        before = self._carried()
        said = self.cluster.sh("n1", f"{allocate} sh /shared/timed.sh", user="alice", timeout_s=1200)
        after = self._carried()
        for node in self.nodes:
            copy = self.cluster.machine(node).disk / f"scratch{COPY.removeprefix('/scratch')}"
            if _digest(copy) != self.digest:
                raise RuntimeError(f"{node} does not have the image after: {command}")
        return Outcome(int(said) / 1000, max(after[link] - before[link] for link in after))

    def _carried(self) -> dict[tuple[str, str], int]:
        """Bytes so far by node and direction, as the switch sees them."""
        links = run(["ip", "-netns", netns_of(self.cluster.spec.name, SWITCH), "-json", "-stats", "link"]).stdout
        return {
            (link["ifname"], way): link["stats64"][way]["bytes"]
            for link in json.loads(links)
            if link["ifname"] in self.nodes
            for way in ("rx", "tx")
        }


def ways(site: Site) -> dict[str, Callable[[], Outcome]]:
    """Each way to bring the image to all nodes, by name."""
    shared = site.cluster.state / "shared/shared"
    fetch = f'[ "$SLURMD_NODENAME" = n1 ] && cp {IMAGE} {COPY} || rsync --whole-file rsync://n1:8730/image/image {COPY}'

    def relayed(shape: Shape) -> Outcome:
        outcome = site.time(_send_out(site, shape, shared))
        said = (site.cluster.machine("n1").disk / "scratch/said").read_text()
        if said.count('"outcome": "ok"') != len(site.nodes):
            raise RuntimeError(f"it was not the relay that brought the image: {said}")
        return outcome

    found: dict[str, Callable[[], Outcome]] = {shape.value: lambda shape=shape: relayed(shape) for shape in Shape}
    for fanout, block in ((2, "8m"), (2, "512k"), (3, "512k"), (8, "8m")):  # the last is what it does when left alone
        options = f"--fanout={fanout} --size={block}"
        found[f"sbcast {options}"] = lambda options=options: site.time(
            f"sbcast --force --timeout=300 {options} {IMAGE} {COPY}"
        )
    found["rsync star"] = lambda: site.time(f"{site.every} sh -c '{fetch}'")
    return found


def _send_out(site: Site, shape: Shape, shared: Path) -> str:
    """Put what a job would carry where alice's nodes see it; the lines that her job would begin with."""
    size, count = site.size_bytes, len(site.nodes)
    token = secrets.token_hex(32)
    plan = RelayPlan(
        digest=site.digest,
        size_bytes=size,
        shape=shape,
        chunk_bytes=chunk_bytes(size, count),
        parents=parents(count, shape),
    )
    folder = f"/shared/{token[:8]}"
    index = (shared / "index").read_text()
    errand = Errand(folder=folder, source=IMAGE, destination=COPY, index=index, order=site.nodes)
    (shared / token[:8] / "meeting").mkdir(parents=True)
    for file in errand_files(plan, errand, token):
        path = shared / file.path.removeprefix("/shared/")
        path.write_bytes(file.content)
        path.chmod(file.mode)
    run(["chown", "-R", "2001", shared / token[:8]])
    return preamble(plan, errand)


@contextlib.contextmanager
def site_of(nodes: int, ssh_port: int, ideal_s: float) -> Iterator[Site]:
    """A cluster with limited links and an image that takes ``ideal_s`` over one of them."""
    cluster = Cluster(Spec(nodes=nodes, name="benchrelay", tmpfs=True, dbd=False, ssh_port=ssh_port))
    try:
        cluster.up()
        mbit_s = ALL_LINKS_MBIT_S / nodes
        size_bytes = int(ideal_s * mbit_s * 125_000)
        first = cluster.machine("n1").disk / "scratch"
        content = random.Random(nodes).randbytes(size_bytes)
        (first / "image").write_bytes(content)
        (first / "image").chmod(0o644)
        (first / "rsyncd.conf").write_text(RSYNCD)
        chunk = chunk_bytes(size_bytes, nodes)
        (cluster.state / "shared/shared/index").write_text("".join(relay.index_lines(first / "image", chunk)))
        cluster.sh("n1", "rsync --daemon --config=/scratch/rsyncd.conf", user="alice")
        for node in cluster.spec.compute_nodes:
            cluster.sh(node, "mkdir --mode=700 /scratch/alice", user="alice")
            cluster.rate(node, f"{mbit_s * 1000:.0f}kbit")
        yield Site(cluster, mbit_s * 125_000, size_bytes, "sha256:" + hashlib.sha256(content).hexdigest())
    finally:
        cluster.down()


def report(site: Site, seen: dict[str, list[Outcome]]) -> None:
    """Print each way beside S/B, and ours beside the goals."""
    bound_s = site.ideal_s
    goals = {"chain": f"{1.25 * bound_s + 1.5:.1f} s, 1.1 S", "tree": f"{2.3 * bound_s + 1.5:.1f} s"}
    rows = [
        Row(
            name,
            spread([one.took_s for one in outcomes], "s"),
            f"{median(one.took_s for one in outcomes) / bound_s:.2f} S/B, "
            f"{max(one.most_bytes for one in outcomes) / site.size_bytes:.2f} S on the busiest link",
            f"at most {goals[name]}" if name in goals else "",
        )
        for name, outcomes in seen.items()
        if outcomes
    ]
    rows += [Row(name, "", "failed") for name, outcomes in seen.items() if not outcomes]
    count, mib = len(site.nodes), site.size_bytes / 2**20
    show(
        f"{mib:.0f} MiB to {count} nodes, links of {site.link_bytes_per_s / 125_000:g} Mbit/s: S/B {bound_s:.1f} s",
        rows,
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ways", nargs="+", help="names of ways, as they are printed; all when none is named")
    parser.add_argument("--ideal-s", type=float, default=15.0, help="S/B")
    parser.add_argument("--ssh-port", type=int, default=12500)
    chosen = parser.parse_args(argv)
    for nodes in chosen.nodes:
        with site_of(nodes, chosen.ssh_port, chosen.ideal_s) as site:
            there = ways(site)
            names = chosen.ways or list(there)
            seen: dict[str, list[Outcome]] = {name: [] for name in names}
            for _, name in itertools.product(range(chosen.runs), names):
                try:
                    seen[name].append(there[name]())
                    print(f"{nodes} nodes, {name}: {seen[name][-1]}", file=sys.stderr, flush=True)
                except TestbedError as error:  # a peer may give up on such links
                    print(f"{nodes} nodes, {name} failed: {str(error)[-200:]}", file=sys.stderr, flush=True)
            report(site, seen)


def _digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
