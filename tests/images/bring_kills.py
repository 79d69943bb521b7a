"""A campaign against the bringer: ``python -m tests.images.bring_kills FOLDER STAGE FIRST ROUNDS``.

Each round forks a process that brings an image into one workshop and is killed (SIGKILL) somewhere in the stage: while
it pulls, or while it unpacks, converts, renames and notes. Then all that is in sight is read, nothing that it started
may be left, and the next process must come to the very file that a workshop without a kill makes.

A process of its own: it has no threads, so that a fork is a whole process.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from images import layers, transfer
from images.bring import Bringer, Made
from images.convert import Compressor
from images.needs import Needs
from images.origins import Origins
from images.records import load
from images.reference import parse_reference
from images.sources import FileSink
from images.workshop import Workshop
from tests.fakes.registry import FakeRegistry
from tests.fakes.tenant import AMD64, World
from tests.images.tarballs import entry, folder, tar

STAGES = ("pull", "convert")
MOUNTABLE = frozenset(Compressor)
LAYER_BYTES = 400_000
PIECE_BYTES = 64 * 1024
"""So that a layer is many writes."""
LATEST_S = 0.06
"""After the event that was chosen; as long as mksquashfs takes for such an image."""
KEPT_ROUNDS = 10
"""Then the workshop is emptied, for all of it is read in each round."""
EVENTS = frozenset(
    {
        *("open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"),
        *("os.utime", "shutil.rmtree", "subprocess.Popen", "write", "sync"),
    }
)
"""What a process does to files and processes, as Python's audit tells it, and what ``audited`` adds."""


class Strike:
    """Counts events once it is ``armed``, and kills this process at the chosen one, or so long after it.

    home: events of files elsewhere do not count. told: where the event is named for the parent, who kills then.
    """

    def __init__(self, home: Path, chosen: int, delay_s: float, told: int) -> None:
        self._home, self._chosen, self._delay_s, self._told = str(home), chosen, delay_s, told
        self.armed, self.seen = False, list[str]()
        sys.addaudithook(self._saw)

    def _saw(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.armed or event not in EVENTS or not self._is_ours(event, arguments):
            return
        self.seen.append(event)
        if len(self.seen) == self._chosen:
            os.write(self._told, event.encode())
            if not self._delay_s:
                os.kill(os.getpid(), signal.SIGKILL)

    def _is_ours(self, event: str, arguments: tuple[object, ...]) -> bool:
        if not event.startswith(("open", "os.", "shutil.")) or isinstance(arguments[0], int):
            return True
        path = os.fsdecode(arguments[0])  # a relative one is below a descriptor of ours
        return path.startswith(self._home) or not path.startswith("/")


def audited(event: str, real: Callable) -> Callable:
    """A function whose calls are events, before and after."""

    def call(*arguments, **named):
        sys.audit(event)
        try:
            return real(*arguments, **named)
        finally:
            sys.audit(event)

    return call


def torn_write(sink: FileSink, piece: bytes) -> None:
    """A write that can be cut in two."""
    half = len(piece) // 2
    for part in (piece[:half], piece[half:]):
        sys.audit("write")
        WRITE(sink, part)


WRITE = FileSink.write


async def bring(home: Path, registry: FakeRegistry, fetched: Callable[[], None] = lambda: None) -> str:
    """The digest of the image as a file, by a process that has just begun. fetched: called when all layers came."""

    class Told(Bringer):
        async def _fetch(self, *arguments):
            paths = await super()._fetch(*arguments)
            fetched()
            return paths

    world = World()
    world.web.hosts["reg.org"] = registry
    origins = Origins(world.access.exchange, world._logins)
    found = await origins.resolve(parse_reference("reg.org/app:1"), AMD64)
    return (await Told(Workshop(home)).bring(found, MOUNTABLE, origins)).digest


# -- processes -------------------------------------------------------------------------------------------------------


def forked(work: Callable[[int], None]) -> tuple[int, int]:
    """A process that does this work and then waits for its end: its number, and what it writes to."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reads)
            work(writes)
            os.write(writes, b"end")
            signal.pause()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writes)
    return child, reads


def answer(work: Callable[[], Awaitable[object]]) -> str:
    """What the work gives in a process of its own."""
    child, reads = forked(lambda told: os.write(told, str(asyncio.run(work())).encode()))
    said = os.read(reads, 1000).decode()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reads)
    return said.removesuffix("end")


def struck(home: Path, registry: FakeRegistry, stage: str, chosen: int, delay_s: float) -> list[str]:
    """Bring until the strike falls: the event at which it fell, or all of the stage when it did not."""

    def work(told: int) -> None:
        transfer.PIECE_BYTES = PIECE_BYTES
        FileSink.write = torn_write
        os.fsync = audited("sync", os.fsync)
        layers.os.pwrite = audited("write", os.pwrite)
        strike = Strike(home, chosen, delay_s, told)
        strike.armed = stage == "pull"

        def fetched() -> None:
            strike.armed = stage == "convert"

        asyncio.run(bring(home, registry, fetched))
        if len(strike.seen) < chosen or not chosen:
            os.write(told, ",".join(strike.seen).encode())

    child, reads = forked(work)
    said = os.read(reads, 60_000).decode()
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    os.close(reads)
    return said.removesuffix("end").split(",")


def still_running(home: Path) -> list[str]:
    """Commands of processes that name something in the workshop."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if any(word.startswith(f"{home}/") for word in words) and path.parent.name != str(os.getpid()):
            found.append(" ".join(words))
    return found


# -- rounds ----------------------------------------------------------------------------------------------------------


def image(registry: FakeRegistry, stage: str, number: int) -> None:
    """An image as ``app:1``: each has new layers to pull, or those of the last one and another label."""
    seed = number if stage == "pull" else 0
    noise = [random.Random(2 * seed + part).randbytes(LAYER_BYTES) for part in range(2)]
    lower = tar(folder("opt"), entry("opt/lower", noise[0]), entry("etc/old"), *SMALL)
    upper = tar(entry("etc/.wh.old"), entry("opt/upper", noise[1], mode=0o755))
    registry.push_image("app", "1", (lower, upper), Labels={"number": str(number)})


SMALL = [entry(f"usr/lib/f{number}", b"%d" % number) for number in range(20)]


def in_sight(home: Path) -> int:
    """Files that anyone could find, each read; and every record can be."""
    seen = 0
    for path in (*home.glob("blobs/*"), *home.glob("files/*")):
        if path.suffix != ".part":
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, path
            seen += 1
    for kind, record in (("needs", Needs), ("made", Made)):
        for path in home.glob(f"{kind}/[!.]*"):
            load(record, path.read_bytes())
    return seen


def one_round(home: Path, stage: str, number: int, events: list[str]) -> str:
    """Kill one process and let the next one finish its work; at which event it was killed."""
    chance = random.Random(f"{stage}{number}")
    registry = FakeRegistry()
    if stage == "convert":  # its layers have come with another image
        image(registry, stage, -1)
        assert answer(lambda: bring(home, registry))
    image(registry, stage, number)
    delay_s = chance.choice((0.0, chance.uniform(0.0, 0.004), chance.uniform(0.0, LATEST_S)))
    kind = chance.choice(sorted(set(events)))  # so that what happens once is struck as often as what happens always
    chosen = chance.choice([number for number, event in enumerate(events, start=1) if event == kind])
    where = struck(home, registry, stage, chosen, delay_s)[0]
    in_sight(home)
    until = time.monotonic() + 10
    while (left := still_running(home)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left, (number, left)
    kept_bytes = sum(path.stat().st_size for path in home.glob("blobs/*.part"))
    elsewhere = home.with_name("elsewhere")
    found, wanted = (answer(lambda home=home: bring(home, registry)) for home in (home, elsewhere))
    assert found == wanted != "", (number, found, wanted)
    assert list((home / "work").iterdir()) == [], number
    assert in_sight(home) > 0
    assert not [*home.glob("blobs/*.part"), *home.glob("*/.*")], number
    shutil.rmtree(elsewhere)
    return f"{where}{', later' if delay_s else ''}{', with a part' if kept_bytes else ''}"


def campaign(place: Path, stage: str, first: int, rounds: int) -> Counter[str]:
    """So many rounds on one workshop; how often they killed at what."""
    place = place.resolve()
    place.mkdir(parents=True, exist_ok=True)
    registry = FakeRegistry()
    image(registry, stage, -2)
    if stage == "convert":
        assert answer(lambda: bring(place / "dry", registry))
        image(registry, stage, -3)
    events = struck(place / "dry", registry, stage, 0, 0.0)
    assert len(set(events)) > 3
    struck_at = Counter[str]()
    for number in range(first, first + rounds):
        struck_at[one_round(place / "workshop", stage, number, events)] += 1
        if number % KEPT_ROUNDS == 0:
            shutil.rmtree(place / "workshop")
    return struck_at


if __name__ == "__main__":
    struck_at = campaign(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    print(f"{sys.argv[2]}: {struck_at.total()} kills")
    for event, count in struck_at.most_common():
        print(f"{count:6} {event}")
