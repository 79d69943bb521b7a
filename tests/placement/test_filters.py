"""Screening: hard facts reject with asked and offered, missing facts never do, and time heals only what time can."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from placement.filters import screen
from placement.gist import question
from placement.problem import PlaceKey
from scheduler.model.plan import Reason
from scheduler.model.runs import ArraySpec, JobType, Runtime, SchedulerOption
from scheduler.model.snapshots import Association, Closure, Licence, PartitionState, QosLimit
from scheduler.model.systems import Capability, SystemRuntime
from tests.placement.worlds import NOW, ask, cluster, host, nodes, problem, queue, snapshot, view


def screened(an_ask, *views):
    return screen(problem(an_ask, *views))[an_ask.job_uuid]


def only_reason(an_ask, a_view):
    screening = screened(an_ask, a_view)
    assert not screening.candidates
    assert len(screening.rejections) == 1, screening
    return screening.rejections[0]


RIGHTS = (
    Association(account="lab", qos=("normal", "express")),
    Association(account="teaching", qos=("normal",), core_minutes_left=450),
    Association(account="debugging", partition="debug", qos=("normal",)),
)
MOUNTS = [{"mount": "/", "sizeMiB": 10**6}, {"mount": "/work", "sizeMiB": 1024}, {"mount": "/wo", "sizeMiB": 9}]

REJECTED = [
    ("a disabled system", {}, view(cluster(enabled=False)), Reason.DISABLED, "", ""),
    ("a deleted system", {}, view(cluster(deleted=True)), Reason.DISABLED, "", ""),
    ("a system for files", {}, view(cluster(can_exec=False)), Reason.CANNOT_EXECUTE, "", ""),
    ("a system of others", {}, view(may_execute=frozenset({"bob"})), Reason.NOT_PERMITTED, "alice", ""),
    ("a system without login", {}, view(has_credential=frozenset({"bob"})), Reason.NO_CREDENTIAL, "alice", ""),
    (
        "a system that was not named",
        {"exec_system_id": "birch", "dynamic": False},
        view(),
        Reason.NOT_NAMED,
        "birch",
        "",
    ),
    ("batch on a host", {"job_type": JobType.BATCH}, view(host()), Reason.JOB_TYPE, "BATCH", "FORK"),
    ("another runtime", {"runtime": Runtime.DOCKER}, view(), Reason.RUNTIME, "DOCKER", "SINGULARITY"),
    ("a queue of no such name", {"queue": "gpu"}, view(), Reason.QUEUE_UNKNOWN, "gpu", "cpu"),
    (
        "too many nodes for the queue",
        {"nodes": 9},
        view(cluster("alder", queue(max_nodes=8))),
        Reason.NODES,
        "9 nodes",
        "at most 8 nodes",
    ),
    (
        "too few nodes for the queue",
        {"nodes": 1},
        view(cluster("alder", queue(min_nodes=2))),
        Reason.NODES,
        "1 node",
        "at least 2 nodes",
    ),
    ("more nodes than there are", {"nodes": 5}, view(None, snapshot()), Reason.NODES, "5 nodes", "at most 4 nodes"),
    ("two nodes of one host", {"nodes": 2}, view(host()), Reason.NODES, "2 nodes", "1 node"),
    (
        "more cores than a node has",
        {"cores_per_node": 5},
        view(None, snapshot()),
        Reason.CORES,
        "5 cores per node",
        "at most 4 cores per node",
    ),
    (
        "more memory than the largest node has",
        {"memory_mib": 8192},
        view(None, snapshot(nodes(memory_mib=4096))),
        Reason.MEMORY,
        "8 GiB per node",
        "at most 4 GiB per node",
    ),
    (
        "more time than the queue allows",
        {"walltime_s": 86_401},
        view(),
        Reason.WALLTIME,
        "24 h 1 s",
        "at most 24 h",
    ),
    (
        "more time than the partition allows",
        {"walltime_s": 601},
        view(None, snapshot(partitions=(PartitionState(name="cpu", up=True, max_walltime_s=600),))),
        Reason.WALLTIME,
        "10 min 1 s",
        "at most 10 min",
    ),
    (
        "GPUs where there are none",
        {"gpus_per_node": 1},
        view(None, snapshot()),
        Reason.GPUS,
        "1 GPU per node",
        "",
    ),
    (
        "GPUs of another model",
        {"gpus_per_node": 1, "gpu_model": "h100"},
        view(None, snapshot(nodes(gpus=2, gpu_model="A100"))),
        Reason.GPUS,
        "1 h100 GPU per node",
        "2 A100 GPUs per node",
    ),
    (
        "a feature that no node has",
        {"scheduler_options": (SchedulerOption("--constraint", "milan&ib"),)},
        view(None, snapshot(nodes(features=("milan",)), nodes(features=("ib",)))),
        Reason.CONSTRAINT,
        "--constraint ib&milan",
        "ib, milan",
    ),
    (
        "a feature where nodes have none",
        {"scheduler_options": (SchedulerOption("--constraint", "milan"),)},
        view(None, snapshot()),
        Reason.CONSTRAINT,
        "--constraint milan",
        "",
    ),
    (
        "needs that no node meets together",
        {"cores_per_node": 8, "memory_mib": 8192},
        view(None, snapshot(nodes(cores=8), nodes(memory_mib=8192))),
        Reason.NODES,
        "1 node",
        "no node meeting all needs at once",
    ),
    (
        "a clause of the constraints",
        {"constraints": ("tags = 'gpu' AND", "canExec = true")},
        view(cluster(tags=("cpu", "old"))),
        Reason.CONSTRAINT,
        "tags = 'gpu'",
        "tags is cpu and old",
    ),
    (
        "a licence that the site does not have",
        {"scheduler_options": (SchedulerOption("--licenses", "matlab:2,ansys"),)},
        view(None, snapshot(licences=(Licence(name="matlab", total=1, free=1),))),
        Reason.LICENCE,
        "ansys:1, matlab:2",
        "matlab:1",
    ),
    (
        "an account of others",
        {"scheduler_options": (SchedulerOption("--account", "physics"),)},
        view(None, snapshot(associations=RIGHTS, seen_by="alice")),
        Reason.ACCOUNT,
        "physics",
        "lab or teaching",
    ),
    (
        "more core-hours than are left of the account",
        {"walltime_s": 7200, "cores_per_node": 4, "scheduler_options": (SchedulerOption("--account", "teaching"),)},
        view(None, snapshot(associations=RIGHTS, seen_by="alice")),
        Reason.ALLOCATION,
        "8.0 core-hours",
        "7.5 core-hours",
    ),
    (
        "a quality of service that the account does not have",
        {"scheduler_options": (SchedulerOption("--account", "teaching"), SchedulerOption("--qos", "express"))},
        view(None, snapshot(associations=RIGHTS, seen_by="alice")),
        Reason.QOS,
        "express",
        "normal",
    ),
    (
        "more time than the quality of service allows",
        {"walltime_s": 601, "scheduler_options": (SchedulerOption("--qos", "express"),)},
        view(None, snapshot(qos=(QosLimit(name="express", max_walltime_s=600),))),
        Reason.WALLTIME,
        "10 min 1 s",
        "at most 10 min under the QOS express",
    ),
    (
        "more cores than the quality of service gives one user",
        {"nodes": 3, "cores_per_node": 3, "scheduler_options": (SchedulerOption("--qos", "express"),)},
        view(None, snapshot(qos=(QosLimit(name="express", max_cores_per_user=8),))),
        Reason.CORES,
        "9 cores",
        "at most 8 cores under the QOS express",
    ),
    (
        "a price above what is allowed",
        {"max_price_usd": 1.0, "nodes": 2, "cores_per_node": 4, "walltime_s": 7200},
        view(cluster(notes={"berth": {"pricePerCoreHour": 0.1}})),
        Reason.BUDGET,
        "1.00 USD",
        "1.60 USD",
    ),
    (
        "the price of GPUs and of every task of an array",
        {"max_price_usd": 3.99, "gpus_per_node": 2, "walltime_s": 3600, "array": ArraySpec((1, 2))},
        view(cluster(notes={"berth": {"pricePerGpuHour": 1}})),
        Reason.BUDGET,
        "3.99 USD",
        "4.00 USD",
    ),
    (
        "no way out to the network",
        {"needs_network": True},
        view(cluster(notes={"berth": {"outboundNetwork": False}})),
        Reason.NETWORK,
        "",
        "",
    ),
    (
        "an image that the site does not let run",
        {},
        view(cluster(notes={"berth": {"allowedImages": ["docker://quay.example.org/*", "/apps/*.sif"]}})),
        Reason.POLICY,
        "docker://registry.example.org/hello:1",
        "docker://quay.example.org/*, /apps/*.sif",
    ),
    (
        "a pushed file where no images are kept",
        {"image": "berth://sha256:0"},
        view(),
        Reason.IMAGE,
        "berth://sha256:0",
        "it is a pushed file, and no store for images is there",
    ),
    (
        "more room than the quota",
        {"storage_mib": 2048},
        view(cluster(notes={"berth": {"storageQuotaMB": 1024}})),
        Reason.STORAGE,
        "2 GiB",
        "at most 1 GiB",
    ),
    (
        "more room than the file system has below which jobs run",
        {"storage_mib": 2048},
        view(cluster(job_working_dir="/work/berth", notes={"berth": {"facts": {"fileSystems": MOUNTS}}})),
        Reason.STORAGE,
        "2 GiB",
        "at most 1 GiB",
    ),
    ("an array on a host", {"array": ArraySpec((1, 2))}, view(host()), Reason.ARRAY, "", ""),
]


@pytest.mark.parametrize(
    ("asked", "a_view", "reason", "wanted", "offered"),
    [row[1:] for row in REJECTED],
    ids=[row[0].replace(" ", "-") for row in REJECTED],
)
def test_a_hard_fact_rejects_and_says_what_was_asked_and_offered(asked, a_view, reason, wanted, offered):
    rejection = only_reason(ask(**asked), a_view)
    assert (rejection.reason, rejection.asked, rejection.limit) == (reason, wanted, offered)


def test_a_missing_fact_never_rejects():
    greedy = ask(nodes=900, cores_per_node=900, memory_mib=10**9, gpus_per_node=8, gpu_model="X1")
    silent = cluster("alder", queue(max_walltime_s=-1), runtimes=())
    assert screened(greedy, view(silent)).candidates
    assert screened(greedy, view(silent, snapshot(nodes(partition="other")))).candidates


def test_nodes_of_a_cluster_say_nothing_of_jobs_on_its_login_host():
    assert screened(ask(job_type=JobType.FORK, cores_per_node=64), view(None, snapshot())).candidates[0].queue is None


def test_every_queue_is_judged_by_its_own_limits():
    system = cluster("alder", queue("cpu"), queue("debug", max_walltime_s=600))
    screening = screened(ask(walltime_s=3600), view(system))
    assert [place.key for place in screening.candidates] == [PlaceKey("alder", "cpu")]
    assert [(each.queue, each.reason) for each in screening.rejections] == [("debug", Reason.WALLTIME)]


def test_all_that_stands_in_the_way_of_a_queue_is_said_at_once():
    screening = screened(ask(nodes=9, walltime_s=10**6), view(cluster("alder", queue(max_nodes=8))))
    assert [each.reason for each in screening.rejections] == [Reason.NODES, Reason.WALLTIME]


def test_a_named_system_means_its_default_queue_as_in_tapis():
    system = cluster("alder", queue("slow"), queue("fast"))
    named = ask(dynamic=False, exec_system_id="alder")
    assert [place.key.queue for place in screened(named, view(system)).candidates] == ["slow"]
    assert [place.key.queue for place in screened(ask(), view(system)).candidates] == ["fast", "slow"]


@pytest.mark.parametrize(
    "a_view",
    [
        view(None, snapshot(partitions=(PartitionState(name="cpu", up=False),))),
        view(None, snapshot(nodes(total=4, free=0, down=4))),
        view(cluster(max_jobs=2), active={("cpu", "bob"): 1, (None, "alice"): 1}),
        view(cluster(max_jobs_per_user=1), active={("cpu", "alice"): 1}),
        view(cluster("alder", queue(max_jobs=0))),
        view(cluster("alder", queue(max_jobs_per_user=1)), active={("cpu", "alice"): 1}),
    ],
    ids=[
        "partition-down",
        "nodes-down",
        "system-full",
        "user-at-system-limit",
        "queue-takes-none",
        "user-at-queue-limit",
    ],
)
def test_what_time_heals_keeps_the_job_waiting(a_view):
    screening = screened(ask(), a_view)
    assert not screening.candidates
    assert not screening.rejections
    assert screening.possible


def test_nodes_that_a_reservation_closes_come_back_by_themselves():
    closing = Closure(
        reservation="m", partition="cpu", nodes=4, starts_at=NOW - timedelta(hours=1), ends_at=NOW + timedelta(hours=1)
    )
    assert screened(ask(), view(None, snapshot(nodes(free=0, down=4), closures=(closing,)))).candidates


def test_a_job_waits_for_nodes_only_where_too_few_are_up():
    look = view(None, snapshot(nodes(total=4, down=2)))
    assert screened(ask(nodes=2), look).candidates
    assert [(each.reason, each.limit) for each in screened(ask(nodes=3), look).later] == [
        (Reason.NODES_DOWN, "2 of 4 nodes")
    ]


@pytest.mark.parametrize(
    "notes",
    [
        {"pricePerCoreHour": price, "outboundNetwork": "no", "storageQuotaMB": -5, "allowedImages": "none", "facts": 7}
        for price in (-1, 0, 1e300, float("nan"), float("inf"), "dear", None, True, [])
    ],
)
def test_notes_that_cannot_be_meant_reject_nothing(notes):
    picky = ask(max_price_usd=0.0, needs_network=True, storage_mib=10**9)
    assert screened(picky, view(cluster(notes={"berth": notes}))).candidates


def test_accounts_of_another_login_say_nothing_of_ours():
    asking = ask(scheduler_options=(SchedulerOption("--account", "physics"),))
    look = snapshot(associations=RIGHTS, seen_by="bob")
    assert screened(asking, view(None, look)).candidates
    shared = cluster(effective_user_id="robot")
    assert screened(asking, view(shared, look)).rejections[0].reason is Reason.ACCOUNT


def test_options_of_a_scheduler_do_not_concern_a_host():
    asking = ask(scheduler_options=(SchedulerOption("--constraint", "milan"), SchedulerOption("--licenses", "x")))
    assert screened(asking, view(host(), snapshot(licences=()))).candidates


def test_names_of_accounts_and_qos_are_the_same_in_any_case_as_for_slurm():
    look = view(None, snapshot(associations=RIGHTS, seen_by="alice"))
    loud = (SchedulerOption("--account", "Lab"), SchedulerOption("--qos", "EXPRESS"))
    assert screened(ask(scheduler_options=loud), look).candidates


def test_an_allocation_counts_only_where_it_is_known_and_of_the_account_asked():
    large, look = {"walltime_s": 7200, "cores_per_node": 4}, view(None, snapshot(associations=RIGHTS, seen_by="alice"))
    assert screened(ask(**large), look).candidates
    assert screened(ask(**large, scheduler_options=(SchedulerOption("--account", "lab"),)), look).candidates


def test_a_licence_that_is_taken_keeps_nobody_out():
    asking = ask(scheduler_options=(SchedulerOption("--licenses", "matlab"),))
    assert screened(asking, view(None, snapshot(licences=(Licence(name="matlab", total=1, free=0),)))).candidates
    assert screened(asking, view(None, snapshot(licences=None))).candidates


def test_limits_that_others_reached_do_not_hold_back_a_user():
    system = cluster("alder", queue(max_jobs_per_user=1), max_jobs_per_user=1)
    assert screened(ask(), view(system, active={("cpu", "bob"): 5})).candidates


def test_a_place_that_never_fits_is_not_waited_for():
    busy_and_small = view(cluster("alder", queue(max_jobs=0, max_nodes=1)))
    screening = screened(ask(nodes=2), busy_and_small)
    assert [each.reason for each in screening.rejections] == [Reason.NODES]
    assert not screening.possible


def test_runtime_none_needs_no_container_runtime():
    assert screened(ask(runtime=Runtime.NONE), view(cluster(runtimes=(SystemRuntime(Runtime.DOCKER),)))).possible


def test_capabilities_answer_constraints():
    tagged = replace(
        cluster(), capabilities=(Capability(category="HARDWARE", name="gpuModel", datatype="STRING", value="A100"),)
    )
    wanting = ask(constraints=("gpu_model = 'A100'",))
    assert screened(wanting, view(tagged)).candidates
    assert screened(wanting, view(cluster())).rejections[0].limit == "gpu_model is not known"


def test_constraints_that_cannot_be_read_reject_their_own_job_only():
    good, bad = ask("good"), ask("bad", constraints=("id = ",))
    screenings = screen(problem((good, bad), view()))
    assert screenings["good"].candidates
    assert screenings["bad"].rejections[0].reason is Reason.CONSTRAINT
    assert "expected a value" in screenings["bad"].rejections[0].limit


def test_screening_costs_neither_numpy_nor_the_solver():
    code = (
        "import sys, placement.filters, placement.explain; print([m for m in ('numpy', 'ortools') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"


class Recording:
    """A spec that keeps which of its fields were read."""

    def __init__(self, spec):
        self._spec, self.read = spec, set()

    def __getattr__(self, name):
        self.read.add(name)
        return getattr(self._spec, name)


@pytest.mark.parametrize(("changes", "its_view"), [row[1:3] for row in REJECTED], ids=[row[0] for row in REJECTED])
def test_filters_read_nothing_of_a_spec_that_is_not_in_its_question(changes, its_view):
    asked = ask(**changes)
    whole, judged = Recording(asked.spec), Recording(asked.spec)
    question(whole)
    screened(replace(asked, spec=judged), its_view)
    assert judged.read <= whole.read


def test_a_job_is_judged_among_others_as_it_is_alone():
    queues = (
        queue("cpu", max_walltime_s=3600, min_memory_mib=500),
        queue("long", min_walltime_s=3601, max_memory_mib=2000),
    )
    pair = nodes("cpu"), nodes("long", memory_mib=3000)
    views = view(cluster("alder", *queues), snapshot(*pair)), view(cluster("birch", queue("cpu")))
    steps = (499, 500, 501, 1999, 2000, 2001, 3000, 3001, 4000, 4001), (60, 3599, 3600, 3601, 86_400, 86_401)
    asks = tuple(ask(f"job-{mib}-{s}", memory_mib=mib, walltime_s=s) for mib in steps[0] for s in steps[1])
    together = screen(problem(asks, *views))
    assert together == {each.job_uuid: screen(problem(each, *views))[each.job_uuid] for each in asks}
    assert len(set(map(repr, together.values()))) > 20


THEIRS = "${apiUserId}"
OWN_ACCOUNT = snapshot(seen_by="alice", associations=(Association(account="lab", qos=("normal",)),))
TELL_OWNERS_APART = {
    "one whose users are named": view(may_execute=frozenset({"alice", "cyd"})),
    "one that some can log in to": view(has_credential=frozenset({"bob"})),
    "one with a limit for each user": view(cluster(max_jobs_per_user=1), active={("cpu", "bob"): 1}),
    "a queue with a limit for each user": view(
        cluster("alder", queue(max_jobs_per_user=1)), active={("cpu", "cyd"): 1}
    ),
    "one with an account for each user": view(cluster(effective_user_id=THEIRS), OWN_ACCOUNT),
}


OWNERS = ("alice", "bob", "cyd", "dan")


@pytest.mark.parametrize("a_view", TELL_OWNERS_APART.values(), ids=TELL_OWNERS_APART)
def test_jobs_of_several_owners_are_judged_as_each_is_alone(a_view):
    account = SchedulerOption("--account", "other")
    asks = {
        (owner, options): ask(f"{owner} {len(options)}", owner, scheduler_options=options)
        for owner in OWNERS
        for options in ((), (account,))
    }
    together = screen(problem(tuple(asks.values()), a_view))
    assert together == {each.job_uuid: screened(each, a_view) for each in asks.values()}
    heard = {
        owner: repr([together[each.job_uuid] for (whose, _), each in asks.items() if whose == owner])
        for owner in OWNERS
    }
    assert len(set(heard.values())) > 1, "it tells owners apart"


def test_jobs_of_owners_whom_no_system_tells_apart_are_judged_once():
    asks = tuple(ask(owner, owner) for owner in OWNERS)
    assert len({id(each) for each in screen(problem(asks, view(), view(cluster("birch")))).values()}) == 1


def test_jobs_that_ask_for_something_else_ask_another_question():
    specs = [ask(**changes).spec for _, changes, *_ in REJECTED]
    for one in specs:
        for other in specs:
            needs = [replace(each, name="", args=()) for each in (one, other)]
            assert (question(one) == question(other)) == (needs[0] == needs[1])
