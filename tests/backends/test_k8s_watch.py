"""The reflection of a cluster's objects: what a list and the events after it tell, and when it must be listed again."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backends.k8s.api import Event, HistoryGone, Listed, parse_event, parse_version
from backends.k8s.watch import FIRST_PAUSE_S, LONGEST_PAUSE_S, RELIST_S, Reflection, Reflector, pause_s
from scheduler.model.errors import BackendUnavailable, UnexpectedReply

DATA = Path(__file__).parent.parent / "data/k8s/v1.36"
LABELS = {"app": "berth"}


def events(name: str = "jobs") -> list[Event]:
    return [parse_event(line) for line in (DATA / f"{name}.watch.jsonl").read_text().splitlines()]


def one(name: str, version: str) -> dict:
    return {"metadata": {"name": name, "resourceVersion": version}}


def test_a_recorded_stream_leaves_what_was_there_at_its_end():
    seen = Reflection()
    seen.take(Listed([], "0"))
    for event in events():
        seen.apply(event)
    assert set(seen.objects) == {
        f"berth-{name}-1" for name in ("ok", "fail", "array", "suspended", "toolarge", "deadline")
    }
    assert seen.version == "383", "a bookmark moves the version although no object of ours changed"
    assert seen.objects["berth-ok-1"]["status"]["succeeded"] == 1


def test_a_stream_cut_anywhere_and_listed_again_ends_the_same():
    whole = Reflection()
    whole.take(Listed([], "0"))
    for event in events("pods"):
        whole.apply(event)
    for cut in range(0, len(events("pods")), 7):
        seen = Reflection()
        seen.take(Listed([], "0"))
        for event in events("pods")[:cut]:
            seen.apply(event)
        seen.forget()
        seen.take(Listed(list(whole.objects.values()), str(whole.version)))
        assert seen.objects == whole.objects


def test_an_event_of_an_unknown_kind_is_not_guessed_at():
    seen = Reflection()
    with pytest.raises(UnexpectedReply):
        seen.apply(Event("RENAMED", one("a", "1")))


def test_a_line_says_that_history_is_gone_or_that_the_server_gave_up():
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version: 1 (240)"}}
    with pytest.raises(HistoryGone, match="too old"):
        parse_event(json.dumps(gone))
    with pytest.raises(BackendUnavailable):
        parse_event(json.dumps({"type": "ERROR", "object": {"code": 500, "message": "etcd"}}))
    with pytest.raises(UnexpectedReply):
        parse_event('{"type":"ADDED","obj')


def test_versions_of_servers_and_of_vendors_are_read():
    assert parse_version(json.loads((DATA / "version.json").read_text())) == ("v1.36.2", (1, 36))
    assert parse_version({"major": "1", "minor": "28+", "gitVersion": "v1.28.3-eks-4f4795d"})[1] == (1, 28)
    with pytest.raises(UnexpectedReply):
        parse_version({"gitVersion": "soon"})


@dataclass
class ScriptedServer:
    """Lists and watches as they were written down; each watch is some events and then an error, or an end."""

    lists: list[Listed]
    watches: list[tuple[list[Event], Exception | None]]
    asked: list[str] = field(default_factory=list)

    async def list(self, kind, labels) -> Listed:
        self.asked.append("list")
        return self.lists.pop(0)

    async def watch(self, kind, labels, version, timeout_s) -> AsyncIterator[Event]:
        self.asked.append(f"watch {version}")
        told, error = self.watches.pop(0)
        for event in told:
            yield event
        if error is not None:
            raise error


async def test_the_next_watch_goes_on_from_where_the_last_one_ended():
    server = ScriptedServer(
        [Listed([one("a", "3")], "5")],
        [
            ([Event("ADDED", one("b", "7")), Event("BOOKMARK", {"metadata": {"resourceVersion": "9"}})], None),
            ([], None),
        ],
    )
    reflector = Reflector(server, "jobs", LABELS)
    await reflector.follow_once()
    await reflector.follow_once()
    assert server.asked == ["list", "watch 5", "watch 9"]
    assert set(reflector.objects) == {"a", "b"}


@pytest.mark.parametrize("error", [HistoryGone("410"), BackendUnavailable("cut"), UnexpectedReply("odd")])
async def test_whatever_goes_wrong_makes_a_list_due_and_what_is_gone_meanwhile_is_forgotten(error):
    server = ScriptedServer(
        [Listed([one("a", "3")], "5"), Listed([one("b", "8")], "9")],
        [([], error), ([Event("ADDED", one("c", "10"))], None)],
    )
    reflector = Reflector(server, "jobs", LABELS)
    with pytest.raises(type(error)):
        await reflector.follow_once()
    assert set(reflector.objects) == {"a"}, "what was known stays until the next list"
    await reflector.follow_once()
    assert server.asked == ["list", "watch 5", "list", "watch 9"]
    assert set(reflector.objects) == {"b", "c"}


async def test_everything_is_listed_again_now_and_then():
    now = [0.0]
    server = ScriptedServer([Listed([], "5"), Listed([], "6")], [([], None), ([], None)])
    reflector = Reflector(server, "jobs", LABELS, monotonic=lambda: now[0])
    await reflector.follow_once()
    now[0] = RELIST_S
    await reflector.follow_once()
    assert server.asked == ["list", "watch 5", "list", "watch 6"]


async def test_it_counts_as_live_only_while_a_watch_is_open():
    lives = []

    class Server(ScriptedServer):
        async def watch(self, kind, labels, version, timeout_s) -> AsyncIterator[Event]:
            lives.append(reflector.is_live)
            yield Event("ADDED", one("b", "7"))

    reflector = Reflector(Server([Listed([], "5")], []), "jobs", LABELS)
    assert not reflector.is_live
    await reflector.follow_once()
    assert lives == [True]
    assert not reflector.is_live


async def test_the_task_outlives_errors_with_growing_pauses():
    pauses: list[float] = []
    done = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            done.set()
        await asyncio.sleep(0)

    cut = BackendUnavailable("cut")
    server = ScriptedServer([Listed([], "1")] * 9, [([], cut)] * 9)
    reflector = Reflector(server, "jobs", LABELS, sleep=sleep)
    reflector.start()
    reflector.start()
    await asyncio.wait_for(done.wait(), 5)
    await reflector.aclose()
    assert pauses[3] > pauses[0]
    assert not reflector.is_live


def test_pauses_double_up_to_a_limit_and_are_never_all_the_same():
    assert pause_s(0, lambda: 1.0) == FIRST_PAUSE_S
    assert pause_s(3, lambda: 1.0) == 8 * FIRST_PAUSE_S
    assert pause_s(50, lambda: 1.0) == LONGEST_PAUSE_S
    assert pause_s(50, lambda: 0.0) == LONGEST_PAUSE_S / 2
