"""Slurm's reasons to wait, for people."""

from __future__ import annotations

import pytest

from backends.slurm.observing import NO_TRACES, observe_job
from backends.slurm.reasons import BEGINNINGS, REASONS, Decider, in_words
from backends.slurm.text import US, parse_squeue_line


@pytest.mark.parametrize(
    ("reason", "words", "decider"),
    [
        ("Priority", "jobs of higher priority wait before it", Decider.OTHERS),
        ("(Resources)", "it is next in line and the resources that it needs are taken", Decider.OTHERS),
        ("QOSMaxCpuPerUserLimit", "its owner uses as much under this quality of service as one user or job may", None),
        ("AssocGrpCPUMinutesLimit", "all jobs of its account together use as much as they may", Decider.ACCOUNT),
        (
            "ReqNodeNotAvail, Reserved for maintenance",
            "the nodes are kept free for a maintenance that its walltime would reach",
            Decider.SITE,
        ),
        (
            "ReqNodeNotAvail, UnavailableNodes:n[1-4]",
            "nodes that it needs are down, drained, or reserved for others",
            Decider.SITE,
        ),
    ],
)
def test_a_reason_is_said_in_words_with_who_decides(reason, words, decider):
    why = in_words(reason)
    assert why.words == words
    assert decider in (None, why.decider)


def test_a_word_that_is_not_known_is_left_as_it_is():
    assert in_words("SomethingNew") is None


def test_words_go_on_from_it_waits_because():
    for why in (*REASONS.values(), *BEGINNINGS.values()):
        assert why.words[0].islower()
        assert not why.words.endswith(".")


def shown(state: str, reason: str):
    return parse_squeue_line(US.join(("7", "N/A", "m", state, reason, "1000", "N/A", "N/A", "")))


def test_only_a_job_that_waits_is_told_why_it_waits():
    waiting = observe_job("7", [shown("PENDING", "Priority")], None, NO_TRACES)
    assert (waiting.reason, waiting.decided_by) == ("Priority", "jobs that run or wait before it")
    running = observe_job("7", [shown("RUNNING", "None")], None, NO_TRACES)
    assert (running.reason_words, running.decided_by) == ("", "")
