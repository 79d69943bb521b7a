"""The judgement on pods can fail: a lie, an orphan and a want that never came true are found and named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.crash.pod_judgement import Asked, Life, Told, Verdict, faults, longest_claim_s

EVERY_S = 0.5


def lived(seconds: float, *spans: tuple[float, str, str], **more: str) -> Life:
    """A pod that was read and asked twice a second. spans: until when, what was told, what was said."""
    life, at_s = Life("web", **more), 0.0
    for until_s, status, said in (*spans, (seconds, *spans[-1][1:])):
        while at_s < until_s:
            life.told.append(Told(at_s, at_s + 0.1, status))
            life.asked.append(Asked(at_s + 0.1, at_s + 0.2, said))
            at_s += EVERY_S
    return life


def judged(life: Life, left: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    return list(faults(Verdict([life], left or {}, {"berth SIGKILL": 1}, 60.0)))


WELL = (20.0, "AVAILABLE", "web 1 a")


def test_a_pod_that_answers_while_it_is_available_is_right():
    assert judged(lived(30, (5.0, "CREATING", ""), WELL, (25.0, "DELETING", ""))) == []


def test_a_silence_within_the_health_interval_is_no_lie():
    life = lived(60, WELL, (29.9, "AVAILABLE", ""), (40.0, "CREATING", ""), (60.0, "AVAILABLE", "web 1 b"))
    assert judged(life) == []
    assert longest_claim_s(life) == pytest.approx(9.4)


def test_a_pod_that_is_available_for_longer_without_an_answer_lies():
    (fault,) = judged(lived(60, WELL, (32.0, "AVAILABLE", ""), (60.0, "CREATING", "")))
    assert fault == "pod web lied: AVAILABLE at 31.5 s, without an answer for 11.4 s"


def test_what_was_said_before_a_silence_and_again_after_a_gap_is_a_lie():
    """As a server that was killed tells it when it comes back: nobody could read the status in between."""
    life = lived(60, WELL, (21.0, "AVAILABLE", ""))
    kept = [one for one in life.told if not 21.0 <= one.began_s < 35.0]
    life.told[:] = [one for one in kept if one.began_s < 36.0]
    (fault,) = judged(life)
    assert "lied: AVAILABLE at 35.5 s" in fault


def test_a_claim_made_anew_counts_from_then():
    spans = ((30.0, "CREATING", ""), (39.0, "AVAILABLE", ""), (60.0, "CREATING", ""))
    assert judged(lived(60, WELL, *spans)) == []


def test_a_claim_is_no_lie_where_the_pod_answered_right_after_it():
    """It may have come up between the question and the claim."""
    life = lived(60, (30.0, "SUBMITTED", ""), (31.0, "AVAILABLE", "web 1 a"))
    assert judged(life) == []


def test_the_answer_of_another_pod_is_named():
    (fault,) = judged(lived(30, (10.0, "AVAILABLE", "mail 1 a"), WELL))
    assert fault == "pod web was answered for by another: 'mail 1 a'"


def test_an_answer_while_at_rest_is_named():
    life = lived(12, (10.0, "STOPPED", ""), (12.0, "STOPPED", "web 1 a"))
    assert "pod web was at rest, and answered at 10.1 s" in judged(life)


def test_a_want_that_did_not_come_true_is_named():
    assert judged(lived(30, WELL, missed="not STOPPED within 60 s: DELETING")) == [
        "pod web: not STOPPED within 60 s: DELETING"
    ]


def test_an_orphan_is_named_with_its_place():
    assert judged(lived(30, WELL), {"here": [], "alder": ["job 17"]}) == ["orphan at alder: job 17"]


def test_the_verdict_says_what_was_done():
    life = lived(30, WELL, (24.0, "AVAILABLE", ""), (30.0, "CREATING", ""))
    life.wants += ["create", "restart"]
    assert str(Verdict([life], {}, {"berth SIGKILL": 2, "node crash": 1}, 30.0)) == (
        "1 lives in 30 s: create 1, restart 1; 3 strikes: berth SIGKILL 2, node crash 1; asked 60 times, answered 40; "
        "longest AVAILABLE without an answer 3.4 s"
    )
