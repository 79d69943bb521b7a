"""Several batch systems in one world: their own load, and our jobs, which may stand in line in more than one of them.

What a broker may not know is in here too: run times, how well an image suits a system, and the true places in line.
The first copy of a job that starts takes the others out of their lines. What happens is decided by the input alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from placement.easy import NEVER_S, Cluster, Load, Start

IMAGE_OVERHEAD_S = 20.0
"""What it takes to bring an image besides its bytes."""


@dataclass(frozen=True, slots=True)
class SimSystem:
    """A system with the load that others bring; ``bandwidth_mb_per_s`` is what staging gets there."""

    name: str
    cores: int
    speed: float = 1.0
    bandwidth_mb_per_s: float = 100.0
    arrivals: Sequence[Load] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SimJob:
    """A job of ours; ``asked_s`` and ``run_s`` are those of a system of speed 1."""

    id: str
    cores: int
    asked_s: float
    run_s: float
    submitted_s: float
    user: str = ""
    image: str = ""
    image_mib: float = 0.0
    inputs_mib: float = 0.0


@dataclass(frozen=True, slots=True)
class Truths:
    """What nobody is told. affinity: speed of an image on a system beside that system's own, 1.0 where not listed;
    rank_offset_s: how much later than its arrival a job of ours is ranked, by (job id, system)."""

    affinity: Mapping[tuple[str, str], float] = field(default_factory=dict)
    rank_offset_s: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where and when a job of ours ran."""

    system: str
    started_s: float
    ended_s: float


class World:
    """The systems, our jobs in them, and the clock."""

    def __init__(
        self,
        systems: Iterable[SimSystem],
        truths: Truths | None = None,
        *,
        overlap: bool = False,
        notice_s: float = 0.0,
    ) -> None:
        """overlap: a job is ranked by its submission, also while it is staged; else only once it is there.

        notice_s: how late a start is noticed. So long a job with copies elsewhere holds its cores before it may begin,
        and so long its copies may start in vain.
        """
        self.systems = {each.name: each for each in systems}
        self.clusters = {name: Cluster(each.cores, 0.0, each.arrivals) for name, each in self.systems.items()}
        self.truths, self.overlap, self.notice_s, self.now_s = truths or Truths(), overlap, notice_s, 0.0
        self.copies: dict[str, set[str]] = {}
        """Systems in which our waiting jobs stand in line or will, by job id."""
        self.outcomes: dict[str, Outcome] = {}
        """Our jobs that have started, by id; what is not over yet has its end in the future."""
        self.lost_core_s = 0.0
        """What our jobs held without running: by waiting to be noticed, and by second copies that started."""
        self._unnoticed: list[tuple[float, str, tuple[str, ...]]] = []
        self._images: dict[tuple[str, str], float] = {}

    # -- our jobs ----------------------------------------------------------------------------------------------------

    def staging_s(self, job: SimJob, name: str) -> float:
        """Time until the job could get in line there: image and inputs, side by side."""
        bandwidth = self.systems[name].bandwidth_mb_per_s
        here = self._images.get((job.image, name), NEVER_S) <= self.now_s
        image_s = 0.0 if here or not job.image else IMAGE_OVERHEAD_S + _transfer_s(job.image_mib, bandwidth)
        return max(image_s, _transfer_s(job.inputs_mib, bandwidth))

    def asked_s(self, job: SimJob, name: str) -> float:
        """The walltime to ask for there."""
        return job.asked_s / self.systems[name].speed

    def load(self, job: SimJob, name: str) -> Load:
        """The job as that system will see it if it is sent there now. It is ended there when its walltime is over."""
        ready_s = self.now_s + self.staging_s(job, name)
        speed = self.systems[name].speed * self.truths.affinity.get((job.image, name), 1.0)
        asked_s = self.asked_s(job, name)
        rank_s = (self.now_s if self.overlap else ready_s) + self.truths.rank_offset_s.get((job.id, name), 0.0)
        return Load(job.id, job.cores, asked_s, min(job.run_s / speed, asked_s), ready_s, rank_s, OURS)

    def submit(self, job: SimJob, names: Collection[str]) -> None:
        """Send a copy of the job to each of these systems; those that it has been sent to already change nothing."""
        if job.id in self.outcomes:
            return
        copies = self.copies.setdefault(job.id, set())
        for name in names:
            if name in copies:
                continue
            load = self.load(job, name)
            copies.add(name)
            key = (job.image, name)
            self._images[key] = min(self._images.get(key, NEVER_S), load.submitted_s)
            self.clusters[name].enter(load, load.submitted_s)
        self.advance(self.now_s)

    def withdraw(self, job_id: str, name: str) -> None:
        """Take a waiting copy back."""
        if job_id in self.outcomes or name not in self.copies.get(job_id, ()):
            return
        self.copies[job_id].remove(name)
        self._follow(name, self.clusters[name].withdraw(job_id))

    # -- time --------------------------------------------------------------------------------------------------------

    def advance(self, to_s: float) -> None:
        """Let everything happen up to and including an instant."""
        clusters = list(self.clusters.items())
        while True:
            at_s, index = min((cluster.next_s, n) for n, (_, cluster) in enumerate(clusters))
            if self._unnoticed and self._unnoticed[0][0] <= min(at_s, to_s):
                self._notice()
                continue
            if at_s > to_s:
                break
            self._to(at_s)
            name, cluster = clusters[index]
            self._follow(name, cluster.step())
        self._to(to_s)

    def finish(self) -> None:
        """Go on until no job of ours waits any more."""
        while self.copies:
            self.advance(min(cluster.next_s for cluster in self.clusters.values()))

    def twin(self, name: str) -> Cluster:
        """A copy of one system at this instant, true run times included: what a clairvoyant looks into."""
        return self.clusters[name].copy()

    def _to(self, at_s: float) -> None:
        self.now_s = at_s
        for cluster in self.clusters.values():
            cluster.now_s = at_s

    def _follow(self, name: str, starts: Sequence[Start]) -> None:
        """First come, first run: what the start of a job means for its other copies."""
        for start in starts:
            load = start.load
            copies = self.copies.pop(load.id, None) if load.user == OURS else None
            if copies is None:
                continue
            others = tuple(sorted(copies - {name}))
            held_s = self.notice_s if others else 0.0
            ended_s = start.at_s + min(load.run_s + held_s, load.asked_s)
            self.outcomes[load.id] = Outcome(name, start.at_s, ended_s)
            if held_s:
                self.lost_core_s += load.cores * held_s
                self.clusters[name].end(load.id, ended_s)
                heappush(self._unnoticed, (start.at_s + held_s, load.id, others))
            else:
                self._withdraw(load.id, others)

    def _notice(self) -> None:
        """Take back the copies of the job whose start is the next to be noticed; those that started are stopped."""
        at_s, job_id, others = heappop(self._unnoticed)
        self._to(at_s)
        for name in others:
            for load, started_s in self.clusters[name].running:
                if load.id == job_id:
                    self.lost_core_s += load.cores * (at_s - started_s)
                    self.clusters[name].end(job_id, at_s)
        self._withdraw(job_id, others)

    def _withdraw(self, job_id: str, names: Iterable[str]) -> None:
        for name in names:
            self._follow(name, self.clusters[name].withdraw(job_id))


OURS = "us"
"""The user as whom our jobs run everywhere."""


def clairvoyant_end_s(world: World, job: SimJob, name: str) -> float:
    """When the job would end if it were sent to that system now and nothing else of ours came after it."""
    twin, load = world.twin(name), world.load(job, name)
    twin.enter(load, load.submitted_s)
    while twin.next_s < NEVER_S:
        for start in twin.step():
            if start.load.id == job.id:
                return start.at_s + load.run_s
    return NEVER_S


def _transfer_s(size_mib: float, bandwidth_mb_per_s: float) -> float:
    return size_mib * 1.048576 / bandwidth_mb_per_s
