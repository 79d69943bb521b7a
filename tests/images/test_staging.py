"""Staging plans: what reaches whom, how deep, how soon, and when a copy on each node is worth it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.broadcast import Errand, Outcome, errand_files, outcome_of, preamble
from images.pools import NodePool, PrePull, ToMachines, pool_plans, region_plan
from images.programs import relay
from images.staging import (
    CHUNK_BYTES_LIMITS,
    Policy,
    RelayPlan,
    SbcastPlan,
    Shape,
    SiteFacts,
    Use,
    chunk_bytes,
    delivery,
    depth,
    local_plan,
    parents,
    plan_s,
    sbcast_argv,
    sbcast_rounds,
    shape_of,
    shared_s,
    topology_order,
)
from scheduler.model.errors import SpecInvalid

GB, GBIT_S = 10**9, 125_000_000
DIGEST = "sha256:" + "ab" * 32
MEASURED = SiteFacts(
    link_bytes_per_s=10 * GBIT_S,
    shared_bytes_per_s=40 * GBIT_S,
    local_free_bytes=100 * GB,
    policy=Policy.AUTO,
)
MANY = Use(digest=DIGEST, size_bytes=4 * GB, nodes=64)


# -- who passes it on to whom ----------------------------------------------------------------------------------------


@given(st.integers(1, 600), st.sampled_from(Shape))
def test_every_node_gets_the_image_exactly_once(nodes, shape):
    above = parents(nodes, shape)
    assert len(above) == nodes
    assert above[0] is None
    assert all(0 <= parent < position for position, parent in enumerate(above) if position)


@given(st.integers(1, 600))
def test_a_tree_is_binary_and_no_deeper_than_it_must_be(nodes):
    above = parents(nodes, Shape.TREE)
    assert max((above.count(parent) for parent in range(nodes)), default=0) <= 2
    assert depth(above) == nodes.bit_length() - 1


@given(st.integers(1, 200), st.sampled_from(Shape))
def test_the_nodes_below_one_are_neighbours_in_the_order(nodes, shape):
    above = parents(nodes, shape)
    below: dict[int, list[int]] = {position: [position] for position in range(nodes)}
    for position in range(nodes - 1, 0, -1):
        below[above[position]] += below[position]
    assert all(sorted(group) == list(range(min(group), max(group) + 1)) for group in below.values())


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(0, 5))
def test_a_chain_leaves_each_switch_once(sizes, spares):
    switches = [[f"s{switch}n{node}" for node in range(size)] for switch, size in enumerate(sizes)]
    spare = [name for switch in switches for name in switch][:: max(1, sum(sizes) // (spares or sum(sizes)))][:spares]
    order = topology_order(switches, spare)
    assert sorted(order) == sorted(name for switch in switches for name in switch)
    assert set(order[len(order) - len(spare) :]) == set(spare)
    on_switch = [name.split("n")[0] for name in order[: len(order) - len(spare)]]
    changes = sum(one != other for one, other in pairwise(on_switch))
    assert changes == max(0, len(set(on_switch)) - 1)


@given(st.integers(1, 2**36), st.integers(1, 4096))
def test_chunks_are_within_their_limits_and_a_chain_of_them_fills_soon(size, nodes):
    least, most = CHUNK_BYTES_LIMITS
    length = chunk_bytes(size, nodes)
    assert least <= length <= most
    if shape_of(size, nodes) is Shape.CHAIN and nodes > 2:
        assert nodes * length <= size / 4


@pytest.mark.parametrize(
    ("size_bytes", "nodes", "shape"),
    [(4 * GB, 8, Shape.CHAIN), (4 * GB, 512, Shape.CHAIN), (100_000_000, 4096, Shape.TREE), (1, 2, Shape.CHAIN)],
)
def test_a_chain_while_it_fills_soon_and_else_a_tree(size_bytes, nodes, shape):
    assert shape_of(size_bytes, nodes) is shape


# -- how soon --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "shape", "bound"),
    [(8, Shape.CHAIN, 3.22), (64, Shape.CHAIN, 3.40), (64, Shape.TREE, 6.4), (512, Shape.TREE, 6.4)],
)
def test_times_are_those_of_the_model(nodes, shape, bound):
    """4 GB over 10 Gbit/s in chunks of 4 MB, as exact recurrences give it, and the start of the relay."""
    plan = RelayPlan(
        digest=DIGEST, size_bytes=4 * GB, shape=shape, chunk_bytes=4_000_000, parents=parents(nodes, shape)
    )
    assert plan_s(plan, MEASURED) - 1.5 == pytest.approx(bound, rel=0.02)


def test_a_slow_disk_counts_where_it_is_slower_than_the_link():
    slow = replace(MEASURED, disk_bytes_per_s=GBIT_S)
    assert plan_s(local_plan(MANY, slow), slow) > 32


@pytest.mark.parametrize(("fanout", "bound"), [(8, 25.6 / 3.2), (2, 16 / 3.2)])
def test_a_broadcast_of_slurm_is_counted_in_passes_of_the_busiest_link(fanout, bound):
    assert sbcast_rounds(9 if fanout == 8 else 8, fanout) >= bound


@given(st.integers(1, 10**6), st.sampled_from((2, 3, 8)))
def test_the_levels_of_a_broadcast_hold_all_nodes(nodes, fanout):
    assert fanout ** (sbcast_rounds(nodes, fanout) // fanout) >= nodes


def test_what_is_read_from_the_shared_file_system_shares_its_rate():
    assert shared_s(replace(MANY, nodes=1), MEASURED) == pytest.approx(3.2)
    assert shared_s(replace(MANY, touched_bytes=GB), MEASURED) == pytest.approx(64 / 5)
    assert shared_s(MANY, SiteFacts()) == 0


# -- where to read from ----------------------------------------------------------------------------------------------


def test_many_nodes_get_a_copy_each_where_that_is_quicker():
    chosen = delivery(MANY, MEASURED)
    assert isinstance(chosen.local, RelayPlan)
    assert chosen.local.shape is Shape.CHAIN
    assert chosen.why == "5 s by a copy on each node, 51 s from the shared file system"


@pytest.mark.parametrize(
    ("use", "site", "why"),
    [
        ({}, {"policy": Policy.SHARED}, "the site reads images"),
        ({}, {"local_free_bytes": None}, "no local disk"),
        ({}, {"local_free_bytes": None, "store_is_short": True}, "no local disk"),
        ({}, {"policy": Policy.SHARED, "store_is_short": True}, "the site reads images"),
        ({}, {"local_free_bytes": 4 * GB}, "local disks have 3814 MiB free where 4577 MiB"),
        ({"local_need_bytes": 96 * GB}, {}, "local disks have"),
        ({}, {"shared_bytes_per_s": None}, "links or shared file system"),
        ({"nodes": 31}, {}, "fewer than 32 nodes"),
        ({"touched_bytes": GB // 100}, {}, "0 s from the shared"),
        ({}, {"policy": Policy.LOCAL, "local_free_bytes": 0}, "local disks have"),
    ],
)
def test_the_stores_own_file_is_read_where_a_copy_does_not_pay(use, site, why):
    chosen = delivery(replace(MANY, **use), replace(MEASURED, **site))
    assert chosen.local is None
    assert chosen.why.startswith(why)


@pytest.mark.parametrize(
    ("use", "site"),
    [
        ({"nodes": 8, "is_read_again": True}, {}),
        ({"nodes": 2}, {"policy": Policy.LOCAL}),
        ({"nodes": 1}, {"store_is_short": True}),
        ({"nodes": 1}, {"store_is_short": True, "link_bytes_per_s": None}),
    ],
)
def test_few_nodes_get_a_copy_where_they_read_it_often_or_the_owner_says_so_or_the_store_is_short(use, site):
    assert delivery(replace(MANY, **use), replace(MEASURED, **site)).local is not None


def test_where_no_relay_may_run_slurm_broadcasts():
    chosen = delivery(MANY, replace(MEASURED, relay_allowed=False))
    assert chosen.local == SbcastPlan(digest=DIGEST, size_bytes=4 * GB, fanout_nodes=2, pass_count=12)
    assert chosen.expected_s == pytest.approx(12 * 3.2)


# -- what a job carries ----------------------------------------------------------------------------------------------

ERRAND = Errand(
    folder="/home/it's mine/jobs/1",
    source="/store/blobs/sha256/ab",
    destination="/local disk/berth/image",
    index="4 " + "0" * 64 + "\n",
    order=("n2", "n1"),
    link_bytes_per_s=GBIT_S,
)
TOKEN = "5" * 64


def test_the_instructions_are_what_the_relay_understands(tmp_path):
    plan = local_plan(MANY, MEASURED)
    files = {file.path.removeprefix(ERRAND.folder + "/"): file for file in errand_files(plan, ERRAND, TOKEN)}
    told = json.loads(files["relay.json"].content)
    assert told.keys() <= relay.FIELDS.keys()
    assert {name for name, default in relay.FIELDS.items() if default is relay.REQUIRED} <= told.keys()
    assert (told["digest"], told["order"], told["least_bytes_per_s"]) == (DIGEST, ["n2", "n1"], GBIT_S // 10)
    assert all(file.mode & 0o077 == 0 for file in files.values())


def test_the_token_is_in_its_own_file_alone():
    plan = local_plan(MANY, MEASURED)
    holders = [file.path for file in errand_files(plan, ERRAND, TOKEN) if TOKEN.encode() in file.content]
    assert holders == [ERRAND.folder + "/token"]
    assert TOKEN not in preamble(plan, ERRAND)


@pytest.mark.parametrize("token", ["", "5" * 63, "g" * 64])
def test_a_weak_token_is_refused(token):
    with pytest.raises(SpecInvalid, match="token"):
        errand_files(local_plan(MANY, MEASURED), ERRAND, token)


@pytest.mark.parametrize("path", ["", "relative", "/", "/a\nb", "/a//b", "/a\0b"])
@pytest.mark.parametrize("field", ["folder", "source", "destination"])
def test_a_path_that_is_none_is_refused(field, path):
    with pytest.raises(SpecInvalid, match=field):
        replace(ERRAND, **{field: path})


FAKES = """
srun() { while case $1 in --*) true;; *) false;; esac; do shift; done; echo "srun: $*"; "$1" "${@:2}"; }
python3() { echo "relay: $*"; return $RELAY; }
scontrol() { echo n1; }
sbcast() { echo "sbcast: $*"; cp "${@: -2:1}" "${@: -1}"; }
"""


@pytest.mark.parametrize(
    ("relay_exit", "content", "ends_well"), [(0, b"", True), (5, b"the image", True), (5, b"another", False)]
)
def test_what_the_relay_cannot_do_slurm_does_and_only_a_right_copy_gets_its_name(
    tmp_path, relay_exit, content, ends_well
):
    (tmp_path / "job $1").mkdir()
    (tmp_path / "store").write_bytes(content)
    digest = "sha256:" + hashlib.sha256(b"the image").hexdigest()
    errand = replace(
        ERRAND,
        folder=str(tmp_path / "job $1"),
        source=str(tmp_path / "store"),
        destination=str(tmp_path / "lo'cal" / "image"),
    )
    plan = local_plan(replace(MANY, digest=digest), MEASURED)
    script = FAKES + preamble(plan, errand)
    done = subprocess.run(["bash", "-c", script], env={"RELAY": str(relay_exit), "PATH": "/usr/bin:/bin"}, timeout=60)
    assert (done.returncode == 0) is ends_well
    image = tmp_path / "lo'cal" / "image"
    assert image.exists() is (relay_exit != 0 and ends_well)
    if image.exists():
        assert image.read_bytes() == b"the image"


def test_slurms_broadcast_is_not_compressed_and_waits_for_slow_links():
    argv = sbcast_argv("/store/image", "/local/image", 2, 8 * 2**20)
    assert argv[:1] + argv[-2:] == ["sbcast", "/store/image", "/local/image"]
    assert {"--compress=none", "--fanout=2", "--size=8192k", "--timeout=300", "--force"} <= set(argv)


@pytest.mark.parametrize(
    ("nodes", "link_mbit_s", "said"),
    [
        (8, 50, "--size=8192k"),  # got through when it was measured
        (16, 25, "--size=512k"),  # was given up with 8 MiB
        (32, 12.5, "--size=512k"),  # likewise, and got through with this
        (1000, 1000, "--size=8192k"),
        (32, None, "--size=8192k"),
    ],
)
@pytest.mark.parametrize("relay_allowed", [True, False], ids=["as the fallback", "alone"])
def test_blocks_of_slurms_broadcast_are_short_where_links_are_slow(nodes, link_mbit_s, said, relay_allowed):
    link_bytes_per_s = link_mbit_s and link_mbit_s * 125_000
    plan = local_plan(replace(MANY, nodes=nodes), replace(MEASURED, relay_allowed=relay_allowed))
    lines = preamble(plan, replace(ERRAND, link_bytes_per_s=link_bytes_per_s))
    assert re.findall(r"--size=\w+", lines) == [said]


# -- pools and regions -----------------------------------------------------------------------------------------------

ARM = "sha256:" + "cd" * 32
BOTH = {"amd64": DIGEST, "arm64": ARM}


@pytest.mark.parametrize(
    ("way", "nodes", "waves"),
    [
        (PrePull.PODS, 7, (3, 3, 1)),
        (PrePull.PODS, 6, (3, 3)),
        (PrePull.NEIGHBOURS, 40, (1, 39)),
        (PrePull.NEIGHBOURS, 1, (1,)),
        (PrePull.PREHEAT, 40, (40,)),
        (PrePull.PODS, 0, ()),
    ],
)
def test_a_pool_is_filled_in_waves_that_its_registry_bears(way, nodes, waves):
    (plan,) = pool_plans("ghcr.io/lab/app", BOTH, [NodePool(name="a", architecture="amd64", nodes=nodes, way=way)])
    assert (plan.waves, plan.reference) == (waves, f"ghcr.io/lab/app@{DIGEST}")
    assert sum(plan.waves) == nodes


def test_each_pool_gets_the_manifest_of_its_architecture_and_none_twice():
    pools = [
        NodePool(name="arm", architecture="arm64", nodes=2),
        NodePool(name="warm", architecture="arm64", nodes=2, has_digests=frozenset({ARM})),
        NodePool(name="power", architecture="ppc64le", nodes=2),
    ]
    arm, warm, power = pool_plans("app", BOTH, pools)
    assert (arm.reference, arm.waves) == (f"app@{ARM}", (2,))
    assert (warm.waves, warm.refusal) == ((), "")
    assert power.refusal == "the image is for amd64, arm64, the pool is ppc64le"


@pytest.mark.parametrize(
    ("nodes", "way"), [(1, ToMachines.FETCH), (2, ToMachines.RELAY), (8, ToMachines.RELAY), (9, ToMachines.SNAPSHOT)]
)
def test_an_image_crosses_into_a_region_once(nodes, way):
    first = region_plan(DIGEST, GB, "eu-1", nodes, has_it=False)
    again = region_plan(DIGEST, GB, "eu-1", nodes, has_it=True)
    assert (first.copy_bytes, again.copy_bytes) == (GB, 0)
    assert first.delivery is again.delivery is way
    assert first.key == "blobs/sha256/" + "ab" * 32


@pytest.mark.parametrize(
    ("report", "outcome"),
    [
        (
            'srun: job 7 queued\n{"node": "n1", "outcome": "ok", "ready_s": 2.5, "bytes_in": {"source": 9}}\n'
            '{"node": "n2", "outcome": "ok", "ready_s": 4.0, "bytes_in": {"n1": 9}}\n'
            '{"read_from": "copies", "restarts": 2}\n',
            Outcome(read_from="copies", nodes=2, ready_s=4.0, moved_bytes=18, troubles={}, restarts=2),
        ),
        (
            '{"node": "n1", "outcome": "ok", "ready_s": 2.5, "bytes_in": {}}\n'
            '{"node": "n2", "outcome": "no_space", "why": "full"}\n{"read_from": "store"}\n',
            Outcome(read_from="store", nodes=1, ready_s=None, moved_bytes=0, troubles={"n2": "no_space: full"}),
        ),
        (
            '{"node": "n1", "outcome": "cannot_write"}\n{"node": "n1", "outcome": "ok", "ready_s": 1}\n',
            Outcome(read_from="", nodes=1, ready_s=1, moved_bytes=0, troubles={}),
        ),
        (
            '{"read_from": 5}\n[]\n{"node": 1}\n{"a"\n',
            Outcome(read_from="", nodes=0, ready_s=None, moved_bytes=0, troubles={}),
        ),
    ],
    ids=["all have copies", "a node has none", "a second try", "no report"],
)
def test_a_report_tells_what_came_of_a_broadcast(report, outcome):
    assert outcome_of(report) == outcome
