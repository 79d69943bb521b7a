"""Placement played against traces: ``python -m bench.brokerage [--traces FOLDER] [--quick]``.

Every broker gets the same scenarios and is compared with a greedy clairvoyant. Without a folder of SWF logs a short
generated one is used, which shows that it works, not what it is worth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, quantiles
from types import TracebackType

from bench.arena import Arena, Broker, Message, Regime, Score, oracle, ratio
from bench.baselines import BASELINES, LeastLoaded
from bench.broker import Engine
from bench.logs import logs_in
from bench.traces import NOISES, OUR_JOBS, SETS, Scenario, Trace, generated, read_swf, scenario

REGIMES = (
    Regime("one submission"),
    Regime("with moves", 1.3, 1, moves=True),
    Regime("full", 2.0, 3, moves=True),
    Regime("full, overlap", 2.0, 3, moves=True, overlap=True),
    Regime("full, 15 s late", 2.0, 3, moves=True, notice_s=15.0),
)

COLD, COLD_JOBS = Regime("cold start", history="own"), 100
"""Only our own history is told, beside the same jobs with everybody's."""

FREE = Regime("free", 12.0, 12)
"""For the baselines, which keep to no budget; what they spent is in the table."""


class Piped(AbstractContextManager["Piped"]):
    """The engine in a process of its own, spoken to in JSON lines."""

    def __enter__(self) -> Piped:
        command = [sys.executable, "-m", "bench.broker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __call__(self, message: Message) -> Message:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer: Message = json.loads(self._process.stdout.readline())
        return answer

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class Result:
    """One broker in one scenario, beside the clairvoyant and the least-loaded rule."""

    scenario: Scenario
    score: Score
    clairvoyant: Score
    least_loaded: Score

    @property
    def ratio(self) -> float:
        return ratio(self.score, self.clairvoyant)

    @property
    def slowdown_ratio(self) -> float:
        return fmean(self.score.slowdowns) / fmean(self.clairvoyant.slowdowns)

    @property
    def others(self) -> float:
        """Change of other people's mean wait against the least-loaded rule."""
        return self.score.others_wait_s / max(1.0, self.least_loaded.others_wait_s) - 1


def main(argv: Sequence[str] | None = None) -> None:
    chosen = _parsed(argv)
    traces = _traces(chosen.traces, chosen.quick)
    jobs = chosen.jobs or (15 if chosen.quick else OUR_JOBS)
    kinds, noises = (("twins",), ("noisy",)) if chosen.quick else (chosen.sets, chosen.noises)
    rows = [row for row in _rows(chosen.pipe, chosen.quick) if chosen.rows is None or row[0] in chosen.rows]
    results: dict[str, list[Result]] = {name: [] for name, _, _ in rows}
    cold: list[tuple[float, float]] = []
    for seed in chosen.seeds:
        for kind in kinds:
            for noise in noises:
                made = scenario(traces, kind, noise, seed, jobs=jobs)
                _play(made, rows, results)
                if chosen.rows is None or COLD.name in chosen.rows:
                    cold.append(_begun(made, chosen.quick))
    _print(results)
    _print_by_part(results)
    if cold:
        alone, told = (fmean(side) for side in zip(*cold, strict=True))
        print(f"\nfirst {COLD_JOBS} jobs with only our own history beside everybody's: {alone / told:.3f}")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.brokerage", description=__doc__)
    parser.add_argument("--traces", type=Path, help="folder of .swf or .swf.gz logs")
    parser.add_argument("--quick", action="store_true", help="one small set: to see that it works")
    parser.add_argument("--pipe", action="store_true", help="run the engine as a process, spoken to in JSON lines")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="each cuts other windows from the logs")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--noises", nargs="+", default=list(NOISES), choices=list(NOISES))
    parser.add_argument("--jobs", type=int, help=f"our jobs in a scenario, {OUR_JOBS} by default")
    parser.add_argument("--rows", nargs="+", help="only these brokers, and 'cold start'; all by default")
    return parser.parse_args(argv)


def _traces(folder: Path | None, quick: bool) -> Sequence[Trace]:
    if folder is None:
        return [generated(seed, days=60 if quick else 200) for seed in (1, 2, 3)]
    found = [read_swf(path) for path in logs_in(folder)]
    usable = [trace for trace in found if trace.records]
    if not usable:
        sys.exit(f"no usable .swf or .swf.gz log in {folder}")
    return usable


Row = tuple[str, Regime, Callable[[], AbstractContextManager[Broker]]]


def _rows(pipe: bool, quick: bool) -> Sequence[Row]:
    def ours() -> AbstractContextManager[Broker]:
        return Piped() if pipe else nullcontext(_engine(quick))

    others: list[Row] = [(name, FREE, lambda kind=kind: nullcontext(kind())) for name, kind in BASELINES.items()]
    return [*others, *((f"berth, {regime.name}", regime, ours) for regime in REGIMES)]


def _engine(quick: bool) -> Engine:
    return Engine(draws=2, tick_s=3600) if quick else Engine()


def _play(made: Scenario, rows: Sequence[Row], results: dict[str, list[Result]]) -> None:
    clairvoyant = {overlap: oracle(made, overlap=overlap) for overlap in {row[1].overlap for row in rows}}
    least_loaded = Arena(made, FREE).play(LeastLoaded())
    for name, regime, broker in rows:
        with broker() as asked:
            score = Arena(made, regime).play(asked)
        results[name].append(Result(made, score, clairvoyant[regime.overlap], least_loaded))
        print(f"{made.name:<20} {name:<22} {results[name][-1].ratio:6.3f}", file=sys.stderr, flush=True)


def _begun(made: Scenario, quick: bool) -> tuple[float, float]:
    """Mean time to solution of the first jobs: with our own history, with everybody's."""
    first = replace(made, jobs=made.jobs[:COLD_JOBS])
    alone, told = (Arena(first, regime).play(_engine(quick)).mean_s for regime in (COLD, REGIMES[0]))
    return alone, told


def _print(results: dict[str, list[Result]]) -> None:
    print("Time to solution beside a greedy clairvoyant (ratio), means over scenarios")
    head = ("mean h", "p50 h", "p95 h", "ratio", "worst", "slowdown", "ratio", "subs", "others", "lost s", "p99 ms")
    print(f"{'broker':<24}" + "".join(f"{each:>9}" for each in head))
    for name, played in results.items():
        times_h = [time_s / 3600 for result in played for time_s in result.score.times_s]
        decisions_ms = sorted(1000 * each for result in played for each in result.score.decision_s)
        figures = (
            f"{fmean(r.score.mean_s for r in played) / 3600:.2f}",
            f"{median(times_h):.2f}",
            f"{quantiles(times_h, n=20)[18]:.2f}",
            f"{fmean(r.ratio for r in played):.3f}",
            f"{max(r.ratio for r in played):.3f}",
            f"{fmean(fmean(r.score.slowdowns) for r in played):.2f}",
            f"{fmean(r.slowdown_ratio for r in played):.3f}",
            f"{fmean(r.score.submissions_per_job for r in played):.2f}",
            f"{fmean(r.others for r in played):+.1%}",
            f"{fmean(r.score.lost_core_s / len(r.score.times_s) for r in played):.1f}",
            f"{decisions_ms[int(len(decisions_ms) * 0.99)]:.1f}",
        )
        print(f"{name:<24}" + "".join(f"{each:>9}" for each in figures))
    print("slowdown: bounded; others: their mean wait beside the least-loaded rule; lost: core-s a job, held idle")


def _print_by_part(results: dict[str, list[Result]]) -> None:
    """The ratio again, by set, noise and seed: a gain that one of them alone shows is none."""
    names = [result.scenario.name.split("-") for result in next(iter(results.values()), [])]
    parts = list(dict.fromkeys(each for parts in zip(*names, strict=True) for each in parts))
    print(f"\n{'ratio by part':<24}" + "".join(f"{part:>9}" for part in parts))
    for name, played in results.items():
        means = (fmean(r.ratio for r in played if part in r.scenario.name.split("-")) for part in parts)
        print(f"{name:<24}" + "".join(f"{mean:9.3f}" for mean in means))


if __name__ == "__main__":
    main()
