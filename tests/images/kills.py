"""A campaign against the store: ``python -m tests.images.kills FOLDER FIRST ROUNDS``.

Each round forks a child that works on the store and is killed (SIGKILL) at a file operation that the round's number
chooses; then all that is in sight is read, and the next caller goes on. A process of its own: it has no threads, so
that a fork is a whole process.
"""

from __future__ import annotations

import builtins
import os
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path

from images.programs import store as program
from images.programs.store import Refused, Store
from tests.images.stores import Clock, image, in_sight, leftovers, send

IMAGES = [image(number, number + 1, number + 2, size=20_000) for number in range(5)]
QUOTA = {"bytes": 230_000}
DEADLY = ("chmod", "fchmod", "fsync", "link", "mkdir", "pwrite", "rename", "rmdir", "unlink", "utime")


class Deadly:
    """The module ``os`` until so many operations that change files were done; then SIGKILL, before or after one."""

    def __init__(self, left: int, after: bool) -> None:
        self._left, self._after = left, after

    def __getattr__(self, name):
        real = getattr(os, name)
        return self.counted(real) if name in DEADLY else real

    def counted(self, real):
        def call(*arguments, **named):
            self._left -= 1
            if self._left == 0 and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*arguments, **named)
            finally:
                if self._left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call


def work(store: Store, chance: random.Random, path: Path) -> None:
    """What a system does all day, in any order."""
    while True:
        each, job = chance.choice(IMAGES), f"job-{chance.randrange(3)}"
        store.clock.now += chance.randrange(2000)
        with suppress(Refused):
            match chance.randrange(7):
                case 0 | 1:
                    send(store, each, quota=QUOTA)
                case 2:
                    path.write_bytes(each.content)
                    store.put(each.digest, str(path), quota=QUOTA)
                case 3:
                    store.gc(QUOTA, live=[], trash_s=600)
                case 4:
                    store.lease(each.digest, job)
                case 5:
                    store.release(each.digest, job)
                case 6:
                    if store.lock("work", "here", os.getpid(), job, beat_s=10)["held"] and chance.random() < 0.5:
                        store.unlock("work", job)


def killed_at(store: Store, seed: int, path: Path) -> None:
    """Let a child work until it is killed at an operation that the seed chooses."""
    chance = random.Random(seed)
    child = os.fork()
    if child == 0:
        deadly = Deadly(chance.randrange(1, 120), chance.random() < 0.5)
        program.os = deadly
        program.open = deadly.counted(builtins.open)
        try:
            work(store, chance, path)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def campaign(folder: Path, first: int, rounds: int) -> None:
    clock = Clock()
    store = Store(str(folder / "store"), clock=clock)
    for seed in range(first, first + rounds):
        killed_at(store, seed, folder / "made")
        in_sight(store)  # reads each of them
        clock.now += 1_000_000  # more than the child can have let pass
        again = Store(store.root, clock=clock)
        assert again.lock("work", "there", 1, f"n{seed}", beat_s=10)["held"], seed
        again.unlock("work", f"n{seed}")
        for path in Path(store._path("leases")).rglob("job-*"):
            os.utime(path, (0, 0))  # the clock of tests is not that of the file system
        again.gc({}, live=[], trash_s=0)
        assert not list(Path(store._path("leases")).rglob("job-*")), seed
        again.repair()
        wanted = IMAGES[seed % len(IMAGES)]  # with what had come of it
        assert send(again, wanted) <= len(wanted.content), seed
        assert wanted.digest in in_sight(again), seed
        again.gc({"bytes": 1}, live=[], trash_s=0)
    for path in leftovers(store):
        os.utime(path, (0, 0))
    store.gc({}, live=[])
    assert not leftovers(store)


if __name__ == "__main__":
    campaign(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
