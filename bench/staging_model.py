"""What staging images behind the queue's wait costs: a pure model of one system, its store and the link to it.

A job's image is wanted when the job is placed, and the job begins when the system lets it: if its image is not there by
then, its nodes wait. The record of the queue stays as it was: what one job loses delays no other. Where the store is
full, ``images.claims`` says who gives way, as it does for real stores.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from typing import NamedTuple

from images import staging
from images.claims import UNTOLD, Claim, Foreseen, Grade, gives_way, is_short, together

Digest = Hashable

NEXT = 5
"""Of those without room, so many are refused it before the rest need not ask, the most pressing first."""

AGAIN_S = 30.0
"""How long those without room wait at least until they ask again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One placement that wants an image. starts_at_s None: the job ran elsewhere in the end, and lets go at ends_at_s.

    Instants in seconds on the record's clock.
    """

    digest: Digest
    size_bytes: float
    nodes: float
    placed_at_s: float
    starts_at_s: float | None
    ends_at_s: float
    foreseen: Foreseen = UNTOLD
    """Its wait, as it is told when it is placed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The link to the system, and its store: above the high share images that nobody needs go, the longest unused
    first, until the low share."""

    link_bytes_per_s: float
    store_bytes: float = inf
    copied_by: staging.SiteFacts | None = None
    """Where nodes have room for copies: where the store is short, a job needs its file until each node has one."""
    high_share: float = 0.8
    low_share: float = 0.6


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it. delays_s: of each use that ran, in the order given."""

    delays_s: Sequence[float]
    sent_bytes: float
    sent: int
    without_room: int
    """Jobs for whose image the store had no room even when they began: each fetched it for itself."""


class Alone(NamedTuple):
    """What a job fetches for itself: the number of its use."""

    number: int


class Kind(IntEnum):
    """In the order in which events of the same instant happen; before them, what the link brings."""

    RELEASED = 0
    PLACED = 1
    STARTED = 2


class Link:
    """Carries so many bytes per second, of the one transfer that ``pressing`` says least of; the others pause.

    pressing: of a transfer, the bytes that are left of it, and an instant; asked whenever something begins or ends.
    """

    def __init__(self, bytes_per_s: float, pressing: Callable[[Digest, float, float], float]) -> None:
        self._rate, self._pressing = bytes_per_s, pressing
        self._left_bytes: dict[Digest, float] = {}
        self._carried: Digest | None = None
        self._at_s = 0.0

    def add(self, digest: Digest, size_bytes: float, now_s: float) -> None:
        """Begin a transfer, or let it wait for its turn."""
        self._go_on(now_s)
        self._left_bytes[digest] = size_bytes
        self.choose(now_s)

    def next_at_s(self) -> float:
        """When the next one is through, if nothing else happens."""
        if self._carried is None:
            return inf
        return self._at_s + max(0.0, self._left_bytes[self._carried]) / self._rate

    def take(self) -> tuple[Digest, float]:
        """The next one that is through, and when."""
        digest, at_s = self._carried, self.next_at_s()
        self._at_s, self._carried = at_s, None
        del self._left_bytes[digest]
        self.choose(at_s)
        return digest, at_s

    def choose(self, now_s: float) -> None:
        """Carry the one that is the most pressing now; of equals who came first."""
        self._go_on(now_s)
        turns = {digest: self._pressing(digest, left_bytes, now_s) for digest, left_bytes in self._left_bytes.items()}
        self._carried = min(turns, key=lambda digest: turns[digest], default=None)

    def _go_on(self, now_s: float) -> None:
        if self._carried is not None:
            self._left_bytes[self._carried] -= (now_s - self._at_s) * self._rate
        self._at_s = now_s


class Store:
    """Images on the system by digest, the longest unused first; what is on its way has its room already."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._held: OrderedDict[Digest, float] = OrderedDict()
        self._leases = Counter[Digest]()
        self._used_bytes, self._leased_bytes = 0.0, 0.0

    def has_room(self, size_bytes: float) -> bool:
        """Whether there is, once what nobody needs has gone."""
        quota_bytes = self._rules.store_bytes
        if self._leased_bytes + size_bytes > quota_bytes:
            return False
        if self._used_bytes + size_bytes > quota_bytes * self._rules.high_share:
            self._collect(quota_bytes * self._rules.low_share - size_bytes)
        return self._used_bytes + size_bytes <= quota_bytes

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._held

    def reserve(self, digest: Digest, size_bytes: float) -> None:
        """Take the room for an image; who wants it leases it, too."""
        self._held[digest] = size_bytes
        self._used_bytes += size_bytes

    def lease(self, digest: Digest) -> None:
        """Somebody needs it: it stays, and is the one that was used last."""
        self._leased_bytes += 0.0 if self._leases[digest] else self._held[digest]
        self._leases[digest] += 1
        self._held.move_to_end(digest)

    def release(self, digest: Digest) -> None:
        """One less needs it."""
        self._leases[digest] -= 1
        if not self._leases[digest]:
            del self._leases[digest]
            self._leased_bytes -= self._held[digest]

    @property
    def is_short(self) -> bool:
        """Whether it wants room back before the jobs end that read it."""
        return is_short(self._leased_bytes, self._rules.store_bytes)

    def is_leased(self, digest: Digest) -> bool:
        """Whether anybody needs it."""
        return digest in self._leases

    def missing_bytes(self, size_bytes: float) -> float:
        """How much more room an image needs than there is."""
        return self._used_bytes + size_bytes - self._rules.store_bytes

    def held(self) -> Mapping[Digest, float]:
        """Bytes of each, the longest unused first."""
        return self._held

    def drop(self, digest: Digest) -> None:
        """Let go of one that nobody leases any more."""
        self._used_bytes -= self._held.pop(digest)

    def _collect(self, until_bytes: float) -> None:
        for digest in [each for each in self._held if each not in self._leases]:
            if self._used_bytes <= until_bytes:
                break
            self._used_bytes -= self._held.pop(digest)


class _System:
    def __init__(self, uses: Sequence[Use], rules: Rules) -> None:
        self._uses, self._rules = uses, rules
        self._link = Link(rules.link_bytes_per_s, self._pressing)
        self._store = Store(rules)
        self._events: list[tuple[float, int, int]] = []
        self._on_the_way = set[Digest]()
        self._waiting: defaultdict[Digest, list[int]] = defaultdict(list)
        self._leased, self._wants_room = set[int](), dict[int, None]()
        self._copied = set[int]()
        self._queued: defaultdict[Digest, dict[int, None]] = defaultdict(dict)
        self._begun = Counter[Digest]()
        self._told: dict[int, tuple[float, float]] = {}
        self._asked_at_s = -inf
        self._delays_s: dict[int, float] = {}
        self._sent_bytes, self._sent, self._without_room = 0.0, 0, 0

    def run(self) -> Told:
        for number, use in enumerate(self._uses):
            self._expect(use.placed_at_s, Kind.PLACED, number)
            if use.starts_at_s is not None:
                self._expect(use.starts_at_s, Kind.STARTED, number)
        steps = {Kind.PLACED: self._place, Kind.STARTED: self._start, Kind.RELEASED: self._release}
        while self._events or self._link.next_at_s() < inf:
            if not self._events or self._link.next_at_s() <= self._events[0][0]:
                self._arrived(*self._link.take())
            else:
                now_s, kind, number = heapq.heappop(self._events)
                steps[Kind(kind)](number, now_s)
        delays_s = [self._delays_s[number] for number, use in enumerate(self._uses) if use.starts_at_s is not None]
        return Told(delays_s, self._sent_bytes, self._sent, self._without_room)

    def _expect(self, at_s: float, kind: Kind, number: int) -> None:
        heapq.heappush(self._events, (at_s, kind, number))

    # -- jobs --------------------------------------------------------------------------------------------------------

    def _place(self, number: int, now_s: float) -> None:
        """What is staged for a job that runs elsewhere is let go when that begins, which may be at once."""
        use = self._uses[number]
        self._queued[use.digest][number] = None
        self._want(number, now_s)
        if use.starts_at_s is None:
            self._expect(use.ends_at_s, Kind.RELEASED, number)

    def _start(self, number: int, now_s: float) -> None:
        """The system lets the job begin."""
        use = self._uses[number]
        self._leave_queue(number)
        self._begun[use.digest] += 1
        if number not in self._leased:
            self._want(number, now_s)
        if number not in self._leased:
            self._begun[use.digest] -= 1
            self._wants_room.pop(number, None)
            self._without_room += 1
            alone = Alone(number)
            self._waiting[alone].append(number)
            self._send(alone, use.size_bytes, now_s)
        elif use.digest in self._on_the_way:
            self._waiting[use.digest].append(number)
            self._link.choose(now_s)
        else:
            self._begin(number, now_s)

    def _begin(self, number: int, now_s: float) -> None:
        """The job has its image, and runs as long as it did."""
        use = self._uses[number]
        assert use.starts_at_s is not None
        self._delays_s[number] = now_s - use.starts_at_s
        reads_s = use.ends_at_s - use.starts_at_s
        if self._rules.copied_by is not None and number in self._copied:
            reads_s = min(reads_s, copy_s(use, self._rules.copied_by))
        self._expect(now_s + reads_s, Kind.RELEASED, number)

    def _release(self, number: int, now_s: float) -> None:
        use = self._uses[number]
        self._wants_room.pop(number, None)
        if use.starts_at_s is None:
            self._leave_queue(number)
        elif number in self._leased:
            self._begun[use.digest] -= 1
        if number in self._leased:
            self._leased.remove(number)
            self._store.release(use.digest)
        self._ask_again(now_s)

    def _leave_queue(self, number: int) -> None:
        self._told.pop(number, None)
        digest = self._uses[number].digest
        del self._queued[digest][number]
        if not self._queued[digest]:
            del self._queued[digest]

    # -- images ------------------------------------------------------------------------------------------------------

    def _want(self, number: int, now_s: float) -> bool:
        """Lease the image, and send it if it is not there; without room, that is tried again when there may be."""
        use = self._uses[number]
        if use.digest not in self._store:
            if not self._store.has_room(use.size_bytes) and not self._make_room(number, now_s):
                self._wants_room[number] = None
                return False
            self._store.reserve(use.digest, use.size_bytes)
            self._store.lease(use.digest)  # of the transfer itself
            self._on_the_way.add(use.digest)
            self._send(use.digest, use.size_bytes, now_s)
        self._store.lease(use.digest)
        self._leased.add(number)
        if self._rules.copied_by is not None and self._store.is_short:
            self._copied.add(number)
        self._wants_room.pop(number, None)
        return True

    def _make_room(self, number: int, now_s: float) -> bool:
        """Others give way, if any must; they want room again."""
        use = self._uses[number]
        wants = self._claim(use.digest, use.size_bytes, now_s)
        held = (self._claim(digest, size_bytes, now_s) for digest, size_bytes in self._store.held().items())
        goes = gives_way(wants, held, self._store.missing_bytes(use.size_bytes))
        for each in goes or ():
            for waiting in self._queued.get(each.digest, ()):
                if waiting in self._leased:
                    self._leased.remove(waiting)
                    self._store.release(each.digest)
                    self._wants_room[waiting] = None
            self._store.drop(each.digest)
        return goes is not None

    def _claim(self, digest: Digest, size_bytes: float, now_s: float) -> Claim:
        if self._begun[digest] or digest in self._on_the_way:
            return Claim(digest, size_bytes, Grade.BEGUN, 0.0)
        if digest not in self._queued:
            return Claim(digest, size_bytes, Grade.IDLE)
        starts_in_s = together(self._starts_in_s(number, now_s) for number in self._queued[digest])
        return Claim(digest, size_bytes, Grade.QUEUED, starts_in_s)

    def _pressing(self, digest: Digest, left_bytes: float, now_s: float) -> float:
        """As those say who send to real stores; what is left counts, as only that is still to be sent."""
        if digest in self._waiting:
            return Claim(digest, left_bytes, Grade.BEGUN, 0.0).turn
        starts_in_s = together(self._starts_in_s(number, now_s) for number in self._queued.get(digest, ()))
        return Claim(digest, left_bytes, Grade.QUEUED, starts_in_s).turn

    def _starts_in_s(self, number: int, now_s: float) -> float:
        """As foreseen; not reckoned anew as long as it can have changed little."""
        use = self._uses[number]
        waited_s = now_s - use.placed_at_s
        told = self._told.get(number)
        if told is None or waited_s > told[0] * 1.05 + AGAIN_S:
            told = self._told[number] = waited_s, use.foreseen.starts_in_s(waited_s)
        return told[1]

    def _ask_again(self, now_s: float) -> None:
        """Who wants room asks for it from time to time, the most pressing first."""
        if not self._wants_room or now_s < self._asked_at_s + AGAIN_S:
            return
        self._asked_at_s = now_s
        sizes = {self._uses[number].digest: self._uses[number].size_bytes for number in self._wants_room}
        turns = {digest: self._claim(digest, size_bytes, now_s).turn for digest, size_bytes in sizes.items()}
        refused = set[Digest]()
        for number in sorted(self._wants_room, key=lambda number: turns[self._uses[number].digest]):
            if len(refused) >= NEXT:
                break
            digest = self._uses[number].digest
            if digest not in refused and not self._want(number, now_s):
                refused.add(digest)

    def _send(self, digest: Digest, size_bytes: float, now_s: float) -> None:
        self._link.add(digest, size_bytes, now_s)
        self._sent_bytes += size_bytes
        self._sent += 1

    def _arrived(self, digest: Digest, now_s: float) -> None:
        if digest in self._on_the_way:
            self._on_the_way.remove(digest)
            self._store.release(digest)
        for number in self._waiting.pop(digest, ()):
            self._begin(number, now_s)
        self._ask_again(now_s)


def copy_s(use: Use, site: staging.SiteFacts) -> float:
    """Seconds from the start of a job until each of its nodes has a copy of its image."""
    nodes = max(1, round(use.nodes))
    wanted = staging.Use(digest=str(use.digest), size_bytes=round(use.size_bytes), nodes=nodes)
    return staging.plan_s(staging.local_plan(wanted, site), site)


def simulate(uses: Sequence[Use], rules: Rules) -> Told:
    """Let all of it happen. Each image is sent once for all who want it; a leased one is never removed."""
    return _System(uses, rules).run()
