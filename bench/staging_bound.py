"""What a small store could hide at best: the same events, staged by who knows beforehand when every job begins.

It stages for no job that runs elsewhere in the end, brings first what is begun first, and lets go of what is begun
last. Images of jobs that run stay, as they do for us: where those alone fill the store, knowing all does not help.
It is a reference and no proof: with other choices somewhat more may be hidden. ``crowded`` supposes nothing: it tells
when the images in use are more than the store holds, so that one of them at least is not in it.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from heapq import nsmallest
from math import inf

from bench.staging_model import Alone, Digest, Kind, Link, Rules, Told, Use

NEXT = 5
"""Of those without room, so many are looked at when there may be some, those that begin first."""


class _Oracle:
    def __init__(self, uses: Sequence[Use], rules: Rules) -> None:
        self._uses = [use for use in uses if use.starts_at_s is not None]
        self._link, self._room_bytes = Link(rules.link_bytes_per_s, self._pressing), rules.store_bytes
        self._starts: defaultdict[Digest, list[float]] = defaultdict(list)
        for use in self._uses:
            self._starts[use.digest].append(_start(use))
        for starts in self._starts.values():
            starts.sort()
        self._held: dict[Digest, float] = {}
        self._in_use = Counter[Digest]()
        self._on_the_way, self._wanted = set[Digest](), dict[Digest, float]()
        self._pending: defaultdict[Digest, list[int]] = defaultdict(list)
        self._events: list[tuple[float, int, int]] = []
        self._alone, self._delays_s = set[int](), dict[int, float]()
        self._sent_bytes, self._sent = 0.0, 0

    def run(self) -> Told:
        for number, use in enumerate(self._uses):
            self._events += [(use.placed_at_s, Kind.PLACED, number), (_start(use), Kind.STARTED, number)]
        heapq.heapify(self._events)
        steps = {Kind.PLACED: self._place, Kind.STARTED: self._begin, Kind.RELEASED: self._release}
        while self._events or self._link.next_at_s() < inf:
            if not self._events or self._link.next_at_s() <= self._events[0][0]:
                self._arrived(*self._link.take())
            else:
                now_s, kind, number = heapq.heappop(self._events)
                steps[Kind(kind)](number, now_s)
        delays_s = [self._delays_s[number] for number in range(len(self._uses))]
        return Told(delays_s, self._sent_bytes, self._sent, len(self._alone))

    def _place(self, number: int, now_s: float) -> None:
        use = self._uses[number]
        if use.digest not in self._held:
            self._bring(use.digest, use.size_bytes, now_s, self._next_s(use.digest, now_s))

    def _begin(self, number: int, now_s: float) -> None:
        """The system lets the job begin; one for whose image there is no room fetches it for itself."""
        use = self._uses[number]
        if use.digest in self._held or self._bring(use.digest, use.size_bytes, now_s, now_s):
            self._in_use[use.digest] += 1
            if use.digest in self._on_the_way:
                self._pending[use.digest].append(number)
            else:
                self._run(number, now_s)
        else:
            self._alone.add(number)
            self._pending[Alone(number)].append(number)
            self._send(Alone(number), use.size_bytes, now_s)
        if self._next_s(use.digest, now_s, after=True) == inf:
            self._wanted.pop(use.digest, None)

    def _run(self, number: int, now_s: float) -> None:
        use = self._uses[number]
        self._delays_s[number] = now_s - _start(use)
        heapq.heappush(self._events, (use.ends_at_s + now_s - _start(use), Kind.RELEASED, number))

    def _release(self, number: int, now_s: float) -> None:
        digest = self._uses[number].digest
        if number in self._alone:
            return
        self._in_use[digest] -= 1
        if not self._in_use[digest]:
            self._fill(now_s)

    def _arrived(self, digest: Digest, now_s: float) -> None:
        self._on_the_way.discard(digest)
        for number in self._pending.pop(digest, ()):
            self._run(number, now_s)
        if not self._in_use[digest]:
            self._fill(now_s)

    def _fill(self, now_s: float) -> None:
        first = nsmallest(NEXT, self._wanted, key=lambda digest: self._next_s(digest, now_s))
        for digest in first:
            self._bring(digest, self._wanted[digest], now_s, self._next_s(digest, now_s))

    def _bring(self, digest: Digest, size_bytes: float, now_s: float, until_s: float) -> bool:
        """Whether it comes, where room is made of images that are begun later than ``until_s``."""
        if not self._make_room(size_bytes, now_s, until_s):
            self._wanted[digest] = size_bytes
            return False
        self._wanted.pop(digest, None)
        self._held[digest] = size_bytes
        self._room_bytes -= size_bytes
        self._on_the_way.add(digest)
        self._send(digest, size_bytes, now_s)
        return True

    def _make_room(self, size_bytes: float, now_s: float, until_s: float) -> bool:
        if self._room_bytes >= size_bytes:
            return True
        idle = [each for each in self._held if not self._in_use[each] and each not in self._on_the_way]
        later = sorted(((s, each) for each in idle if (s := self._next_s(each, now_s)) > until_s), key=lambda x: -x[0])
        if self._room_bytes + sum(self._held[each] for _, each in later) < size_bytes:
            return False
        for next_s, each in later:
            if self._room_bytes >= size_bytes:
                break
            gone_bytes = self._held.pop(each)
            self._room_bytes += gone_bytes
            if next_s < inf:
                self._wanted[each] = gone_bytes
        return True

    def _send(self, digest: Digest, size_bytes: float, now_s: float) -> None:
        self._link.add(digest, size_bytes, now_s)
        self._sent_bytes += size_bytes
        self._sent += 1

    def _pressing(self, digest: Digest, left_bytes: float, now_s: float) -> float:
        return now_s if digest in self._pending else self._next_s(digest, now_s)

    def _next_s(self, digest: Digest, now_s: float, after: bool = False) -> float:
        """When a job with this image begins next; inf where none does any more."""
        starts = self._starts[digest]
        where = bisect_left(starts, now_s)
        while after and where < len(starts) and starts[where] <= now_s:
            where += 1
        return starts[where] if where < len(starts) else inf


def foreseen(uses: Sequence[Use], rules: Rules) -> Told:
    """As ``simulate``, by one who knows all starts. The delays are of those uses that run, in the order given."""
    return _Oracle(uses, rules).run()


def _start(use: Use) -> float:
    if use.starts_at_s is None:
        raise ValueError("it runs elsewhere")
    return use.starts_at_s


def crowded(uses: Sequence[Use], store_bytes: float) -> list[bool]:
    """Of each use that runs, whether the images that are in use when it begins, its own with them, do not fit."""
    runs = [use for use in uses if use.starts_at_s is not None]
    events = [(_start(use), 1, number) for number, use in enumerate(runs)]
    events += [(use.ends_at_s, 0, number) for number, use in enumerate(runs)]
    in_use, used_bytes, told = Counter[Digest](), 0.0, [False] * len(runs)
    for _, begins, number in sorted(events):
        digest, size_bytes = runs[number].digest, runs[number].size_bytes
        in_use[digest] += 1 if begins else -1
        if in_use[digest] == begins:  # the first one that uses it, or none any more
            used_bytes += size_bytes if begins else -size_bytes
        told[number] = told[number] or (bool(begins) and used_bytes > store_bytes)
    return told
