"""What a campaign on pods found, and what is wrong with it. Pure: the evidence comes from clients and from the places.

A *lie*: a pod is said to be AVAILABLE, and all who asked it by its name for longer than the health interval before, and
who asked it after, got no answer. An *orphan*: something is left at a place when every pod is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

HOLDS_S = 10.0
"""The health interval: how long an answer speaks for a pod. As the guides say, and not read from the code."""

AT_REST = frozenset({"STOPPED", "COMPLETE", "ERROR"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A pod was asked for its page by its name. said: empty where it did not answer. Instants of one steady clock."""

    began_s: float
    ended_s: float
    said: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What a reader of the pod was told that its status is."""

    began_s: float
    ended_s: float
    status: str


@dataclass(slots=True)
class Life:
    """One pod from its making to its removal, as one client saw it. Both lists are in the order of time.

    wants: what was asked of it. missed: the want that did not come true in time, in words; empty when all did.
    """

    pod_id: str
    asked: list[Asked] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    wants: list[str] = field(default_factory=list)
    missed: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that a campaign found. left: what no row owns at its end, in words, by place."""

    lives: Sequence[Life]
    left: Mapping[str, Sequence[str]]
    strikes: Mapping[str, int]
    seconds: float

    def __str__(self) -> str:
        wants = Counter(want for life in self.lives for want in life.wants)
        struck = ", ".join(f"{name} {count}" for name, count in sorted(self.strikes.items()))
        asked = sum(len(life.asked) for life in self.lives)
        answered = sum(bool(one.said) for life in self.lives for one in life.asked)
        told = ", ".join(f"{name} {count}" for name, count in sorted(wants.items()))
        silence_s = max((longest_claim_s(life) for life in self.lives), default=0.0)
        return (
            f"{len(self.lives)} lives in {self.seconds:.0f} s: {told}; {sum(self.strikes.values())} strikes: {struck}; "
            f"asked {asked} times, answered {answered}; longest AVAILABLE without an answer {silence_s:.1f} s"
        )


def faults(verdict: Verdict) -> Sequence[str]:
    """Every broken promise, in words; nothing when all were kept."""
    found = [fault for life in verdict.lives for fault in _faults_of(life)]
    found += [f"orphan at {place}: {one}" for place, left in sorted(verdict.left.items()) for one in left]
    return found


def longest_claim_s(life: Life) -> float:
    """For how long at most a pod was said to be AVAILABLE while it did not answer."""
    return max((length_s for _, length_s in _claims(life)), default=0.0)


def _faults_of(life: Life) -> Iterable[str]:
    if life.missed:
        yield f"pod {life.pod_id}: {life.missed}"
    lies = [(told, length_s) for told, length_s in _claims(life) if length_s > HOLDS_S]
    if lies:
        told, length_s = max(lies, key=lambda lie: lie[1])
        yield f"pod {life.pod_id} lied: AVAILABLE at {told.began_s:.1f} s, without an answer for {length_s:.1f} s"
    for said in sorted({one.said for one in life.asked if one.said and one.said.split()[0] != life.pod_id}):
        yield f"pod {life.pod_id} was answered for by another: {said!r}"
    for one in _answers_at_rest(life):
        yield f"pod {life.pod_id} was at rest, and answered at {one.began_s:.1f} s"


def _claims(life: Life) -> Iterable[tuple[Told, float]]:
    """Each time that it was said to be AVAILABLE within a silence, and for how long it had been silent by then.

    A silence begins with the first question that got no answer, and ends before the last one. Was it told in between
    that the pod is not AVAILABLE, then what is told afterwards is a new claim, and counts from there.
    """
    for silence in _silences(life.asked):
        since_s = silence[0].began_s
        for told in life.told:
            if told.ended_s > silence[-1].began_s:
                break
            if told.status != "AVAILABLE":
                since_s = max(since_s, told.began_s)
            elif told.began_s > since_s:
                yield told, told.began_s - since_s


def _silences(asked: Iterable[Asked]) -> Iterable[Sequence[Asked]]:
    """Questions without an answer, as they follow on each other."""
    silence: list[Asked] = []
    for one in asked:
        if not one.said:
            silence.append(one)
        elif silence:
            yield silence
            silence = []
    if silence:
        yield silence


def _answers_at_rest(life: Life) -> Iterable[Asked]:
    """Answers between two times that it was told to be at rest, with nothing told in between."""
    for before, after in zip(life.told, life.told[1:], strict=False):
        if before.status in AT_REST and after.status in AT_REST:
            within = (one for one in life.asked if before.ended_s <= one.began_s and one.ended_s <= after.began_s)
            yield from (one for one in within if one.said)
