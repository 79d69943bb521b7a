"""A Kubernetes as a system over HTTP: what its notes may say, and how a login is known to it."""

import pytest

from scheduler.store.systems import CredentialStore, SystemStore
from tests.api.world import World

KUBE = {
    "id": "kube",
    "systemType": "LINUX",
    "host": "kube.example.org",
    "port": 6443,
    "defaultAuthnMethod": "TOKEN",
    "rootDir": "/",
    "canExec": True,
    "canRunBatch": True,
    "jobRuntimes": [{"runtimeType": "DOCKER"}],
    "jobWorkingDir": "jobs",
    "batchLogicalQueues": [{"name": "all", "hpcQueueName": "kubernetes"}],
    "batchDefaultLogicalQueue": "all",
    "notes": {"berth": {"backend": "k8s", "k8s": {"namespace": "berth-lab"}}},
}
CREDENTIAL = "/v3/systems/credential/kube/user/ada"


async def test_a_kubernetes_needs_no_word_for_its_batch_scheduler_and_takes_no_copies(world: World):
    await world.post("/v3/systems", KUBE)
    assert (await world.get("/v3/systems/kube"))["batchScheduler"] is None
    async with world.ports.reading() as db:
        system = await SystemStore(db).get("dev", "kube")
    assert system.backend == "k8s"
    assert not system.takes_hedges
    assert not system.takes_moves


async def test_notes_that_cannot_be_meant_are_refused_by_the_name_of_the_field(world: World):
    notes = {"berth": {"backend": "k8s", "k8s": {"namespace": "../kube-system"}}}
    made = await world.call("POST", "/v3/systems", {**KUBE, "notes": notes})
    assert made.status_code == 400
    assert "notes.berth.k8s.namespace" in made.json()["message"]
    await world.post("/v3/systems", KUBE)
    changed = await world.call("PATCH", "/v3/systems/kube", {"notes": notes})
    assert changed.status_code == 400


async def test_a_token_is_kept_as_a_secret_and_never_shown(world: World):
    await world.post("/v3/systems", KUBE)
    made = await world.call("POST", CREDENTIAL, {"accessToken": "eyJ.s3cret"})
    assert made.status_code == 201
    shown = await world.call("GET", CREDENTIAL)
    assert shown.json()["result"]["authnMethod"] == "TOKEN"
    assert "s3cret" not in made.text + shown.text
    async with world.ports.reading() as db:
        assert (await CredentialStore(db).get("dev", "kube", "ada")).password == "eyJ.s3cret"


@pytest.mark.parametrize(
    "given", [{}, {"password": "x"}, {"accessToken": "t", "password": "x"}, {"accessToken": "two words"}]
)
async def test_nothing_but_one_token_is_a_login_of_a_kubernetes(world: World, given):
    await world.post("/v3/systems", KUBE)
    made = await world.call("POST", CREDENTIAL, given)
    assert made.status_code == 400
    assert "accessToken" in made.json()["message"]


async def test_a_token_is_no_login_of_other_systems(world: World):
    system = {**KUBE, "id": "plain", "notes": {}, "canRunBatch": False, "batchDefaultLogicalQueue": None}
    await world.post("/v3/systems", {**system, "batchLogicalQueues": []})
    made = await world.call("POST", "/v3/systems/credential/plain/user/ada", {"accessToken": "t"})
    assert made.status_code == 400
    assert "accessToken" in made.json()["message"]


async def test_what_a_login_can_do_without_is_told_when_it_is_stored_and_when_it_is_tried(world: World):
    await world.post("/v3/systems", KUBE)
    world.connections.warnings = ("it may not list events: why the cluster makes no pod is not told",)
    made = await world.post(CREDENTIAL, {"accessToken": "t"})
    tried = await world.post(f"{CREDENTIAL}/check", {})
    assert made["warnings"] == tried["warnings"] == list(world.connections.warnings)
