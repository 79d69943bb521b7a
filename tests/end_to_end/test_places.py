"""Jobs that leave the choice to Berth go where ``why`` says, and there they really start first.

Every job is sent through tapipy or ``berth run``; at the same instant equal jobs that name the other places are sent
there. The program must begin in the chosen place before it begins in any other, by 30 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from testbed import host_image
from testbed.cluster import Cluster
from testbed.host import TestbedError, require_root
from testbed.pytest_plugin import cannot_run, shared_cluster
from testbed.server import running
from tests.end_to_end import places
from tests.end_to_end.places import HERE, LOCAL, SITUATIONS, Situation
from tests.end_to_end.wire import Wire

pytestmark = [pytest.mark.testbed, pytest.mark.slow]

MARGIN_S = 30
LONGEST_S = 300
"""The latest start: the longest job in the way says three minutes."""


LOOKED_S = 12
"""While no job waits Berth looks at systems every ten seconds here; after these it has seen all that was made."""


@dataclass(frozen=True)
class Stage:
    """Where it plays: clusters by system id, Berth's API, the ways to send jobs, and a directory that all may read."""

    clusters: Mapping[str, Cluster]
    wire: Wire
    senders: Sequence[Callable[[Situation], str]]
    home: Path

    @property
    def work(self) -> Path:
        """The root of this machine as a system."""
        return self.home / "work"

    def begun(self) -> Mapping[str, int]:
        return places.begun(self.clusters, self.work / "berth")


@dataclass(frozen=True)
class Trial:
    """A job that left the choice to Berth, where it was sent, and equal jobs by the other places that they name."""

    situation: Situation
    uuid: str
    chosen: str
    others: Mapping[str, str]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    try:
        require_root()
    except TestbedError as error:
        cannot_run(str(error))
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="berth-places-", dir="/var/tmp")))
        home.chmod(0o755)  # jobs on this machine are nobody's
        clusters = {
            name: stack.enter_context(shared_cluster(f"{home} {name}", nodes=places.NODES, gpus=gpus))
            for name, gpus in (("alder", 0), ("birch", 1))
        }
        for name, cluster in clusters.items():
            places.add_partitions(cluster)
            places.push_large_image(cluster, home / f"large-{name}")
        hurry = {"watch_min_s": "1", "watch_max_s": "3", "place_interval_s": "1", "snapshot_interval_s": "1"}
        server = stack.enter_context(running(home / "berth", images_dir=str(home / "images"), **hurry))
        wire = Wire(server.url)
        for name, cluster in clusters.items():
            wire.register(cluster.info(), name)
        tapipy = stack.enter_context(places.tapipy_process(server))
        command = places.BerthCommand(server, home)
        yield Stage(clusters, wire, (tapipy, command.send), home)


def test_the_chosen_place_starts_first_in_nine_of_ten_situations(stage: Stage):
    warm_up(stage)
    for name, cluster in stage.clusters.items():
        cluster.sh("login", "".join(each.scenes.get(name, "") for each in SITUATIONS))
    time.sleep(LOOKED_S)
    trials = [tried(stage, each, number) for number, each in enumerate(SITUATIONS)]
    verdicts = judged(stage, trials)
    lost = {
        queue for trial, queue in zip(trials, (each.queue for each in SITUATIONS), strict=True) if verdicts[trial.uuid]
    }
    said = "\n".join(f"{trial.situation.name}: {trial.chosen}; {verdicts[trial.uuid] or 'first'}" for trial in trials)
    print(said)
    assert len({each.queue for each in SITUATIONS}) == 10
    assert len(lost) <= 1, said


def test_this_machine_is_chosen_where_it_alone_is_idle(stage: Stage):
    image = host_image.write(stage.home / "image")
    for name, cluster in stage.clusters.items():
        places.share_folder(cluster, image)
        cluster.sh("login", LOCAL.scenes[name])
    time.sleep(LOOKED_S)
    stage.wire.post("/v3/systems", host_image.local_system(HERE, stage.work))
    situation = Situation(**{**vars(LOCAL), "image": f"oci:{image}"})
    trial = tried(stage, situation, 0)
    assert trial.chosen == HERE
    verdicts = judged(stage, [trial])
    assert not verdicts[trial.uuid], verdicts


# -- one trial ---------------------------------------------------------------------------------------------------------


def warm_up(stage: Stage) -> None:
    """Both clusters have the small image, one of them the large one; the other's link is slow from now on."""
    image = next(each for each in SITUATIONS if each.queue == "image")
    small = Situation("warm", "image")
    uuids = [places.named(stage.wire, small, name) for name in stage.clusters]
    uuids.append(places.named(stage.wire, image, "birch"))
    for uuid in uuids:
        assert stage.wire.finish(uuid, timeout_s=180)["status"] == "FINISHED"
    stage.clusters["alder"].rate("n4", places.SLOW_LINK)


def tried(stage: Stage, situation: Situation, number: int) -> Trial:
    """Send the job, and equal ones to every other place than the one that a plan names."""
    plan = stage.wire.post("/v3/placement/plan", places.request_of(situation, dynamicExecSystem=True))
    expected = plan["winner"]["systemId"]
    uuid = stage.senders[number % len(stage.senders)](situation)
    systems = [*stage.clusters, *([HERE] if situation.queue == LOCAL.queue else [])]
    others = {name: places.named(stage.wire, situation, name) for name in systems if name != expected}
    return Trial(situation, uuid, expected, others)


def judged(stage: Stage, trials: Sequence[Trial]) -> Mapping[str, str]:
    """By the uuid of each trial what is wrong with it; nothing where the chosen place was first by the margin."""
    until = time.monotonic() + LONGEST_S
    while not {each.uuid for each in trials} <= (started := stage.begun()).keys() and time.monotonic() < until:
        time.sleep(2)
    latest = max((started.get(each.uuid, 0) for each in trials), default=0)
    time.sleep(max(0.0, latest + MARGIN_S + 1 - time.time()))
    started = stage.begun()
    return {each.uuid: verdict(stage, each, started) for each in trials}


def verdict(stage: Stage, trial: Trial, started: Mapping[str, int]) -> str:
    why = stage.wire.get(f"/v3/jobs/{trial.uuid}/why")
    job = stage.wire.get(f"/v3/jobs/{trial.uuid}")
    if not why["winner"] or not job["execSystemId"] == why["winner"]["systemId"] == trial.chosen:
        return f"planned for {trial.chosen}, ran on {job['execSystemId']}: {why['sentence']}"
    if trial.uuid not in started:
        return f"never began: {job['status']} {job['lastMessage']}; {why['sentence']}"
    ahead = {name: started[uuid] - started[trial.uuid] for name, uuid in trial.others.items() if uuid in started}
    early = {name: seconds for name, seconds in ahead.items() if seconds < MARGIN_S}
    return "; ".join(f"{name} began {seconds} s after it" for name, seconds in early.items()) + (
        f": {why['sentence']}" if early else ""
    )
