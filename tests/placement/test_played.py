"""One draw of a queue's future: the short ways through what is played, held against sending the job there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from placement.easy import Cluster, Load
from placement.played import Played

CORES = 8
FAR = 1e9
SHAPES = st.lists(st.tuples(st.integers(1, CORES), st.integers(1, 90), st.floats(0.0, 1.0)), max_size=15)
NEWCOMERS = st.lists(st.tuples(st.integers(1, CORES), st.integers(1, 90), st.integers(1, 200)), max_size=10)
QUERIES = st.lists(
    st.tuples(
        st.integers(1, CORES + 1),
        st.integers(1, 90),
        st.integers(0, 90),
        st.floats(-50, 50),
        st.sampled_from([70, FAR]),
    ),
    min_size=1,
    max_size=6,
)


def world(shapes, newcomers=()):
    """The jobs of ``shapes`` in line at 0, and others that come later, some of a better rank than that tells."""
    waiting = [
        Load(f"w{n}", cores, asked_s, max(1, round(share * asked_s)), 0.0, float(n))
        for n, (cores, asked_s, share) in enumerate(shapes)
    ]
    arrivals = [
        Load(f"n{n}", cores, asked_s, asked_s / 2, at_s, at_s + 20.25 * (n % 3 - 1))
        for n, (cores, asked_s, at_s) in enumerate(sorted(newcomers, key=lambda each: each[2]))
    ]
    cluster = Cluster(CORES, arrivals=arrivals, waiting=waiting)
    cluster.advance(0.0)
    return cluster


def sent(there, load, ready_s, until_s):
    """When the job starts if the whole draw is played with it."""
    twin = there.copy()
    twin.enter(load, ready_s)
    while twin.next_s < until_s:
        for start in twin.step():
            if start.load is load:
                return start.at_s
    return until_s


@given(SHAPES, NEWCOMERS, QUERIES)
def test_a_job_starts_when_it_would_if_all_were_played_with_it(shapes, newcomers, queries):
    there = world(shapes, newcomers)
    draw = Played(there.copy())
    for cores, asked_s, ready_s, offset_s, until_s in queries:
        mine = Load("mine", cores, asked_s, 1.0, ready_s, ready_s + offset_s + 0.125)
        assert draw.start_among_s(mine, ready_s, until_s) == sent(there, mine, ready_s, until_s)


@given(SHAPES, NEWCOMERS)
def test_each_job_in_line_starts_when_the_draw_starts_it(shapes, newcomers):
    there = world(shapes, newcomers)
    draw = Played(there)
    starts = {start.load.id: start.at_s for start in there.copy().advance(FAR)}
    assert {name: draw.start_s(name, FAR) for name in starts} == starts


def test_nothing_is_looked_for_beyond_the_horizon():
    draw = Played(world([(CORES, 90, 1.0), (CORES, 90, 1.0), (CORES, 90, 1.0)]))
    last = Load("mine", CORES, 10, 10, 0.0, 99.0)
    assert draw.start_s("w2", 50) == 50
    assert draw.start_among_s(last, 0.0, 70) == 70
    assert draw.start_among_s(last, 0.0, FAR) == 270


def test_a_long_line_is_played_in_part_and_told_by_its_pace():
    """A thousand jobs, one after the other, each half as long as it asks for: a hundred are played."""
    shapes = [(CORES, 60, 0.5)] * 1000
    draw = Played(world(shapes), depth=100)
    last, middle = Load("mine", CORES, 60, 60, 0.0, 1e6), Load("mine", CORES, 60, 60, 0.0, 49.5)
    assert 0.9 < draw.start_among_s(last, 0.0, FAR) / 30_000 < 1.1
    assert draw.start_among_s(middle, 0.0, FAR) == 1500
    assert 0.9 < draw.start_s("w999", FAR) / 30_000 < 1.1


def test_a_small_job_behind_a_long_line_does_not_wait_for_the_large_ones():
    """Of a hundred jobs in line every second one is small and short and fits beside a large one."""
    shapes = [(6, 100, 1.0), (2, 50, 1.0)] * 500
    whole, part = Played(world(shapes), depth=10_000), Played(world(shapes), depth=100)
    for cores, asked_s in ((2, 50), (1, 50), (8, 100)):
        mine = Load("mine", cores, asked_s, asked_s, 0.0, 1e6)
        starts_s = whole.start_among_s(mine, 0.0, FAR), part.start_among_s(mine, 0.0, FAR)
        assert 0.8 < starts_s[1] / starts_s[0] < 1.25
