"""The engine behind the broker protocol: ``python -m bench.broker``, JSON lines on stdin and stdout.

What is decided here is decided by ``placement``; this only turns messages into looks and errands, and back.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from placement.experience import Experience, learn
from placement.futures import Copy
from placement.looks import Look, SeenJob
from placement.race import FOLLOWED_S, Rules, Spent, followers
from placement.steer import Errand, Steering

Message = Mapping[str, Any]

TICK_S = 900
OURS = "us"
DRAWS = 8


class Engine:
    """One broker from its ``init`` on; the same messages get the same answers."""

    def __init__(self, draws: int = DRAWS, tick_s: int = TICK_S) -> None:
        self._draws, self._tick_s = draws, tick_s
        self._known, self._spent, self._rules = Experience(), Spent(), Rules()
        self._cores: Mapping[str, int] = {}
        self._speeds: Mapping[str, float] = {}
        self._users: dict[str, str] = {}
        self._sent: dict[tuple[str, str], SeenJob] = {}
        self._move_counts: Counter[str] = Counter()
        self._came: list[tuple[float, str]] = []

    def __call__(self, message: Message) -> Message:
        answers = {"init": self._init, "place": self._place, "tick": self._tick}
        return answers[message["type"]](message)

    def _init(self, message: Message) -> Message:
        self._cores = {each["name"]: each["procs"] for each in message["systems"]}
        self._speeds = {each["name"]: each["speed"] for each in message["systems"]}
        limits = message.get("limits") or {}
        self._rules = Rules(
            submissions_per_job=limits.get("submissions_per_job", 1.0),
            copies=limits.get("copies", 1),
            moves=limits.get("moves", False),
        )
        return {"tick_s": self._tick_s if self._rules.moves or self._rules.copies > 1 else 0}

    def _place(self, message: Message) -> Message:
        job = message["job"]
        self._users[job["id"]] = job["user"]
        steering = self._look(message)
        errand = self._errand(job, message["now"])
        names = steering.place(errand, self._spent)
        self._send(errand, names)
        self._came.append((message["now"], names[0]))
        self._spent = self._spent.more(jobs=1, submissions=len(names))
        return {"submit": list(names)}

    def _tick(self, message: Message) -> Message:
        steering = self._look(message)
        pending, actions = message["pending"], []
        waiting = defaultdict[str, list[str]](list)
        for job_id, names in sorted(pending.items()):
            for name in names:
                waiting[name].append(job_id)
        starts = steering.held(self._in_line(message, waiting))
        for job_id, names in sorted(pending.items()):
            held = {name: starts[name][job_id] for name in names if job_id in starts.get(name, {})}
            if len(held) < len(names):
                continue  # a copy is still being staged: nothing new is known of it
            errand = self._errand(message["jobs"][job_id], message["now"])
            waited_s = message["now"] - max(self._sent[job_id, name].submitted_s for name in names)
            standing = errand.standing(names, waited_s, self._move_counts[job_id])
            change = steering.reconsider(errand, standing, held, self._spent)
            self._send(errand, change.submit)
            self._move_counts[job_id] += bool(change.submit and change.withdraw)
            self._spent = self._spent.more(submissions=len(change.submit))
            if change.submit or change.withdraw:
                actions.append({"job": job_id, "submit": list(change.submit), "cancel": list(change.withdraw)})
        return {"actions": actions}

    @staticmethod
    def _in_line(message: Message, waiting: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
        shown = {name: {entry[0] for entry in system["waiting"]} for name, system in message["systems"].items()}
        return {name: [each for each in ids if each in shown[name]] for name, ids in waiting.items()}

    # -- messages ----------------------------------------------------------------------------------------------------

    def _look(self, message: Message) -> Steering:
        looks = {
            name: self._seen(name, shown, message["now"], self._coming(name, shown, message["pending"]))
            for name, shown in message["systems"].items()
        }
        self._known = learn(self._known, looks)
        came = self._came[bisect_left(self._came, (message["now"] - FOLLOWED_S, "")) :]
        return Steering(self._known, message["now"], self._rules, self._draws, followers(came))

    def _send(self, errand: Errand, names: Sequence[str]) -> None:
        for name in names:
            copy = errand.copies[name]
            self._sent[copy.id, name] = SeenJob(copy.id, copy.cores, copy.asked_s, copy.ready_s, copy.user, copy.kin)

    def _coming(self, name: str, shown: Message, pending: Message) -> Sequence[SeenJob]:
        """Copies that were sent to a place and are still being staged."""
        there = {entry[0] for entry in shown["waiting"]}
        sent = (self._sent.get((each, name)) for each in sorted(pending) if name in pending[each] and each not in there)
        return tuple(job for job in sent if job is not None)

    def _seen(self, name: str, shown: Message, now_s: float, coming: Sequence[SeenJob] = ()) -> Look:
        return Look(
            now_s,
            self._cores[name],
            tuple(self._job(name, job[:4], job[5], job[4]) for job in shown["running"]),
            tuple(self._job(name, job[:4], job[4]) for job in shown["waiting"]),
            tuple(self._job(name, job[:4], job[6], job[4], job[5]) for job in shown["finished"]),
            coming,
            speed=self._speeds[name],
        )

    def _job(
        self, name: str, head: Sequence[Any], user: str, started_s: float | None = None, ended_s: float | None = None
    ) -> SeenJob:
        job_id, cores, asked_s, submitted_s = head
        kin = f"ours/{self._users[job_id]}" if job_id in self._users else f"{name}/{user}"
        return SeenJob(str(job_id), cores, asked_s, submitted_s, str(user), kin, started_s, ended_s)

    def _errand(self, job: Message, now_s: float) -> Errand:
        copies = {
            name: Copy(
                job["id"], name, job["procs"], option["req"], now_s + option["stage"], OURS, f"ours/{job['user']}"
            )
            for name, option in job["options"].items()
        }
        return Errand(id=job["id"], copies=copies)


def main() -> None:
    engine = Engine()
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(engine(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
