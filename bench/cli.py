"""How long ``berth --help`` takes, beside a Python that does nothing: ``python -m bench.cli [--runs 20]``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from bench.report import Row, show, spread
from testbed.server import ROOT

COMMANDS = (("--help",), ("run", "--help"), ("--version",))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cli", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    chosen = parser.parse_args(argv)
    nothing = [sys.executable, "-c", "pass"]
    rows = []
    for words in COMMANDS:
        command = [sys.executable, "-m", "berth", *words]
        seconds(command)  # compiles what is not compiled yet
        pairs = [(seconds(command), seconds(nothing)) for _ in range(chosen.runs)]
        ours, theirs = zip(*pairs, strict=True)
        rows.append(Row(f"berth {' '.join(words)}", spread(ours, "s"), f"python: {spread(theirs, 's')}", "< 0.3 s"))
    show("The command line", rows)


def seconds(command: Sequence[str]) -> float:
    """Wall time of a command that succeeds."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
    began = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
