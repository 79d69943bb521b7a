"""The relay on its bad days: who dies, stalls, dawdles or lies is passed over, and nobody ever sees a wrong file."""

from __future__ import annotations

import random
import secrets
import signal
import socket

import pytest

from images.programs.relay import EXITS
from tests.fakes.relays import FULL_DISK, KILLED_AT, LIES, SLOW, SMALL_DISK, Fleet, chain

PATIENT = {"start_s": 60, "stall_s": 60, "orphan_s": 60}
"""Longer than any of these tests takes: only what a test shortens is ever waited for."""
KILLED, HALTED = KILLED_AT.replace("{sign}", "SIGKILL"), KILLED_AT.replace("{sign}", "SIGSTOP")


@pytest.fixture
def fleet(tmp_path):
    fleets = []

    def make(parents, **fields):
        (folder := tmp_path / f"fleet{len(fleets)}").mkdir()
        fleets.append(Fleet(folder, parents, **{**PATIENT, **fields}))
        return fleets[-1]

    yield make
    for each in fleets:
        each.close()


def assert_all_have_it(nodes, said, positions):
    for position in positions:
        assert (said[position]["outcome"], said[position]["exit"]) == ("ok", 0), said[position]
        assert nodes.has_image(position)
        assert nodes.leftovers(position) == []


def test_a_killed_node_is_passed_over_and_leaves_no_file_of_the_images_name(fleet):
    nodes = fleet(chain(4))
    nodes.start_all({2: KILLED.format(chunks=9)})
    said = nodes.outcomes()
    assert_all_have_it(nodes, said, (0, 1, 3))
    assert said[2] == {"exit": -signal.SIGKILL}
    assert not nodes.image(2).exists()
    assert [one["node"] for one in said[3]["skipped"]] == ["n2"]
    assert said[3]["bytes_in"].get("n2", 0) + said[3]["bytes_in"]["n1"] == len(nodes.content)  # no chunk twice
    assert said[1]["unheard"] == ["n2"]


def test_a_killed_node_goes_on_where_it_was(fleet):
    nodes = fleet(chain(2))
    nodes.start_all({1: KILLED.format(chunks=20)})
    assert nodes.outcome(1)["exit"] == -signal.SIGKILL
    nodes.start(1)
    said = nodes.outcomes()
    assert_all_have_it(nodes, said, (0, 1))
    assert said[1]["chunks_resumed"] == 20
    assert said[0]["bytes_out"]["n1"] <= len(nodes.content) + 2 * 4096 + said[1]["bytes_in"]["n0"]


def test_what_a_killed_node_left_is_believed_only_after_a_look(fleet):
    nodes = fleet(chain(1))
    nodes.start(0, KILLED.format(chunks=20))
    nodes.outcome(0)
    with (nodes.disk(0) / ".image.sqfs.part").open("r+b") as part:
        part.seek(5 * 4096)
        part.write(b"rot")
    nodes.start(0)
    said = nodes.outcomes()
    assert_all_have_it(nodes, said, (0,))
    assert said[0]["chunks_resumed"] == 19


def test_a_first_node_that_dies_is_replaced_by_the_source_where_that_can_be_read(fleet):
    nodes = fleet(chain(3), start_s=3, orphan_s=60)
    nodes.start(0, KILLED.format(chunks=6))
    nodes.start(1, source=str(nodes.source))
    nodes.start(2)
    said = nodes.outcomes()
    assert_all_have_it(nodes, said, (1, 2))
    assert 0 < said[1]["bytes_in"]["source"] <= len(nodes.content)


def test_nodes_that_nobody_feeds_say_so(fleet):
    nodes = fleet(chain(2), start_s=2)
    nodes.start_all({0: KILLED.format(chunks=6)})
    said = nodes.outcomes()
    assert said[1]["exit"] == EXITS["no_source"]
    assert not nodes.image(1).exists()


def test_a_node_that_falls_silent_is_passed_over(fleet):
    nodes = fleet(chain(4), stall_s=3)
    nodes.start_all({1: HALTED.format(chunks=9)})
    said = {position: nodes.outcome(position) for position in (2, 3, 0)}
    assert_all_have_it(nodes, said, (0, 2, 3))
    assert "silent" in said[2]["skipped"][0]["why"]
    assert said[3]["skipped"] == []


def test_nobody_depends_on_a_slow_node(fleet):
    nodes = fleet(chain(4), chunks=200, patience_s=1, least_bytes_per_s=16_000)
    nodes.start_all({1: SLOW.format(pause_s=1)})
    said = nodes.outcomes()
    assert_all_have_it(nodes, said, range(4))
    assert said[2]["skipped"] == [{"node": "n1", "why": "is slow"}]
    assert (said[1]["skipped"], said[3]["skipped"]) == ([], [])


def test_a_stranger_is_dropped_and_counted_and_learns_nothing(fleet):
    nodes = fleet(chain(2))
    nodes.start(0)
    address = nodes.address_of(0)
    for said in (b"GET / HTTP/1.1\r\n\r\n".ljust(68), bytes(3), bytes(68)):
        with socket.create_connection(address) as stranger:
            greeting = stranger.recv(100)
            stranger.sendall(said)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(100) == b""  # not even a proof of the token
        assert len(greeting) == 46
    nodes.start(1)
    said = nodes.outcomes()
    assert_all_have_it(nodes, said, (0, 1))
    assert said[0]["strangers"] == 3


def test_a_node_with_another_token_gets_nothing(fleet, tmp_path):
    nodes = fleet(chain(2), start_s=1, orphan_s=1)
    other = tmp_path / "other-token"
    other.touch(0o600)
    other.write_text(secrets.token_hex(32))
    nodes.start(0)
    nodes.start(1, token_path=str(other))
    said = nodes.outcomes()
    assert said[1]["exit"] == EXITS["no_source"]
    assert said[0]["bytes_out"] == {}
    assert said[0]["strangers"] >= 1


def test_a_node_takes_nothing_from_one_that_is_not_above_it(fleet):
    """Node 1 names node 2 as its parent, which is not what the others were told."""
    nodes = fleet([None, 0, 0], start_s=1, orphan_s=1)
    nodes.start(0)
    nodes.start(2)
    nodes.start(1, peers=["n0", "n2", "n1"], parents=[None, 0, 1])
    said = nodes.outcomes()
    assert_all_have_it(nodes, said, (0, 2))
    assert "n2" not in said[1]["bytes_in"]


@pytest.mark.parametrize("times", [1, 99])
def test_a_wrong_chunk_is_never_kept(fleet, times):
    """A wire that errs once is tried again; one who lies twice is passed over."""
    nodes = fleet(chain(4))
    nodes.start_all({1: LIES.format(times=times)})
    said = nodes.outcomes()
    assert_all_have_it(nodes, said, range(4))
    assert said[2]["skipped"] == [{"node": "n1", "why": "gave a wrong chunk"}]
    assert said[2]["chunks_refused"] == min(times, 2)
    assert ("n0" in said[2]["bytes_in"]) is (times > 1)


def test_a_source_that_is_not_the_image_comes_to_nothing(fleet):
    nodes = fleet(chain(2), start_s=1)
    index = nodes.index_text().splitlines()
    nodes.source.write_bytes(b"?" + nodes.content[1:])
    told = [(int(length), digest) for length, digest in map(str.split, index)]
    for position in range(2):
        nodes.start(position, index=told)
    said = nodes.outcomes()
    assert said[0]["exit"] == EXITS["corrupt"]
    assert said[1]["exit"] == EXITS["no_source"]
    assert not any(nodes.image(position).exists() for position in range(2))


def test_an_index_that_is_not_the_images_comes_to_nothing(fleet):
    nodes = fleet(chain(1), digest="sha256:" + "0" * 64)
    nodes.start(0)
    said = nodes.outcome(0)
    assert (said["exit"], nodes.leftovers(0)) == (EXITS["corrupt"], [])
    assert not nodes.image(0).exists()


@pytest.mark.parametrize("disk", [SMALL_DISK, FULL_DISK], ids=["from the start", "on the way"])
def test_a_full_disk_ends_only_its_own_node(fleet, disk):
    nodes = fleet(chain(3), start_s=3)
    nodes.start_all({1: disk.format(limit_bytes=50_000)})
    said = nodes.outcomes()
    assert_all_have_it(nodes, said, (0, 2))
    assert said[1]["exit"] == EXITS["no_space"]
    assert "destination" in said[1]["why"]
    assert list(nodes.disk(1).iterdir()) == []


def test_two_relays_of_one_image_on_one_node_do_no_harm(fleet):
    nodes = fleet([None, 0, 0])
    nodes.start(0)
    for position in (1, 2):
        nodes.start(position, destination=str(nodes.image(1)))
    said = nodes.outcomes()
    assert [said[position]["outcome"] for position in range(3)] == ["ok"] * 3
    assert nodes.has_image(1)
    assert nodes.leftovers(1) == []


def one_round(nodes, seed):
    """Kill one node at a random chunk and start it again, while another may lie or dawdle; all have the image.

    It may come back when the others have gone already, so it must see the source, as on a shared file system.
    """
    nodes.fields["source"] = str(nodes.source)
    chance = random.Random(seed)
    victim, other = chance.sample(range(1, len(nodes.parents)), 2)
    tweak = chance.choice(["", LIES.format(times=chance.choice([1, 99])), SLOW.format(pause_s=0.01)])
    chunks = chance.randrange(1, 24)
    nodes.start_all({victim: KILLED.format(chunks=chunks), other: tweak})
    assert nodes.outcome(victim)["exit"] == -signal.SIGKILL
    assert not nodes.image(victim).exists()
    nodes.start(victim, start_s=3, orphan_s=1)
    said = nodes.outcomes()
    assert_all_have_it(nodes, said, range(len(nodes.parents)))
    assert said[victim]["chunks_resumed"] >= chunks
    taken = sum(said[victim]["bytes_in"].values())
    assert taken <= len(nodes.content) - (chunks - 2 - said[victim]["chunks_refused"]) * 4096


@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_any_chunk_is_repaired(fleet, seed):
    one_round(fleet([[None, 0, 1], [None, 0, 0]][seed % 2]), seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1080))
def test_a_kill_at_any_chunk_is_repaired_in_larger_trees(fleet, seed):
    one_round(fleet([chain(6), [None, 0, 1, 1, 0, 4]][seed % 2]), seed)
