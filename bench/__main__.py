"""All figures, each beside a peer or a limit: ``python -m bench [--quick] [PART ...]``.

Parts that need a cluster bring their own up and take it down again; those need root.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Part:
    """One module of this package: the words that make it quick, and what it is about."""

    quick: tuple[str, ...]
    about: str


PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "cli": Part(("--runs", "5"), "the command line's start"),
        "placement": Part((), "the engine"),
        "brokerage": Part(("--quick",), "the engine as a broker between simulated systems"),
        "waits": Part(("--quick",), "predicted waits beside what came"),
        "store": Part((), "the store beside a bare commit"),
        "http": Part(("--seconds", "2", "--rounds", "1"), "submissions over HTTP beside a bare application"),
        "gateway": Part(("--seconds", "1", "--rounds", "1"), "requests to a pod through the gateway beside its server"),
        "pods": Part(("--pods", "100"), "what many pods cost a process that keeps them"),
        "pod_start": Part(("--runs", "1"), "from the request for a pod to AVAILABLE, at each kind of place"),
        "k8s_ways": Part(("--runs", "1"), "ways to a pod on Kubernetes beside its bare address"),
        "handover": Part(("--changes", "1"), "requests to a pod whose instances are handed over before walltimes end"),
        "dispatch": Part(("--jobs", "100", "--rounds", "1"), "submissions into Slurm beside a loop of sbatch"),
        "first_line": Part(("--runs", "5"), "from the submission to the first line beside ssh host sbatch"),
        "relay": Part(
            ("--nodes", "4", "--runs", "1", "--ideal-s", "3"), "an image to many nodes beside sbcast and rsync"
        ),
        "convert": Part(("--runs", "1"), "images into squashfs, and what a new version moves, beside gzip 9"),
        "staging": Part(("--quick",), "images staged behind recorded waits, beside images that come when jobs begin"),
        "pull": Part(("--runs", "1"), "an image from a registry to one file, beside apptainer pull"),
        "scale": Part(("--jobs", "100", "--idle-s", "20", "--probes", "2"), "what many active jobs cost"),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all of {', '.join(PARTS)} when none is named")
    parser.add_argument("--quick", action="store_true", help="few runs: to see that it works, not what it is worth")
    chosen = parser.parse_args(argv)
    if unknown := set(chosen.parts) - PARTS.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    failed = [name for name in chosen.parts or PARTS if not _run(name, PARTS[name].quick if chosen.quick else ())]
    if failed:
        print(f"\ndid not come to their end: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def _run(name: str, words: Sequence[str]) -> bool:
    """Run a part in a process of its own, so that none measures what another left in memory."""
    print(f"\n== {name}: {PARTS[name].about}", flush=True)
    running = subprocess.Popen([sys.executable, "-m", f"bench.{name}", *words])
    try:
        return running.wait() == 0
    except BaseException:
        running.send_signal(signal.SIGINT)  # as Ctrl-C: it takes down what it brought up
        running.wait()
        raise


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
