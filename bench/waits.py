"""How well waits are predicted: ``python -m bench.waits [--traces FOLDER] [--waits FOLDER] [--quick]``.

Recorded queues are told again event by event (docs/waits.md says how the figures are taken). Without folders a short
generated trace shows that it works, not what it is worth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path

import numpy as np

from bench.waits_replay import DAY_S, Said, days, seen, told, windows
from bench.waits_traces import Trace, generated, swf_traces, wait_records
from placement.queue_state import Floats
from placement.trees import library
from placement.waits import WaitModel

SHARES = (0.6, 0.75, 0.9)
"""Where in a trace the windows begin that count; all that was tuned was tuned before them."""

WINDOW_S, LEAD_S = 20 * DAY_S, 10 * DAY_S
"""How long a window is, and how much earlier the model begins to be fitted."""

REFIT_S = 3 * DAY_S
"""How often it is, in traces of years; recorded waits are of one month, and are learnt from every day."""

FIRST_DAY = 7
"""Recorded waits count from the eighth day of a month."""

COLUMNS = (
    *("trace", "jobs", "mean wait", "method"),
    *("MAE", "MAE/mean", "median", "<10 min", "log err", "p50 cov", "p90 cov"),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.waits", description=__doc__)
    parser.add_argument("--traces", type=Path, help="folder of job traces in the Standard Workload Format")
    parser.add_argument("--waits", type=Path, help="folder of recorded waits, one month of one queue a file")
    parser.add_argument("--quick", action="store_true", help="the generated trace only")
    chosen = parser.parse_args(argv)
    if library() is None:
        print("LightGBM is not installed: neighbours and recent waits only")
    folders = not chosen.quick and (chosen.traces or chosen.waits)
    print(_line(COLUMNS, "bound", "QBETS-like"), flush=True)
    said: list[Said] = []
    if not folders:
        said += shown(of_traces([generated()]))
    if folders and chosen.waits:
        shown(of_months(wait_records(chosen.waits)))
    if folders and chosen.traces:
        said += shown(of_traces(swf_traces(chosen.traces)))
    summarise(said)


def of_traces(traces: Iterator[Trace] | Sequence[Trace]) -> Iterator[tuple[str, Said, float]]:
    """Each with a model of its own, that knows nothing at first."""
    for trace in traces:
        began = time.perf_counter()
        length_s = min(WINDOW_S, 0.1 * trace.span_s)
        counts = windows(trace, SHARES, length_s)
        refits = windows(trace, SHARES, length_s, lead_s=min(LEAD_S, 0.05 * trace.span_s))
        yield (
            trace.name,
            told(WaitModel(refit_s=REFIT_S), trace, seen(trace, counts), counts, refits),
            time.perf_counter() - began,
        )


def of_months(months: Iterator[Trace]) -> Iterator[tuple[str, Said, float]]:
    """One model for all, as they are months of one queue."""
    model = WaitModel()
    for month in months:
        began = time.perf_counter()
        counts = days((month.begins_at_s + FIRST_DAY * DAY_S, np.inf))
        yield month.name, told(model, month, seen(month, counts), counts, lambda _: True), time.perf_counter() - began


def shown(results: Iterator[tuple[str, Said, float]]) -> list[Said]:
    """Print each as soon as it is there."""
    kept = []
    for name, said, took_s in results:
        for method, p50_s in said.p50_s.items():
            print(_row(name, said, method, p50_s), flush=True)
        print(f"  ({took_s:.0f} s)", flush=True)
        kept.append(said)
    return kept


def _row(name: str, said: Said, method: str, p50_s: Floats) -> str:
    known = ~np.isnan(p50_s)
    waits_s, p50_s = said.waits_s[known], p50_s[known]
    error_s = np.abs(waits_s - p50_s)
    bounds_s = said.p90_s.get(method)
    cells = (
        name,
        f"{len(waits_s)}",
        f"{waits_s.mean() / 3600:.2f} h",
        method,
        f"{error_s.mean() / 60:.1f} min",
        f"{error_s.mean() / waits_s.mean():.3f}",
        f"{np.median(error_s) / 60:.1f} min",
        f"{(error_s <= 600).mean():.2f}",
        f"{log_error(waits_s, p50_s):.2f}",
        f"{(waits_s <= p50_s).mean():.2f}",
    )
    if bounds_s is None:
        return _line((*cells, ""), "", "")
    coverage, bound_s, _ = bound(said, method)
    share = f"{bound_s / bound(said, 'hist-median')[1]:.2f}"
    return _line((*cells, f"{coverage:.3f}"), f"{bound_s / 3600:.1f} h", share)


def log_error(waits_s: Floats, p50_s: Floats) -> float:
    """Mean distance of the logarithms, a minute added to both."""
    return float(np.abs(np.log((waits_s + 60) / (p50_s + 60))).mean())


def bound(said: Said, method: str) -> tuple[float, float, int]:
    """Coverage and mean in seconds of a method's 0.90 bounds, over the jobs that all methods bound; their number."""
    known = reduce(np.logical_and, (~np.isnan(values) for values in said.p90_s.values()))
    bounds_s = said.p90_s[method][known]
    return float((said.waits_s[known] <= bounds_s).mean()), float(bounds_s.mean()), int(known.sum())


def summarise(said: Sequence[Said]) -> None:
    """The means over traces that the goals are about."""
    if not said:
        return
    ratio = np.mean([np.abs(each.waits_s - each.p50_s["berth"]).mean() / each.waits_s.mean() for each in said])
    width = np.mean([bound(each, "berth")[1] / bound(each, "hist-median")[1] for each in said])
    covered = [bound(each, "berth")[0] for each in said]
    print(f"\nMAE / mean wait, mean over {len(said)} traces: {ratio:.3f} (goal 0.74, aim 0.65)")
    print(f"0.90 bound: coverage {min(covered):.3f} to {max(covered):.3f} (goal 0.88 to 0.93, aim 0.89 to 0.92)")
    print(f"its mean beside the QBETS-like one: {width:.2f} (goal 0.38, aim 0.28)")


def _line(cells: Sequence[str], *more: str) -> str:
    widths = (26, 6, 9, 11, 10, 8, 10, 7, 7, 7, 7, 7, 10)
    return "  ".join(cell.ljust(width) for cell, width in zip((*cells, *more), widths, strict=True)).rstrip()


if __name__ == "__main__":
    main()
