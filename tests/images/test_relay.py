"""The relay on its good days: every node ends with the image, and each link carries it once."""

from __future__ import annotations

import ast
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from images.programs.relay import EXITS, FIELDS, IN_USE_S, KEPT_S, Copy, Pace
from tests.fakes.relays import PROGRAM, TREE_OF_7, Fleet, chain


@pytest.fixture
def fleet(tmp_path):
    fleets = []

    def make(parents, **fields):
        fleets.append(Fleet(tmp_path, parents, **fields))
        return fleets[-1]

    yield make
    for each in fleets:
        each.close()


def test_the_program_is_one_file_for_python_3_6():
    tree = ast.parse(PROGRAM.read_text(), feature_version=(3, 6))
    imported = {
        name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not imported & {"images", "scheduler", "dataclasses", "asyncio"}


@pytest.mark.parametrize("parents", [chain(1), chain(4), TREE_OF_7], ids=["alone", "chain", "tree"])
def test_every_node_gets_the_image_once_from_its_parent(fleet, parents):
    nodes = fleet(parents)
    nodes.start_all()
    size = len(nodes.content)
    for position, said in nodes.outcomes().items():
        above = "source" if parents[position] is None else f"n{parents[position]}"
        below = {f"n{child}": size for child, parent in enumerate(parents) if parent == position}
        assert (said["outcome"], said["exit"]) == ("ok", 0)
        assert (said["bytes_in"], said["bytes_out"]) == ({above: size}, below)
        assert (said["skipped"], said["unheard"], said["strangers"]) == ([], [], 0)
        assert nodes.has_image(position)
        assert nodes.leftovers(position) == []
    assert list(nodes.meeting.iterdir()) == []


def test_the_same_image_again_moves_no_byte(fleet):
    nodes = fleet(chain(3))
    nodes.start_all()
    nodes.outcomes()
    before = [nodes.image(position).stat().st_ino for position in range(3)]
    nodes.start_all()
    for said in nodes.outcomes().values():
        assert said["outcome"] == "ok"
        assert sum(said["bytes_in"].values()) == sum(said["bytes_out"].values()) == 0
    assert [nodes.image(position).stat().st_ino for position in range(3)] == before


def test_a_file_of_that_name_is_kept_only_if_it_is_the_image(fleet):
    nodes = fleet(chain(3))
    for position, content in ((1, nodes.content), (2, nodes.content[:-1] + b"?")):
        nodes.disk(position).mkdir(mode=0o700)
        nodes.image(position).write_bytes(content)
    nodes.start_all()
    said = nodes.outcomes()
    assert said[1]["bytes_in"] == {}
    assert said[2]["bytes_in"] == {"n1": len(nodes.content)}
    assert all(nodes.has_image(position) for position in range(3))


def test_a_proof_from_before_the_node_was_restarted_counts_no_more(fleet):
    nodes = fleet(chain(1))
    nodes.start(0)
    nodes.outcome(0)
    proof = nodes.disk(0) / ".image.sqfs.proof"
    nodes.image(0).chmod(0o600)
    kept = nodes.image(0).stat()
    nodes.image(0).write_bytes(bytes(len(nodes.content)))  # as a power cut leaves a file
    os.utime(nodes.image(0), ns=(kept.st_atime_ns, kept.st_mtime_ns))
    proof.write_text(json.dumps({**json.loads(proof.read_text()), "boot": "another"}))
    nodes.start(0)
    assert nodes.outcome(0)["bytes_in"] == {"source": len(nodes.content)}
    assert nodes.has_image(0)


def other_image(disk: Path, name: str, unused_s: float) -> tuple[Path, Path]:
    """A finished image that another relay left on a node, and its proof."""
    image, proof = disk / name, disk / f".{name}.proof"
    image.write_bytes(b"another")
    proof.write_text("{}")
    os.utime(proof, (time.time() - unused_s, time.time() - unused_s))
    return image, proof


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "there already"])
def test_images_that_nobody_used_for_long_make_room(fleet, is_there):
    nodes = fleet(chain(1))
    nodes.disk(0).mkdir(mode=0o700)
    if is_there:
        nodes.image(0).write_bytes(nodes.content)
    old, recent = other_image(nodes.disk(0), "old", KEPT_S + 60), other_image(nodes.disk(0), "recent", KEPT_S - 60)
    strange = nodes.disk(0) / "strange"
    strange.write_bytes(b"of somebody")
    os.utime(strange, (0, 0))
    nodes.start(0)
    assert nodes.outcome(0)["outcome"] == "ok"
    assert [path.exists() for path in (*old, *recent, strange)] == [False, False, True, True, True]
    assert time.time() - (nodes.disk(0) / ".image.sqfs.proof").stat().st_mtime < IN_USE_S


def test_where_room_is_scarce_the_longest_unused_go_first_and_what_may_be_in_use_stays(tmp_path, monkeypatch):
    told = SimpleNamespace(chunks=[], digest="", size_bytes=0, mode=0o600, destination=str(tmp_path / "image"))
    copy = Copy(told)
    images = {hours: other_image(tmp_path, f"unused {hours} h", hours * 3600)[0] for hours in (0.5, 2, 3, 5)}

    def there() -> list[float]:
        return [hours for hours, image in images.items() if image.exists()]

    monkeypatch.setattr(copy, "_room", lambda: 10 * (4 - len(there())))
    copy._clear(15)
    assert there() == [0.5, 2]
    copy._clear(1000)
    assert there() == [0.5]


def test_nodes_stand_in_the_order_of_the_topology_and_unnamed_ones_last(fleet):
    nodes = fleet(chain(3), order=["n2", "n0"], source="")
    nodes.fields["source"] = str(nodes.source)
    nodes.start_all()
    said = nodes.outcomes()
    assert [list(said[position]["bytes_in"]) for position in (2, 0, 1)] == [["source"], ["n2"], ["n0"]]


def test_the_finished_file_is_its_owners_alone_unless_told_otherwise(fleet):
    nodes = fleet(chain(1))
    nodes.start(0)
    nodes.outcome(0)
    assert nodes.image(0).stat().st_mode & 0o777 == 0o400


def test_index_and_nodes_can_come_from_files(fleet, tmp_path):
    nodes = fleet(chain(2))
    index = tmp_path / "index"
    index.write_text(nodes.index_text())
    (tmp_path / "peers").write_text("n0\nn1\n")
    files = {"index_path": str(index), "index_digest": nodes.digest_of(index), "peers_path": str(tmp_path / "peers")}
    nodes.fields = {"index": None, "peers": None, **files}
    nodes.start_all()
    assert [said["outcome"] for said in nodes.outcomes().values()] == ["ok", "ok"]
    index.write_text(nodes.index_text().replace("4096", "4095", 1))
    nodes.start(0)
    assert "index_path" in nodes.outcome(0)["why"]


@pytest.mark.parametrize(
    ("fields", "outcome", "field"),
    [
        ({"colour": "red"}, "bad_instructions", "colour"),
        ({"digest": None}, "bad_instructions", "digest"),
        ({"digest": "sha256:../../etc"}, "bad_instructions", "digest"),
        ({"size_bytes": 1}, "bad_instructions", "index"),
        ({"index": [[4096, "00"]]}, "bad_instructions", "index"),
        ({"index": None}, "bad_instructions", "index"),
        ({"peers": ["n0", "n0"]}, "bad_instructions", "peers"),
        ({"peers": ["n8", "n9"], "me": "n0"}, "bad_instructions", "peers"),
        ({"parents": [None]}, "bad_instructions", "parents"),
        ({"parents": [None, 1]}, "bad_instructions", "parents"),
        ({"parents": [0, 0]}, "bad_instructions", "parents"),
        ({"token_path": "/dev/null"}, "bad_token", "token_path"),
        ({"token_path": "/nowhere/token"}, "bad_token", "token_path"),
        ({"destination": "/tmp/image.sqfs"}, "bad_destination", "destination"),
        ({"source": "/nowhere/image"}, "no_source", "source"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_name_of_the_field(fleet, fields, outcome, field):
    nodes = fleet(chain(2))
    nodes.start(0, **fields)
    said = nodes.outcome(0)
    assert (said["outcome"], said["exit"]) == (outcome, EXITS[outcome])
    assert said["why"].startswith(field)


def test_a_token_that_others_may_read_is_refused(fleet):
    nodes = fleet(chain(1))
    nodes.token.chmod(0o640)
    nodes.start(0)
    assert nodes.outcome(0)["outcome"] == "bad_token"


def test_the_token_is_in_nothing_that_a_relay_says_or_leaves(fleet):
    nodes = fleet(chain(2))
    nodes.start_all()
    written = json.dumps(nodes.outcomes()).encode()
    for position in range(2):
        written += b"".join(path.read_bytes() for path in nodes.disk(position).iterdir())
    assert nodes.token.read_bytes() not in written


def test_every_outcome_has_an_exit_status_of_its_own():
    assert len(set(EXITS.values())) == len(EXITS)
    assert {name for name in FIELDS if name.endswith("_s")} >= {"start_s", "stall_s", "give_up_s"}


@pytest.mark.parametrize(
    ("mine_bytes", "theirs_bytes", "above_them_bytes", "slow_after_s"),
    [
        ([0, 10, 20, 30, 40, 50, 60], 100, 100, 2),  # the parent has more, and it does not come
        ([0, 10, 20, 30, 40, 50, 60], 0, 100, 6),  # the parent lags behind its own, and had its chance
        ([0, 10, 20, 30, 40, 50, 60], 0, 62, None),  # there is no more to be had yet
        ([0, 60, 120, 180, 240, 300, 360], 999, 999, None),  # it comes
    ],
)
def test_a_parent_is_slow_only_if_more_could_have_come(mine_bytes, theirs_bytes, above_them_bytes, slow_after_s):
    pace = Pace(least_bytes_per_s=50, patience_s=2, lag_bytes=5)
    slow = [pace.is_slow(at, mine, theirs_bytes, above_them_bytes) for at, mine in enumerate(mine_bytes)]
    assert (slow.index(True) if True in slow else None) == slow_after_s
