"""One draw of a queue's future: the short way over the room that is left, held against sending the job there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from placement.easy import Cluster, Load
from placement.played import Played

CORES = 8
FAR = 1e9
SHAPES = st.lists(st.tuples(st.integers(1, CORES), st.integers(1, 90), st.floats(0.0, 1.0)), max_size=15)


def played(shapes):
    cluster = Cluster(CORES)
    for n, (cores, asked_s, share) in enumerate(shapes):
        cluster.enter(Load(f"w{n}", cores, asked_s, max(1, round(share * asked_s)), 0.0, float(n)), 0.0)
    cluster.advance(0.0)
    return Played(cluster)


@given(SHAPES, st.integers(1, CORES), st.integers(1, 90), st.integers(0, 60))
def test_the_room_that_is_left_is_where_a_last_job_would_start(shapes, cores, asked_s, ready_s):
    draw = played(shapes)
    sent = Load("mine", cores, asked_s, 1.0, ready_s, 1e6)
    assert draw.start_behind_all_s(cores, asked_s, ready_s, FAR) == draw.start_among_s(sent, ready_s, FAR)


@given(SHAPES)
def test_each_job_in_line_starts_when_the_draw_starts_it(shapes):
    draw = played(shapes)
    starts = {start.load.id: start.at_s for start in draw.world.copy().advance(FAR)}
    assert {name: draw.start_s(name, FAR) for name in starts} == starts


def test_nothing_is_looked_for_beyond_the_horizon():
    draw = played([(CORES, 90, 1.0), (CORES, 90, 1.0)])
    assert draw.start_s("w1", 50) == 50
    assert draw.start_behind_all_s(CORES, 10, 0.0, 70) == 70
    assert draw.start_behind_all_s(CORES, 10, 0.0, FAR) == 180
