"""What our own runs tell of images: where they lie, and what fetching them took."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from placement.engine import place
from placement.first_use import GUESS, PRESENT, FirstUses
from scheduler.model.runs import Runtime
from tests.placement.worlds import NOW, ask, cluster, finished, problem, snapshot, view


def runs(image: str, *took_s: float, system_id: str = "alder", days_ago: float = 1, **changes):
    begun = NOW - timedelta(days=days_ago)
    return tuple(
        finished(image=image, run_s=run_s, system_id=system_id, ended_at=begun + timedelta(hours=n), **changes)
        for n, run_s in enumerate(took_s)
    )


def term(history, image="new", system_id="alder"):
    return FirstUses(history).term(system_id, image, NOW)


def test_an_image_that_was_used_there_is_there():
    assert term(runs("mine", 60), "mine") == PRESENT
    assert term(runs("mine", 60), "mine", "birch") == GUESS


def test_an_image_that_was_used_long_ago_or_only_failed_may_be_gone():
    assert term(runs("mine", 60, days_ago=40), "mine") == GUESS
    assert term(runs("mine", 60, completed=False), "mine") == GUESS


def test_first_uses_on_a_system_say_what_the_next_one_takes():
    history = (*runs("a", 90, 30, 30), *runs("b", 130, 10, 30, 50), *runs("c", 40, 38, 40))
    found = term(history)
    assert (found.p50_s, found.p90_s) == (60, 120)
    assert found.source == "first uses of 3 images there took so long"


def test_a_first_use_elsewhere_is_better_than_a_guess():
    found = term(runs("new", 130, 30, 30, system_id="birch"))
    assert (found.p50_s, found.p90_s, found.source) == (100, 200, "as the first use of this image elsewhere")


def test_the_place_that_has_the_image_wins_between_equal_ones():
    one, two = view(cluster("alder"), snapshot()), view(cluster("birch"), snapshot())
    history = runs(ask().spec.image, 30, system_id="birch")
    assert place(problem(ask(), one, two)).decisions["job-1"].winner.system_id == "alder"
    assert place(problem(ask(), one, two, history=history)).decisions["job-1"].winner.system_id == "birch"


def test_a_job_without_an_image_brings_none():
    result = place(problem(ask(runtime=Runtime.NONE), view(cluster(), snapshot()))).decisions["job-1"]
    assert (result.winner.staging.p90_s, result.winner.staging.source) == (0, "no image to bring")


ANY_RUNS = st.lists(
    st.builds(
        lambda image, took_s, system_id, hours: finished(
            image=image, run_s=took_s, system_id=system_id, ended_at=NOW + timedelta(hours=hours)
        ),
        st.sampled_from("ab"),
        st.floats(-1e5, 1e7),
        st.sampled_from(["alder", "birch"]),
        st.integers(-2000, 2000),
    ),
    max_size=12,
)


@given(ANY_RUNS, st.randoms(use_true_random=False))
def test_any_history_gives_an_ordered_term_whatever_its_order(history, random):
    shuffled = random.sample(history, len(history))
    for image in "abc":
        found = term(history, image)
        assert 0 <= found.p50_s <= found.p90_s < float("inf")
        assert term(shuffled, image) == found
