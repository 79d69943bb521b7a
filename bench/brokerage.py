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
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, quantiles
from types import TracebackType

from bench.arena import Arena, Broker, Message, Regime, Score, oracle, ratio
from bench.baselines import BASELINES
from bench.broker import Engine
from bench.logs import logs_in
from bench.traces import NOISES, OUR_JOBS, SETS, Scenario, Trace, generated, read_swf, scenario

REGIMES = (
    Regime("one submission"),
    Regime("with moves", 1.3, 1, moves=True),
    Regime("full", 2.0, 3, moves=True),
)

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
    rows = _rows(chosen.pipe, chosen.quick)
    results: dict[str, list[Result]] = {name: [] for name, _, _ in rows}
    for seed in chosen.seeds:
        for kind in kinds:
            for noise in noises:
                made = scenario(traces, kind, noise, seed, jobs=jobs)
                _play(made, rows, results)
    _print(results)


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.brokerage", description=__doc__)
    parser.add_argument("--traces", type=Path, help="folder of .swf or .swf.gz logs")
    parser.add_argument("--quick", action="store_true", help="one small set: to see that it works")
    parser.add_argument("--pipe", action="store_true", help="run the engine as a process, spoken to in JSON lines")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="each cuts other windows from the logs")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--noises", nargs="+", default=list(NOISES), choices=list(NOISES))
    parser.add_argument("--jobs", type=int, help=f"our jobs in a scenario, {OUR_JOBS} by default")
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
        return Piped() if pipe else nullcontext(Engine(draws=2, tick_s=3600) if quick else Engine())

    others: list[Row] = [(name, FREE, lambda kind=kind: nullcontext(kind())) for name, kind in BASELINES.items()]
    return [*others, *((f"berth, {regime.name}", regime, ours) for regime in REGIMES)]


def _play(made: Scenario, rows: Sequence[Row], results: dict[str, list[Result]]) -> None:
    clairvoyant = oracle(made)
    least_loaded: Score | None = None
    for name, regime, broker in rows:
        with broker() as asked:
            score = Arena(made, regime).play(asked)
        least_loaded = least_loaded or score  # the first row
        results[name].append(Result(made, score, clairvoyant, least_loaded))
        print(f"{made.name:<20} {name:<22} {results[name][-1].ratio:6.3f}", file=sys.stderr, flush=True)


def _print(results: dict[str, list[Result]]) -> None:
    print("Time to solution beside a greedy clairvoyant (ratio), means over scenarios")
    head = (
        "broker",
        "mean h",
        "p50 h",
        "p95 h",
        "ratio",
        "worst",
        "slowdown",
        "subs",
        "others' wait",
        "decision p99 ms",
    )
    print(("{:<24}" + "{:>9}" * 7 + "{:>14}{:>17}").format(*head))
    for name, played in results.items():
        times_h = sorted(time_s / 3600 for result in played for time_s in result.score.times_s)
        decisions_ms = sorted(1000 * each for result in played for each in result.score.decision_s)
        tail_h = quantiles(times_h, n=20)[18]
        print(
            f"{name:<24}{fmean(r.score.mean_s for r in played) / 3600:9.2f}{times_h[len(times_h) // 2]:9.2f}"
            f"{tail_h:9.2f}{fmean(r.ratio for r in played):9.3f}{max(r.ratio for r in played):9.3f}"
            f"{fmean(r.slowdown_ratio for r in played):9.3f}{fmean(r.score.submissions_per_job for r in played):9.2f}"
            f"{fmean(r.others for r in played):14.1%}{decisions_ms[int(len(decisions_ms) * 0.99)]:17.1f}"
        )
    for name, played in results.items():
        each = "  ".join(f"{result.scenario.name} {result.ratio:.2f}" for result in played)
        print(f"\n{name}: {each}")


if __name__ == "__main__":
    main()
