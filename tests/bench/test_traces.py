"""Job logs and the scenarios that are cut from them."""

from __future__ import annotations

import gzip

import pytest

from bench.traces import NOISES, SETS, WARM_UP_S, generated, read_swf, scenario

LOG = """; MaxProcs: 8
1 30 5 100 4 -1 -1 4 600 -1 1 7 1 -1 1 -1 -1 -1
2 10 5 900 4 -1 -1 -1 600 -1 1 8 1 -1 1 -1 -1 -1
3 20 5 0 4 -1 -1 4 600 -1 0 7 1 -1 1 -1 -1 -1
4 21 5 10 -1 -1 -1 -1 600 -1 1 7 1 -1 1 -1 -1 -1
5 22 5 10 4 -1 -1 4 -1 -1 1 7 1 -1 1 -1 -1 -1
"""


@pytest.mark.parametrize("suffix", [".swf", ".swf.gz"])
def test_records_that_say_too_little_are_dropped_and_runs_end_with_their_request(tmp_path, suffix):
    path = tmp_path / f"a-log{suffix}"
    path.write_bytes(gzip.compress(LOG.encode()) if suffix.endswith("gz") else LOG.encode())
    trace = read_swf(path)
    assert (trace.name, trace.cores) == ("a-log", 4)
    assert [(r.submitted_s, r.cores, r.run_s, r.user) for r in trace.records] == [(10, 4, 600, "8"), (30, 4, 100, "7")]


@pytest.fixture(scope="module")
def traces():
    return [generated(seed, days=90) for seed in (1, 2)]


@pytest.mark.parametrize("kind", SETS)
def test_a_scenario_offers_the_load_it_says(traces, kind):
    made = scenario(traces, kind, "clean", seed=3, jobs=40)
    for site, system in zip(SETS[kind], made.systems, strict=True):
        span_s = system.arrivals[-1].submitted_s
        work = sum(load.cores * load.run_s for load in system.arrivals)
        assert work / (system.cores * span_s) == pytest.approx(site.load, rel=0.05)
        assert all(load.cores <= system.cores and load.run_s <= load.asked_s for load in system.arrivals)
    assert len(made.jobs) == 40
    assert made.jobs[0].submitted_s == WARM_UP_S


def test_noise_changes_ranks_and_nothing_that_is_shown(traces):
    clean, blind = (scenario(traces, "mid", noise, seed=3, jobs=40) for noise in ("clean", "blind"))
    assert clean.jobs == blind.jobs
    assert not clean.truths.affinity
    assert len(blind.truths.rank_offset_s) == 40 * len(blind.systems)
    for one, other in zip(clean.systems, blind.systems, strict=True):
        assert all(load.rank_s == load.submitted_s for load in one.arrivals)
        assert any(load.rank_s != load.submitted_s for load in other.arrivals)
        shown = [[(a.id, a.cores, a.asked_s, a.submitted_s, a.user) for a in s.arrivals] for s in (one, other)]
        assert shown[0] == shown[1]


def test_the_same_seed_makes_the_same_scenario_and_another_seed_another(traces):
    assert scenario(traces, "twins", "noisy", 1, jobs=20) == scenario(traces, "twins", "noisy", 1, jobs=20)
    assert scenario(traces, "twins", "noisy", 1, jobs=20) != scenario(traces, "twins", "noisy", 2, jobs=20)


def test_the_order_is_hidden_only_where_it_is_said_so():
    assert [name for name, noise in NOISES.items() if noise.in_submit_order] == ["blind"]
