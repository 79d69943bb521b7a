"""The evaluator and the engine, speaking the broker protocol to each other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from bench.arena import Arena, Regime, oracle, ratio
from bench.baselines import BASELINES
from bench.broker import Engine
from bench.traces import generated, scenario

SINGLE = Regime("single")
FULL = Regime("full", submissions_per_job=2.0, copies=3, moves=True)


@pytest.fixture(scope="module")
def small():
    return scenario([generated(1, days=60)], "twins", "noisy", seed=2, jobs=25)


class Recorded:
    """A broker whose conversation is kept as JSON lines."""

    def __init__(self, broker):
        self.broker, self.asked, self.answered = broker, [], []

    def __call__(self, message):
        self.asked.append(json.dumps(message))
        answer = self.broker(json.loads(self.asked[-1]))
        self.answered.append(json.dumps(answer))
        return answer


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_places_every_job(small, name):
    score = Arena(small, Regime("any", 9, 9)).play(BASELINES[name]())
    assert len(score.times_s) == len(small.jobs)
    assert min(score.times_s) > 0


def test_the_engine_keeps_to_one_submission_where_no_more_is_allowed(small):
    arena = Arena(small, SINGLE)
    score = arena.play(Engine(draws=2))
    assert score.submissions_per_job == 1.0
    assert set(arena.world.outcomes) == {job.id for job in small.jobs}


def test_the_engine_keeps_within_its_mean_of_submissions_and_copies(small):
    arena = Arena(small, FULL)
    most = Counter[str]()
    engine = Engine(draws=2, tick_s=7200)

    def watched(message):
        for job_id, names in message.get("pending", {}).items():
            most[job_id] = max(most[job_id], len(names))
        return engine(message)

    score = arena.play(watched)
    assert score.submissions_per_job <= 2.0
    assert max(most.values(), default=0) <= 3


def test_the_same_conversation_gets_the_same_answers_in_a_process_of_its_own(small):
    recorded = Recorded(Engine())
    Arena(small, SINGLE).play(recorded)
    command = [sys.executable, "-m", "bench.broker"]
    said = subprocess.run(command, input="\n".join(recorded.asked), capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == recorded.answered


def test_other_peoples_finished_jobs_are_hidden_with_own_history_only(small):
    recorded = Recorded(BASELINES["least-loaded"]())
    Arena(small, Regime("own", history="own")).play(recorded)
    shown = _finished(recorded)
    assert shown
    assert all(entry[7] == 1 for entry in shown)


def _finished(recorded):
    messages = [json.loads(line) for line in recorded.asked[1:]]
    return [entry for message in messages for system in message["systems"].values() for entry in system["finished"]]


def test_the_clairvoyant_is_hard_to_beat(small):
    clairvoyant = oracle(small)
    assert ratio(clairvoyant, clairvoyant) == 1.0
    assert ratio(Arena(small, SINGLE).play(BASELINES["hist-median"]()), clairvoyant) > 1.0
