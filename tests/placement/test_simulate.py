"""Several systems and our jobs in them: staging, copies, moves, and what a clairvoyant may count on."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from placement.easy import Load
from placement.simulate import OURS, SimJob, SimSystem, Truths, World, clairvoyant_end_s


def busy(until_s, cores=4, name="busy"):
    return Load(name, cores, until_s, until_s, 0.0, 0.0)


def job(name="j", cores=4, asked_s=1000.0, run_s=100.0, at_s=0.0, **changes):
    return SimJob(id=name, cores=cores, asked_s=asked_s, run_s=run_s, submitted_s=at_s, **changes)


def world(*systems, truths=None, overlap=False, notice_s=0.0):
    made = World(systems, truths, overlap=overlap, notice_s=notice_s)
    made.advance(0.0)
    return made


def test_the_first_copy_that_starts_withdraws_the_others():
    w = world(SimSystem("a", 4, arrivals=[busy(500)]), SimSystem("b", 4, arrivals=[busy(300)]))
    w.submit(job(), ["a", "b"])
    w.finish()
    assert (w.outcomes["j"].system, w.outcomes["j"].started_s, w.outcomes["j"].ended_s) == ("b", 300, 400)
    assert w.clusters["a"].waiting == []
    assert not w.copies


def test_a_job_that_would_start_everywhere_at_once_runs_once():
    w = world(SimSystem("a", 4), SimSystem("b", 4))
    w.submit(job(), ["a", "b"])
    assert w.outcomes["j"].system == "a"
    assert w.clusters["b"].free == 4


def test_a_start_that_is_noticed_late_holds_its_cores_and_lets_a_second_copy_start_in_vain():
    w = world(SimSystem("a", 4, arrivals=[busy(300)]), SimSystem("b", 4, arrivals=[busy(310)]), notice_s=15.0)
    w.submit(job(), ["a", "b"])
    w.finish()
    assert w.outcomes["j"].ended_s == 300 + 15 + 100
    w.advance(500)
    assert [(end.load.id, end.at_s) for end in w.clusters["a"].ended] == [("busy", 300), ("j", 415)]
    assert [(end.load.id, end.at_s) for end in w.clusters["b"].ended] == [("busy", 310), ("j", 315)]
    assert w.lost_core_s == 4 * 15 + 4 * 5


def test_a_late_notice_takes_back_the_copies_that_still_wait_and_costs_a_single_copy_nothing():
    w = world(SimSystem("a", 4), SimSystem("b", 4, arrivals=[busy(900)]), notice_s=15.0)
    w.submit(job("one"), ["a"])
    w.submit(job("two"), ["a", "b"])
    w.advance(114)
    assert (w.outcomes["one"].ended_s, w.outcomes["two"].ended_s) == (100, 215)
    assert len(w.clusters["b"].waiting) == 1
    w.advance(115)
    assert w.clusters["b"].waiting == []
    assert w.lost_core_s == 4 * 15


def test_a_move_leaves_the_old_line():
    w = world(SimSystem("a", 4, arrivals=[busy(500)]), SimSystem("b", 4, arrivals=[busy(900)]))
    w.submit(job(), ["b"])
    w.submit(job(), ["a"])
    w.withdraw("j", "b")
    w.finish()
    assert w.outcomes["j"].system == "a"


def test_a_running_job_is_not_withdrawn():
    w = world(SimSystem("a", 4))
    w.submit(job(), ["a"])
    w.withdraw("j", "a")
    w.advance(1000)
    assert w.outcomes["j"].ended_s == 100
    assert [end.load.id for end in w.clusters["a"].ended] == ["j"]


def test_speed_and_affinity_divide_the_run_and_the_walltime_ends_it():
    truths = Truths(affinity={("slow", "a"): 0.5, ("hopeless", "a"): 0.01})
    w = world(SimSystem("a", 8, speed=2.0), truths=truths)
    for image in ("", "slow", "hopeless"):
        w.submit(job(image or "plain", cores=1, image=image), ["a"])
    w.finish()
    ran = {name: o.ended_s - o.started_s for name, o in w.outcomes.items()}
    assert ran == {"plain": 50, "slow": 100, "hopeless": 500}


def test_an_image_is_staged_once_and_inputs_always():
    w = world(SimSystem("a", 4, bandwidth_mb_per_s=1.048576))
    with_image = job(image="i", image_mib=100, inputs_mib=40)
    assert w.staging_s(with_image, "a") == 120
    w.submit(with_image, ["a"])
    assert w.staging_s(with_image, "a") == 120
    w.advance(120)
    assert w.outcomes["j"].started_s == 120
    assert w.staging_s(with_image, "a") == 40


def test_with_overlap_the_rank_counts_from_submission():
    later = Load("later", 4, 100, 100, 50.0, 50.0)
    for overlap, started_s in ((False, 600), (True, 500)):
        w = world(SimSystem("a", 4, bandwidth_mb_per_s=1.048576, arrivals=[busy(500), later]), overlap=overlap)
        w.submit(job(inputs_mib=200), ["a"])
        w.finish()
        assert w.outcomes["j"].started_s == started_s


def test_a_hidden_rank_decides_who_goes_first():
    truths = Truths(rank_offset_s={("first", "a"): 100.0})
    w = world(SimSystem("a", 4, arrivals=[busy(500)]), truths=truths)
    w.submit(job("first"), ["a"])
    w.advance(10)
    w.submit(job("second", at_s=10), ["a"])
    w.finish()
    assert w.outcomes["second"].started_s < w.outcomes["first"].started_s


def test_a_clairvoyant_sees_what_then_happens():
    w = world(SimSystem("a", 4, arrivals=[busy(500), Load("next", 2, 100, 10, 5.0, 5.0)]))
    seen = clairvoyant_end_s(w, job(), "a")
    w.submit(job(), ["a"])
    w.finish()
    assert w.outcomes["j"].ended_s == seen == 600


JOBS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 60), st.integers(0, 100), st.sets(st.sampled_from("abc"), min_size=1)),
    min_size=1,
    max_size=12,
)


@given(JOBS)
@settings(max_examples=60)
def test_every_job_of_ours_runs_exactly_once(shapes):
    others = [Load(f"o{n}", 3, 40, 25, 20.0 * n, 20.0 * n) for n in range(6)]
    w = world(*(SimSystem(name, 4, arrivals=others) for name in "abc"))
    for n, (cores, run_s, at_s, names) in enumerate(sorted(shapes, key=lambda shape: shape[2])):
        w.advance(at_s)
        w.submit(job(f"j{n}", cores, 60.0, run_s, at_s), sorted(names))
    w.finish()
    w.advance(1e6)
    ours = [end.load.id for cluster in w.clusters.values() for end in cluster.ended if end.load.user == OURS]
    assert sorted(ours) == sorted(w.outcomes) == sorted(f"j{n}" for n in range(len(shapes)))
    assert all(cluster.free == 4 for cluster in w.clusters.values())
