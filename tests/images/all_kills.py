"""All kill rounds of images, counted: ``python -m tests.images.all_kills [--rounds 125] [--first 5000]``.

So many rounds of each of the four: a pull, a conversion, the store on a system, and the relay between nodes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fakes.relays import Fleet, chain
from tests.images.bring_kills import STAGES
from tests.images.test_relay_faults import PATIENT, one_round

ROOT = Path(__file__).parents[2]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.images.all_kills", description=__doc__)
    parser.add_argument("--rounds", type=int, default=125)
    parser.add_argument(
        "--first", type=int, default=5000, help="number of the first round: it chooses all that is random"
    )
    chosen = parser.parse_args(argv)
    span = (str(chosen.first), str(chosen.rounds))
    kinds: dict[str, Callable[[Path], object]] = {
        **{stage: lambda folder, stage=stage: run("bring_kills", folder, stage, *span) for stage in STAGES},
        "store": lambda folder: run("kills", folder, *span),
        "relay": lambda folder: relays(folder, chosen.first, chosen.rounds),
    }
    for kind, campaign in kinds.items():
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"berth-kills-{kind}-") as name:
            campaign(Path(name))
        print(f"{kind} {chosen.rounds} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(kinds) * chosen.rounds} kills: after each all in sight was whole, and the work came to its end")


def run(module: str, folder: Path, *words: str) -> None:
    """A campaign in a process without threads; its failure is ours."""
    subprocess.run([sys.executable, "-m", f"tests.images.{module}", folder, *words], cwd=ROOT, check=True)


def relays(folder: Path, first: int, rounds: int) -> None:
    """Kill one node of a chain or tree in each round."""
    for seed in range(first, first + rounds):
        (place := folder / str(seed)).mkdir()
        fleet = Fleet(place, [chain(4), [None, 0, 0, 1]][seed % 2], **PATIENT)
        try:
            one_round(fleet, seed)
        finally:
            fleet.close()
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
