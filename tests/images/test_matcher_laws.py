"""What must hold for every image on every node, whatever the tables say."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images import tables
from images.findings import MatchPolicy
from images.matcher import match
from scheduler.model.verdicts import Fit
from tests.images.fleet import (
    CPU_HOSTS,
    CPU_IMAGES,
    CUDA_IMAGES,
    DEBIAN,
    GPU_HOSTS,
    MPI_HOSTS,
    MPI_IMAGES,
    cuda,
    gpu_node,
)

IMAGES = {**CUDA_IMAGES, **CPU_IMAGES, **MPI_IMAGES}
HOSTS = {**GPU_HOSTS, **CPU_HOSTS, **MPI_HOSTS}
TABLES = ((CUDA_IMAGES, GPU_HOSTS), (CPU_IMAGES, CPU_HOSTS), (MPI_IMAGES, MPI_HOSTS))
POLICIES = [
    MatchPolicy(),
    MatchPolicy(wants_mpi=True, nodes=4, wants_gpus=True),
    MatchPolicy(enforces_require=True, may_disable_require=False),
]
SAID = {"node_class", "translators", "rooms", "evidence"}
"""Not facts that a probe may miss: names, and what an owner says or does not."""
UNSAID = {"manifest_digest", "labels", "tree_seen", "evidence"}
GROUPS = ("isa", "cuda", "rocm", "declared")
NOT_OPTIONAL = {"require_disabled", "hooks", "inject_glibc"}


def hosts_without_one_fact(host):
    for each in fields(host):
        if each.name not in SAID and getattr(host, each.name) is not None:
            yield each.name, replace(host, **{each.name: None})
    for runtime in host.runtimes or ():
        for each in fields(runtime):
            if each.name not in ("name", "hooks"):
                yield each.name, replace(host, runtimes=(replace(runtime, **{each.name: None}),))
    for gpu in host.gpus or ():
        for name in ("compute_capability", "target", "brand"):
            yield name, replace(host, gpus=(replace(gpu, **{name: None}),))


def images_without_one_fact(needs):
    for each in fields(needs):
        if each.name not in (*UNSAID, *GROUPS) and getattr(needs, each.name) is not None:
            yield each.name, replace(needs, **{each.name: None})
    for group in GROUPS:
        record = getattr(needs, group)
        for each in fields(record):
            if each.name not in NOT_OPTIONAL and getattr(record, each.name) is not None:
                yield f"{group}.{each.name}", replace(needs, **{group: replace(record, **{each.name: None})})


@pytest.mark.parametrize("policy", POLICIES, ids=["plain", "mpi on gpus", "enforced"])
def test_taking_a_fact_away_never_closes_a_place(policy):
    """For all pairs that are not closed: each fact of the nodes in turn, and each of the image."""
    closed = []
    pairs = [(*image, *host) for images, hosts in TABLES for image in images.items() for host in hosts.items()]
    for image, needs, node, host in pairs:
        if match(needs, host, policy).verdict.fit is Fit.NO:
            continue
        for fact, poorer in hosts_without_one_fact(host):
            if match(needs, poorer, policy).verdict.fit is Fit.NO:
                closed.append(f"{image} on {node} without host.{fact}")
        for fact, poorer in images_without_one_fact(needs):
            if match(poorer, host, policy).verdict.fit is Fit.NO:
                closed.append(f"{image} without {fact} on {node}")
    assert not closed


@pytest.mark.parametrize("name", IMAGES)
def test_an_unknown_node_is_never_closed_to_an_image_for_linux(name):
    policy = MatchPolicy(wants_mpi=True, nodes=2, wants_gpus=True, enforces_require=True)
    expected = {Fit.NO} if name == "windows" else {Fit.YES, Fit.FIXABLE, Fit.UNKNOWN}
    assert match(IMAGES[name], CPU_HOSTS["unprobed"], policy).verdict.fit in expected


@pytest.mark.parametrize("name", HOSTS)
def test_an_image_that_says_nothing_is_closed_only_where_nothing_runs(name):
    fit = match(CPU_IMAGES["says-nothing"], HOSTS[name]).verdict.fit
    assert fit is (Fit.NO if name == "no-userns" else Fit.UNKNOWN)


@pytest.mark.parametrize("name", IMAGES)
def test_strict_only_tightens(name):
    """It makes a no of every unknown, and changes nothing else."""
    for host in HOSTS.values():
        for policy in POLICIES:
            plain, strict = (match(IMAGES[name], host, replace(policy, strict=flag)).verdict for flag in (False, True))
            assert strict.fit is (Fit.NO if plain.fit is Fit.UNKNOWN else plain.fit)
            assert strict.reason == plain.reason


RUNTIMES = st.tuples(st.integers(9, 14), st.integers(0, 9))
BRANCHES = st.sampled_from(sorted(tables.DRIVER_CUDA))
GPUS = st.sampled_from(
    [
        ("Tesla K80", (3, 7)),
        ("Tesla V100", (7, 0)),
        ("A100", (8, 0)),
        ("NVIDIA GeForce RTX 3090", (8, 6)),
        ("X", (9, 0)),
    ]
)


@settings(max_examples=300, deadline=None)
@given(RUNTIMES, GPUS, BRANCHES, BRANCHES)
def test_a_newer_driver_never_makes_a_verdict_worse(runtime, gpu, one, other):
    """The image's GPU code is for all; compatibility libraries, made for listed branches, are left out."""
    older, newer = sorted((one, other))
    image = cuda(runtime, cubins=("sm_37", "sm_70", "sm_80", "sm_90"), ptx=())
    before, after = (match(image, gpu_node(*gpu, (branch, 1))).verdict.fit for branch in (older, newer))
    assert after.badness <= before.badness


@settings(max_examples=300, deadline=None)
@given(RUNTIMES, GPUS, BRANCHES)
def test_a_driver_that_brings_the_images_cuda_runs_it(runtime, gpu, branch):
    """Backward compatibility: R5 to R7 say no only below the CUDA of the driver, and never within one major version."""
    own = tables.DRIVER_CUDA[branch]
    floor = tables.driver_floor(runtime)
    if own >= runtime or (floor is not None and runtime[0] >= 11 and branch >= floor[0]):
        image = cuda(runtime, cubins=None, ptx=None)
        assert match(image, gpu_node(*gpu, (branch, 99))).verdict.fit is Fit.YES


@given(st.text(max_size=12), GPUS, BRANCHES)
def test_the_environment_of_an_image_alone_never_closes_a_place(text, gpu, branch):
    image = replace(DEBIAN, cuda=replace(CUDA_IMAGES["env-only"].cuda, env_version=text))
    assert match(image, gpu_node(*gpu, (branch,))).verdict.fit is not Fit.NO
