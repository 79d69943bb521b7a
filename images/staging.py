"""How an image reaches the nodes of a job: once to the site's store, and from there to local disks where that pays.

Pure: sizes, rates and names in; seconds, shapes and plans out. ``programs/relay.py`` carries them out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, inf, log

CHUNK_BYTES_LIMITS = (64 * 2**10, 4 * 2**20)
FILL_SHARE = 1 / 48
"""How much of the time over one link a chain may take to fill: each further node waits for one more chunk."""
CHAIN_SHARE = 1 / 4
"""A chain that fills longer than this share of the time over one link is worse than a tree."""
RELAY_START_S = 1.5
"""From the call of ``srun`` to the first byte; measured on small clusters, where it took 0.3 to 1 s."""
LOCAL_SPACE = 1.2
"""Free local space, in images, that a copy asks for beside what the job itself needs."""
LOCAL_NODES = 32
"""From so many nodes on a local copy pays even where each node reads the image once."""
SBCAST_FANOUTS = (2, 3)
SBCAST_BLOCKS_BYTES = (512 * 2**10, 8 * 2**20)
"""Where links are slow, and Slurm's own choice for all others."""
SBCAST_BLOCK_S = 10.0
"""Longer through the tree, and a block is given up: seen at 21 s and more, not at 8 s, as Slurm's messages."""


class Shape(StrEnum):
    """Who passes the image on to whom."""

    CHAIN = "chain"
    TREE = "tree"


class Policy(StrEnum):
    """Where a site wants images read from: its owner's word, per system."""

    SHARED = "shared"
    LOCAL = "local"
    AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    """What a site's links and disks carry, in bytes per second; None where nobody has measured."""

    link_bytes_per_s: float | None = None
    """Of one node, each way."""
    shared_bytes_per_s: float | None = None
    """Of the shared file system, to all nodes of a job together."""
    disk_bytes_per_s: float = inf
    """Of a node's local disk, written."""
    local_free_bytes: int | None = None
    """On the local disk that is allowed for images; None: there is none, or nobody has looked."""
    policy: Policy = Policy.SHARED
    store_is_short: bool = False
    """Whether the store wants its room back as soon as nodes have copies (``images.claims``)."""
    relay_allowed: bool = True
    """Whether nodes have Python 3.6 and may open ports to each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One job's use of one image file in the store. touched_bytes: what each node really reads of it."""

    digest: str
    size_bytes: int
    nodes: int
    touched_bytes: int | None = None
    local_need_bytes: int = 0
    """What the job itself wants to keep on the local disk."""
    is_read_again: bool = False
    """By many short tasks on each node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayPlan:
    """The image goes from node to node. parents: by position in the order of the nodes, None for the first."""

    digest: str
    size_bytes: int
    shape: Shape
    chunk_bytes: int
    parents: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SbcastPlan:
    """Slurm's own broadcast sends the image; whether it arrived whole must be checked afterwards."""

    digest: str
    size_bytes: int
    fanout_nodes: int
    pass_count: int
    """How often the image passes the busiest link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How the nodes of one job read an image. local None: all of them from the store itself; why is for people."""

    local: RelayPlan | SbcastPlan | None
    expected_s: float
    why: str


# -- where to read from ----------------------------------------------------------------------------------------------


def delivery(use: Use, site: SiteFacts) -> Delivery:
    """The store's file for all nodes, or a copy on each: by the site's policy, and by the model where that is auto."""
    shared = shared_s(use, site)
    local = local_plan(use, site)
    local_s = plan_s(local, site)
    stays = Delivery(local=None, expected_s=shared, why="")
    if site.policy is Policy.SHARED:
        return _because(stays, "the site reads images from its shared file system")
    if site.local_free_bytes is None:
        return _because(stays, "no local disk for images is known there")
    asked_bytes = ceil(LOCAL_SPACE * use.size_bytes) + use.local_need_bytes
    if site.local_free_bytes < asked_bytes:
        free_mib, asked_mib = site.local_free_bytes >> 20, asked_bytes >> 20
        return _because(stays, f"local disks have {free_mib} MiB free where {asked_mib} MiB are needed")
    copies = Delivery(local=local, expected_s=local_s, why="the site wants a copy on each node")
    if site.policy is Policy.LOCAL:
        return copies
    if site.store_is_short:
        return _because(copies, "the store is short of room, and has it back once each node has a copy")
    if site.link_bytes_per_s is None or site.shared_bytes_per_s is None:
        return _because(stays, "links or shared file system were not measured there")
    if use.nodes < LOCAL_NODES and not use.is_read_again:
        return _because(stays, f"fewer than {LOCAL_NODES} nodes read the image once")
    if local_s >= shared:
        return _because(stays, f"{shared:.0f} s from the shared file system, {local_s:.0f} s by a copy on each node")
    return _because(copies, f"{local_s:.0f} s by a copy on each node, {shared:.0f} s from the shared file system")


def shared_s(use: Use, site: SiteFacts) -> float:
    """Seconds until all nodes have read what they touch from the shared file system; 0 where nothing is known.

    What was read once stays in a node's memory.
    """
    touched_bytes = use.size_bytes if use.touched_bytes is None else use.touched_bytes
    return touched_bytes * max(1 / (site.link_bytes_per_s or inf), use.nodes / (site.shared_bytes_per_s or inf))


def local_plan(use: Use, site: SiteFacts) -> RelayPlan | SbcastPlan:
    """The quickest way to a copy on each node: our relay, else Slurm's broadcast."""
    if not site.relay_allowed:
        fanout = min(SBCAST_FANOUTS, key=lambda each: sbcast_rounds(use.nodes, each))
        pass_count = sbcast_rounds(use.nodes, fanout)
        return SbcastPlan(digest=use.digest, size_bytes=use.size_bytes, fanout_nodes=fanout, pass_count=pass_count)
    shape, length_bytes = shape_of(use.size_bytes, use.nodes), chunk_bytes(use.size_bytes, use.nodes)
    return RelayPlan(
        digest=use.digest,
        size_bytes=use.size_bytes,
        shape=shape,
        chunk_bytes=length_bytes,
        parents=parents(use.nodes, shape),
    )


def plan_s(plan: RelayPlan | SbcastPlan, site: SiteFacts) -> float:
    """Seconds from the job's start until every node has its copy; only the start where no link was measured.

    A relay writes while it receives: the slower of link and disk counts.
    """
    link = site.link_bytes_per_s or inf
    if isinstance(plan, SbcastPlan):
        return plan.pass_count * plan.size_bytes / link
    passes = 1 if plan.shape is Shape.CHAIN else 2
    fill_bytes = depth(plan.parents) * passes * plan.chunk_bytes
    return RELAY_START_S + plan.size_bytes / min(link / passes, site.disk_bytes_per_s) + fill_bytes / link


# -- who passes it on to whom ----------------------------------------------------------------------------------------


def shape_of(size_bytes: int, nodes: int) -> Shape:
    """A chain while it fills soon, for every link then carries the image once; else a tree: twice that, never deep."""
    fills_soon = nodes * chunk_bytes(size_bytes, nodes) <= size_bytes * CHAIN_SHARE
    return Shape.CHAIN if fills_soon or nodes < 3 else Shape.TREE


def chunk_bytes(size_bytes: int, nodes: int) -> int:
    """Length of a relay's chunks: a power of two, so small that a chain over the nodes fills in FILL_SHARE."""
    least, most = CHUNK_BYTES_LIMITS
    fitting = int(size_bytes * FILL_SHARE / max(1, nodes - 1))
    return min(most, max(least, 1 << max(0, fitting.bit_length() - 1)))


def parents(nodes: int, shape: Shape) -> tuple[int | None, ...]:
    """For each position in the order of the nodes the one that it gets the image from; None for the first.

    The nodes below one are always neighbours in the order, so that an order by switch keeps most links within one.
    """
    if shape is Shape.CHAIN:
        return (None, *range(nodes - 1))
    found: list[int | None] = [None] * nodes
    ranges = [(0, nodes)]
    while ranges:
        root, end = ranges.pop()
        middle = (root + end + 2) // 2
        for first, last in ((root + 1, middle), (middle, end)):
            if first < last:
                found[first] = root
                ranges.append((first, last))
    return tuple(found)


def depth(above: Sequence[int | None]) -> int:
    """Links between the first node and the one that is farthest from it."""
    levels = [0] * len(above)
    for position, parent in enumerate(above):
        if parent is not None:
            levels[position] = levels[parent] + 1
    return max(levels, default=0)


def topology_order(switches: Sequence[Sequence[str]], spare: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the nodes, switch by switch (leaves in the order of the site's tree), those of doubtful speed last.

    Nobody depends on the last nodes of a chain or tree. A relay sorts the nodes of its job by this, unknown ones last.
    """
    names = dict.fromkeys(name for switch in switches for name in switch)
    return (*(name for name in names if name not in spare), *(name for name in names if name in spare))


# -- Slurm's own broadcast -------------------------------------------------------------------------------------------


def sbcast_rounds(nodes: int, fanout_nodes: int) -> int:
    """How often the image passes the busiest link: in each level of the tree a block goes to all of the fanout."""
    return fanout_nodes * max(1, ceil(log(max(1, nodes), fanout_nodes) - 1e-9))


def sbcast_block_bytes(pass_count: int, link_bytes_per_s: float | None) -> int:
    """Length of the blocks that the image is sent in: the long ones, unless the link is known to be slow for them."""
    short_bytes, long_bytes = SBCAST_BLOCKS_BYTES
    return short_bytes if pass_count * long_bytes / (link_bytes_per_s or inf) > SBCAST_BLOCK_S else long_bytes


def sbcast_argv(source: str, destination: str, fanout_nodes: int, block_bytes: int, timeout_s: int = 300) -> list[str]:
    """Copy a file from the node where this runs to all of the allocation, replacing what is there.

    Uncompressed: squashfs is. The time-out is for one block through the whole tree, where Slurm's own for messages is
    short for slow links. ``--fanout`` is what all versions since 2.6 understand; later ones document ``--treewidth``.
    """
    argv = ["sbcast", "--force", "--compress=none", f"--timeout={timeout_s}", f"--fanout={fanout_nodes}"]
    return [*argv, f"--size={block_bytes >> 10}k", source, destination]


def _because(chosen: Delivery, why: str) -> Delivery:
    return Delivery(local=chosen.local, expected_s=chosen.expected_s, why=why)
