"""Lead a campaign on pods by hand: ``python -m tests.crash.lead_pods slurm --lives 33 [--seed 1]`` (root).

It brings the place up, prints what was done and seen and every fault, and ends with 1 where there was one. 33 lives
take about 20 minutes at each place.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from testbed.k8s.pytest_plugin import shared_real_node
from testbed.pytest_plugin import shared_cluster
from tests.crash.pod_campaign import SETTINGS, Campaign
from tests.crash.pod_judgement import Verdict, faults
from tests.crash.pod_places import Place, a_kubernetes, an_allocation, this_machine
from tests.end_to_end.pod_stage import pod_server


@contextmanager
def on_slurm(home: Path) -> Iterator[Place]:
    """A cluster of its own."""
    with shared_cluster(str(home), nodes=4) as cluster, an_allocation(cluster, home, home.name) as place:
        yield place


@contextmanager
def on_kubernetes(home: Path) -> Iterator[Place]:
    """A control plane of its own, with one real node."""
    with shared_real_node(str(home)) as plane, a_kubernetes(plane, home, home.name) as place:
        yield place


@contextmanager
def here(home: Path) -> Iterator[Place]:
    """This machine."""
    with this_machine(home, home.name) as place:
        yield place


PLACES: Mapping[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "here": here,
    "slurm": on_slurm,
    "kubernetes": on_kubernetes,
}


def led(place: Place, home: Path, mark: str, **how: Any) -> Verdict:
    """The verdict of a campaign at a place, with a server of its own; shown, too. how: as ``Campaign`` takes it."""
    print(f"seed {how['seed']}")
    with pod_server(home, **{**SETTINGS, **place.settings}) as stage:
        place.register(stage.wire)
        verdict = Campaign(stage, place, mark, **how).run()
    print(verdict)
    return verdict


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.lead_pods", description=__doc__)
    parser.add_argument("place", choices=PLACES)
    parser.add_argument("--lives", type=int, default=33)
    parser.add_argument("--at-once", type=int, default=5)
    parser.add_argument("--patience-s", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    chosen = parser.parse_args(argv)
    how = {"lives": chosen.lives, "at_once": chosen.at_once, "patience_s": chosen.patience_s, "seed": chosen.seed}
    with (
        TemporaryDirectory(prefix="berth-pods-", dir="/var/tmp") as folder,
        PLACES[chosen.place](Path(folder)) as place,
    ):
        found = faults(led(place, Path(folder), Path(folder).name, **how))
    print("\n".join(found))
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
