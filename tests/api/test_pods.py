"""Pods on the wire: three generations of clients make them, and everyone sees and does what their level allows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from api.context import Edge
from scheduler.model.ids import marker_for
from scheduler.model.pods import AT_REST, InstanceState, Pod, PodEvent, PodInstance
from scheduler.model.runs import JobType, RunSpec, SubmitIntent
from scheduler.store.pods import PodStore
from tests.api.world import World

E = PodEvent
PODS, POD = "/v3/pods", "/v3/pods/docpod"
NEO4J = {"pod_id": "docpod", "template": "neo4j", "description": "A graph"}
WEB = {"pod_id": "web", "image": "python:3.12", "command": ["python3"]}
LONGER = {"time_to_stop_default": 900}

QUICKSTART = {
    "pod_id", "image", "template", "description", "command", "arguments", "environment_variables", "status_requested",
    "volume_mounts", "time_to_stop_default", "time_to_stop_instance", "networking", "resources", "compute_queue",
    "time_to_stop_ts", "status", "status_container", "creation_ts", "update_ts", "start_instance_ts", "data_attached",
    "data_requests", "roles_inherited", "roles_required", "url",
}  # fmt: skip
"""What clients read of a pod."""


async def of_store(world: World, pod_id: str) -> Pod:
    async with world.ports.reading() as db:
        return await PodStore(db).get("dev", pod_id)


async def at_rest(world: World, pod_id: str) -> None:
    """As the loop leaves a pod of which nothing runs."""
    await moved(world, pod_id, E.STOPPING, E.GONE)


async def moved(world: World, pod_id: str, *events: PodEvent) -> None:
    """As the loop leaves a pod to which these happened."""
    async with world.ports.transaction() as db:
        store = PodStore(db)
        pod = await store.get("dev", pod_id)
        for event in events:
            pod = await store.move(pod, event, world.clock(), next_look_at=None)


WAYS_TO_REST: Mapping[str, tuple[PodEvent, ...]] = {
    "COMPLETE": (E.PLACED, E.ACCEPTED, E.COMPLETED),
    "ERROR": (E.FAILED,),
    "STOPPED": (E.STOPPING, E.GONE),
}


async def running(world: World, pod_id: str) -> None:
    """As the loop leaves a pod whose instance answered just now, on the system alder."""
    pod = await of_store(world, pod_id)
    uuid, now = pod.uuid, world.clock()
    nets = pod.definition.ports
    run = RunSpec(job_uuid=uuid, name=pod_id, image="x", exec_dir="/w", input_dir="/w", output_dir="/w", ports=nets)
    marker = marker_for(uuid, 1)
    system = world.connections.systems["alder"]
    remote_id = system.accept(SubmitIntent(marker, run, now))
    system.start(marker)
    system.write_log(marker, b"I listen\n")
    instance = PodInstance(
        pod_uuid=uuid,
        number=1,
        marker=marker,
        tenant="dev",
        system_id="alder",
        owner=pod.owner,
        queue=None,
        run=replace(run, job_type=JobType.BATCH),
        state=InstanceState.RUNNING,
        remote_id=remote_id,
        intended_at=now,
        answered_at=now,
    )
    async with world.ports.transaction() as db:
        store = PodStore(db)
        for event in (E.PLACED, E.ACCEPTED, E.STARTED, E.ANSWERED):
            pod = await store.move(pod, event, now, instance_number=1)
        await store.intend(instance)


def with_default(world: World, template: str) -> None:
    edge: Edge = world.app.state.edge
    world.app.state.edge = replace(edge, options=replace(edge.options, default_pod_template=template))


# -- making them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [{"template": "neo4j"}, {"pod_template": "template/neo4j"}, {"template": "neo4j:latest", "data_requests": []}],
    ids=["now", "of old", "between"],
)
async def test_a_pod_of_a_template_is_made_in_the_words_of_each_generation(world: World, words: dict[str, Any]):
    made = await world.post(PODS, {"pod_id": "docpod", "description": "A graph", **words})
    assert made.keys() >= QUICKSTART
    assert (made["status"], made["status_requested"]) == ("REQUESTED", "ON")
    assert made["template"].startswith("neo4j:latest@")
    assert made["networking"]["default"] == {
        **made["networking"]["browser"],
        "protocol": "tcp",
        "port": 7687,
        "url": "docpod.pods.localhost",
    }
    assert made["networking"]["browser"]["url"] == "docpod-browser.pods.localhost"
    assert made["networking"]["browser"]["url_port"] == 443
    assert made["url"] == "docpod.pods.localhost"
    assert await world.get(POD) == made
    assert await world.get(PODS) == [made]


async def test_a_pod_of_an_image_has_the_defaults(world: World):
    made = await world.post(PODS, WEB)
    assert (made["image"], made["command"], made["template"]) == ("python:3.12", ["python3"], "")
    assert made["resources"] == {
        "cpu_request": 250, "cpu_limit": 2000, "mem_request": 256, "mem_limit": 3072, "gpus": 0,
    }  # fmt: skip
    assert (made["networking"]["default"]["port"], made["time_to_stop_default"]) == (5000, 43200)
    assert made["creation_ts"].startswith("2026-03-01T12:00:00.")
    assert "Z" not in made["creation_ts"]


async def test_a_pod_that_names_neither_is_refused_or_made_from_the_default_which_its_log_says(world: World):
    refused = await world.call("POST", PODS, {"pod_id": "docpod"})
    assert refused.status_code == 400
    assert "send template= or image=" in refused.json()["message"]
    with_default(world, "neo4j")
    made = await world.post(PODS, {"pod_id": "docpod"})
    assert made["template"].startswith("neo4j:latest@")
    actions = (await world.get(f"{POD}/logs"))["action_logs"]
    assert any("made from the default template 'neo4j:latest@" in line for line in actions)
    named = await world.post(PODS, WEB)
    assert named["template"] == ""


async def test_a_pod_says_that_clients_refuse_its_name_while_they_do(world: World):
    await world.post(PODS, {"pod_id": "web", "image": "nginx"})
    inside = {"default": {"protocol": "local_only", "port": 5432}}
    await world.post(PODS, {"pod_id": "store", "image": "postgres", "networking": inside})
    edge = world.app.state.edge
    refused = replace(edge.options, name_trouble=lambda domain: f"the certificate of *.{domain} ended")
    world.app.state.edge = replace(edge, options=refused)
    web, store = [await world.get(f"{PODS}/{name}") for name in ("web", "store")]
    assert (web["status_message"], store["status_message"]) == ("the certificate of *.pods.localhost ended", "")
    world.app.state.edge = edge
    assert (await world.get(f"{PODS}/web"))["status_message"] == ""


async def test_a_pod_is_made_once_under_a_key_and_its_name_once(world: World):
    headers = {"Idempotency-Key": "k"}
    first = await world.post(PODS, WEB, headers=headers)
    assert await world.post(PODS, WEB, headers=headers) == first
    assert (await world.call("POST", PODS, WEB)).status_code == 409


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pod_id": "a-b"}, "pod_id"),
        ({"pod_id": "volumes"}, "reserved"),
        ({"pod_id": 5}, "pod_id"),
        ({"template": "nothing"}, "there is no template 'nothing'"),
        ({"template": "neo4j:9"}, "'neo4j' has no tag '9'"),
        ({"pod_template": "x"}, "pod_template"),
        ({"environment_variables": {"A": 5}}, "environment_variables.A"),
        ({"environment_variables": {"self": "x"}}, "environment_variables"),
        ({"command": "sleep 5"}, "command"),
        ({"networking": {"default": {"port": "80"}}}, "networking.default.port"),
        ({"networking": {"default": {"port": 80, "colour": "red"}}}, "colour"),
        ({"status_requested": "MAYBE"}, "status_requested"),
        ({"volume_mounts": {"data": {"mount_path": "/data"}}}, "there is no volume 'data'"),
        ({"depends_on": ["x"]}, "depends_on"),
        ({"description": "x" * 256}, "description"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
async def test_a_pod_that_cannot_be_meant_is_refused_by_name(world: World, changes: dict[str, Any], named: str):
    body = {"pod_id": "docpod", "image": "redis", **changes}
    response = await world.call("POST", PODS, body)
    assert response.status_code == 400, response.text
    assert named in response.json()["message"]
    assert await world.get(PODS) == []


async def test_a_claim_of_the_cluster_is_mounted_by_admins_alone(world: World):
    body = {**WEB, "volume_mounts": {"/d": {"type": "pvc", "source_id": "claim"}}}
    assert (await world.call("POST", PODS, body)).status_code == 403
    made = await world.post(PODS, body, user="admin")
    assert made["volume_mounts"]["/d"]["source_id"] == "claim"


# -- their life --------------------------------------------------------------------------------------------------


async def test_stop_start_and_restart_are_asked_by_get_and_never_kept(world: World):
    await world.post(PODS, WEB)
    assert (await world.call("GET", f"{PODS}/web/start")).status_code == 409
    stopped = await world.call("GET", f"{PODS}/web/stop")
    assert stopped.headers["cache-control"] == "no-store"
    assert stopped.json()["result"]["status_requested"] == "OFF"
    await at_rest(world, "web")
    assert (await world.get(f"{PODS}/web"))["status"] == "STOPPED"
    started = await world.get(f"{PODS}/web/start")
    assert (started["status"], started["status_requested"]) == ("REQUESTED", "ON")
    assert (await world.get(f"{PODS}/web/restart"))["status_requested"] == "RESTART"


async def test_a_pod_that_is_asked_for_off_does_not_start(world: World):
    made = await world.post(PODS, {**WEB, "status_requested": "OFF"})
    assert (made["status"], made["status_requested"]) == ("STOPPED", "OFF")


@pytest.mark.parametrize(("age_s", "status"), [(0, 200), (86_400, 200), (86_401, 400), (-1, 400)])
async def test_a_browser_may_remember_leave_for_up_to_a_day(world: World, age_s: int, status: int):
    nets = {"default": {"cors_allow_origins": ["https://app.example.org"], "cors_max_age": age_s}}
    made = await world.call("POST", PODS, {**WEB, "networking": nets})
    assert made.status_code == status, made.text
    if status == 200:
        assert made.json()["result"]["networking"]["default"]["cors_max_age"] == age_s


async def test_a_change_is_merged_and_null_takes_a_field_back(world: World):
    await world.post(PODS, {**NEO4J, "environment_variables": {"A": "1"}})
    changes = {"description": "Ours", "resources": {"mem_limit": 4096}, "environment_variables": {"B": "2"}}
    changed = await world.change("PUT", POD, changes)
    assert (changed["description"], changed["resources"]["mem_limit"]) == ("Ours", 4096)
    assert changed["environment_variables"] == {"B": "2"}
    assert changed["networking"]["default"]["port"] == 7687
    back = await world.change("PUT", POD, {"resources": None})
    assert back["resources"]["mem_limit"] == 3072
    assert (await world.change("PUT", POD, {"status_requested": "OFF"}))["status_requested"] == "OFF"
    assert await world.change("PUT", POD, await world.get(POD)) is not None, "a pod may be sent back whole"
    other = await world.call("PUT", POD, {"template": "redis"})
    assert (other.status_code, "cannot be changed" in other.text) == (400, True)


@pytest.mark.parametrize(
    ("template_says", "asked", "default_s"), [({}, {}, 43200), ({}, LONGER, 900), (LONGER, {}, 900)]
)
async def test_when_this_start_ends_hides_not_when_others_do(
    world: World, template_says: dict[str, Any], asked: dict[str, Any], default_s: int
):
    await world.post("/v3/pods/templates", {"template_id": "mine"})
    tag = {"pod_definition": {"image": "redis", **template_says}, "commit_message": "m"}
    await world.post("/v3/pods/templates/mine/tags", tag)
    made = await world.post(PODS, {"pod_id": "docpod", "template": "mine", "time_to_stop_instance": 600, **asked})
    assert (made["time_to_stop_default"], made["time_to_stop_instance"]) == (default_s, 600)
    assert (await of_store(world, "docpod")).definition.time_to_stop_s == 600
    back = await world.change("PUT", POD, {"time_to_stop_instance": None})
    assert (back["time_to_stop_default"], back["time_to_stop_instance"]) == (default_s, None)


async def test_changes_that_come_together_are_all_kept(world: World):
    await world.post(PODS, WEB)
    changes: list[dict[str, Any]] = [
        {"environment_variables": {"A": "1"}},
        {"resources": {"gpus": 1}},
        {"time_to_stop_default": 600},
        {"description": "Ours"},
    ]
    await asyncio.gather(*(world.change("PUT", f"{PODS}/web", each) for each in changes))
    pod = await world.get(f"{PODS}/web/derived")
    assert (pod["environment_variables"], pod["resources"]["gpus"]) == ({"A": "1"}, 1)
    assert (pod["time_to_stop_default"], pod["description"]) == (600, "Ours")


async def test_what_is_run_is_shown_with_its_secrets_as_placeholders(world: World):
    await world.post(PODS, {**NEO4J, "environment_variables": {"A": "1"}})
    derived = await world.get(f"{POD}/derived")
    assert derived["image"] == "neo4j:5"
    assert derived["environment_variables"]["A"] == "1"
    assert derived["environment_variables"]["PODS_PASSWORD"] == "<<TAPIS_user_password>>"
    secret = (await world.get(f"{POD}/credentials"))["user_password"]
    assert len(secret) == 30
    assert secret not in json.dumps(derived)


async def test_a_running_pod_shows_its_log_and_runs_commands(world: World):
    await world.post(PODS, WEB)
    assert (await world.call("POST", f"{PODS}/web/exec", {"commands": ["ls"]})).status_code == 409
    await running(world, "web")
    pod = await world.get(f"{PODS}/web")
    assert (pod["status"], pod["status_container"]["system"]) == ("AVAILABLE", "alder")
    assert (await world.get(f"{PODS}/web/logs"))["logs"] == "I listen\n"
    for commands, words in ((["ls", "/"], [["ls", "/"]]), ([["ls"], ["date"]], [["ls"], ["date"]])):
        ran = await world.post(f"{PODS}/web/exec", {"commands": commands})
        assert ran["success"]
        assert [each["command"] for each in ran["results"]] == words
        assert ran["results"][0]["stdout"] == " ".join(words[0])


async def test_a_deleted_pod_is_answered_for_in_words_and_its_name_is_free(world: World):
    await world.post(PODS, {**WEB, "status_requested": "OFF"})
    assert await world.change("DELETE", f"{PODS}/web") == "pod 'web' is being deleted"
    assert (await world.call("GET", f"{PODS}/web")).status_code == 404
    await world.post(PODS, WEB, user="bob")


async def test_the_jupyter_pod_of_a_user_is_made_once(world: World):
    first = await world.get(f"{PODS}/jupyter/ensure")
    assert (first["pod_id"], first["networking"]["default"]["port"]) == ("jupyterada", 8888)
    again = await world.get(f"{PODS}/jupyter/ensure")
    assert again["creation_ts"] == first["creation_ts"]
    assert (await world.get(f"{PODS}/jupyter/ensure", user="bob"))["pod_id"] == "jupyterbob"


@pytest.mark.parametrize("way", WAYS_TO_REST.values(), ids=WAYS_TO_REST)
async def test_what_is_wanted_on_starts_however_it_came_to_rest(world: World, way: tuple[PodEvent, ...]):
    await world.get(f"{PODS}/jupyter/ensure")
    mine = f"{PODS}/jupyterada"
    for ask in ("ensure", "put"):
        await moved(world, "jupyterada", *way)
        assert (await world.get(mine))["status"] in AT_REST
        if ask == "ensure":
            started = await world.get(f"{PODS}/jupyter/ensure")
        else:
            started = await world.change("PUT", mine, {"status_requested": "ON"})
        assert (started["status"], started["status_requested"]) == ("REQUESTED", "ON")


async def test_a_jupyter_pod_that_is_being_stopped_starts_again_when_it_has(world: World):
    await world.get(f"{PODS}/jupyter/ensure")
    await world.get(f"{PODS}/jupyterada/stop")
    await moved(world, "jupyterada", E.STOPPING)
    again = await world.get(f"{PODS}/jupyter/ensure")
    assert (again["status"], again["status_requested"]) == ("DELETING", "RESTART")
    assert (await world.get(f"{PODS}/jupyter/ensure"))["status_requested"] == "RESTART"


# -- who may what ------------------------------------------------------------------------------------------------

READ, USER, ADMIN = "READ", "USER", "ADMIN"
NEEDS = [
    ("GET", "", None, READ),
    ("GET", "/derived", None, READ),
    ("GET", "/logs", None, READ),
    ("GET", "/credentials", None, USER),
    ("GET", "/permissions", None, USER),
    ("GET", "/stop", None, USER),
    ("GET", "/restart", None, USER),
    ("GET", "/restart?grab_latest_template_tag=true", None, ADMIN),
    ("PUT", "", {"description": "x"}, ADMIN),
    ("POST", "/exec", {"commands": ["ls"]}, ADMIN),
    ("POST", "/permissions", {"user": "eve", "level": "READ"}, ADMIN),
    ("DELETE", "/permissions/eve", None, ADMIN),
    ("POST", "/save_pod_as_template_tag", {"template_id": "tt", "commit_message": "m"}, ADMIN),
    ("DELETE", "", None, ADMIN),
]
"""What each operation needs, those that change the pod last."""


@pytest.mark.parametrize(("method", "path", "body", "needed"), NEEDS, ids=[f"{m} {p}" for m, p, _, _ in NEEDS])
async def test_every_operation_checks_its_level(world: World, method: str, path: str, body: Any, needed: str):
    await world.post(PODS, WEB)
    await world.post("/v3/pods/templates", {"template_id": "tt"})
    await world.post("/v3/pods/templates/tt/permissions", {"user": "bob", "level": "USER"})
    await running(world, "web")
    assert (await world.call(method, f"{PODS}/web{path}", body, user="bob")).status_code == 404
    for level in (READ, USER, ADMIN):
        await world.post(f"{PODS}/web/permissions", {"user": "bob", "level": level})
        if path.startswith("/permissions/"):
            await world.post(f"{PODS}/web/permissions", {"user": "eve", "level": "READ"})
        status = (await world.call(method, f"{PODS}/web{path}", body, user="bob")).status_code
        held = (READ, USER, ADMIN).index(level) >= (READ, USER, ADMIN).index(needed)
        assert status == (200 if held else 403), level
        if held and method == "DELETE":
            break


async def test_a_list_holds_what_one_may_read(world: World):
    await world.post(PODS, WEB)
    assert await world.get(PODS, user="bob") == []
    assert len(await world.get(PODS, user="admin")) == 1
    shown = await world.post(f"{PODS}/web/permissions", {"user": "*", "level": "READ"})
    assert shown == {"permissions": ["*:READ", "ada:ADMIN"]}
    assert len(await world.get(PODS, user="bob")) == 1


async def test_the_last_admin_cannot_be_removed(world: World):
    await world.post(PODS, WEB)
    response = await world.call("DELETE", f"{PODS}/web/permissions/ada")
    assert (response.status_code, "last with ADMIN" in response.text) == (409, True)
    wrong = await world.call("POST", f"{PODS}/web/permissions", {"user": "bob", "level": "OWNER"})
    assert (wrong.status_code, "use one of READ, USER, ADMIN" in wrong.text) == (400, True)


async def test_a_proxy_is_told_the_names_of_pods_by_admins_alone(world: World):
    await world.post(PODS, NEO4J)
    assert (await world.call("GET", "/v3/traefik-config", user=None)).status_code == 401
    assert (await world.call("GET", "/v3/traefik-config")).status_code == 403
    told = (await world.call("GET", "/v3/traefik-config", user="admin")).json()
    shared = {"service": "berth", "tls": {"passthrough": True}}
    assert told["tcp"]["routers"] == {
        name: {"rule": f"HostSNI(`{name}`)", **shared}
        for name in ("docpod.pods.localhost", "docpod-browser.pods.localhost")
    }
    assert told["tcp"]["services"] == {"berth": {"loadBalancer": {"servers": [{"address": "berth.test:443"}]}}}
    edge = world.app.state.edge
    world.app.state.edge = replace(edge, options=replace(edge.options, trusted_proxies=("127.0.0.1",)))
    assert (await world.call("GET", "/v3/traefik-config", user=None)).json() == told
    passed_on = {"X-Forwarded-For": "192.0.2.7"}
    assert (await world.call("GET", "/v3/traefik-config", user=None, headers=passed_on)).status_code == 401
    page = await world.get("/v3/error-handler/503", user=None)
    assert (page["status"], "try again" in page["message"]) == (503, True)
    assert (await world.call("GET", "/v3/error-handler/200", user=None)).status_code == 400


async def test_nobody_without_a_token_sees_anything(world: World):
    for path in ("", "/docpod", "/templates", "/images", "/jupyter/ensure"):
        assert (await world.call("GET", PODS + path, user=None)).status_code == 401
