"""Templates and the list of allowed images on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.model.pods import NetProtocol
from scheduler.services.pod_built_in import built_in
from scheduler.services.pod_definitions import Layer, defined
from scheduler.services.pod_fields import check
from tests.api.world import World

PODS, TEMPLATES, IMAGES = "/v3/pods", "/v3/pods/templates", "/v3/pods/images"
BASE = {"pod_definition": {"image": "redis:7", "environment_variables": {"A": "base"}}, "commit_message": "first"}


async def made(world: World, name: str, body: dict[str, Any] | None = None, **changes: Any) -> Any:
    """A template with one definition."""
    await world.post(TEMPLATES, {"template_id": name})
    return await world.post(f"{TEMPLATES}/{name}/tags", {**(body or BASE), **changes})


# -- built-in ones -----------------------------------------------------------------------------------------------


def test_what_comes_with_berth_can_be_run():
    assert set(built_in()) == {"neo4j", "postgres", "redis", "jupyter", "http"}
    for name, each in built_in().items():
        for tag in each.tags:
            check(tag.definition)
            run = defined({}, [Layer(tag.definition, tag.is_stateful)])
            assert run.nets
            assert run.is_stateful == (name != "http")
        assert [tag.created_at for tag in each.tags] == sorted((tag.created_at for tag in each.tags), reverse=True)
    postgres = defined({}, [Layer(built_in()["postgres"].tags[0].definition)])
    assert [(net.protocol, net.port) for net in postgres.nets] == [(NetProtocol.POSTGRES, 5432)]


async def test_everyone_reads_them_and_nobody_changes_them(world: World):
    listed = await world.get(TEMPLATES, user="bob")
    assert [each["template_id"] for each in listed] == sorted(built_in())
    (tag,) = await world.get(f"{TEMPLATES}/neo4j/tags/latest")
    assert tag["pod_definition"]["networking"]["default"] == {"protocol": "tcp", "port": 7687}
    assert await world.get(f"{TEMPLATES}/neo4j/tags/{tag['tag_timestamp']}") == [tag]
    for method, path, body in (
        ("PUT", "", {"description": "mine"}),
        ("DELETE", "", None),
        ("POST", "/tags", BASE),
    ):
        response = await world.call(method, f"{TEMPLATES}/neo4j{path}", body, user="admin")
        assert (response.status_code, "comes with Berth" in response.text) == (403, True)
    assert (await world.call("POST", TEMPLATES, {"template_id": "neo4j"})).status_code == 409


# -- one's own ---------------------------------------------------------------------------------------------------


async def test_a_template_is_made_described_tagged_and_deleted(world: World):
    created = await world.post(TEMPLATES, {"template_id": "mine", "description": "d", "metatags": ["a"]})
    assert await world.get(f"{TEMPLATES}/mine") == created
    changed = await world.change("PUT", f"{TEMPLATES}/mine", {"metatags": ["b"], "archive_message": "old"})
    assert (changed["description"], changed["metatags"], changed["archive_message"]) == ("d", ["b"], "old")
    tag = await world.post(f"{TEMPLATES}/mine/tags", {**BASE, "tag": "v1"})
    assert tag["tag_timestamp"].startswith("v1@2026-03-01-12:00:0")
    assert await world.get(f"{TEMPLATES}/mine/tags") == [tag]
    assert (await world.get(f"{TEMPLATES}/mine/tags?full=False"))[0]["pod_definition"] == {}
    every = await world.get(f"{TEMPLATES}/tags?full=True")
    assert next(each for each in every if each["template_id"] == "mine")["tags"] == [tag]
    assert await world.change("DELETE", f"{TEMPLATES}/mine") == "template 'mine' deleted"
    assert (await world.call("GET", f"{TEMPLATES}/mine/tags")).status_code == 404


async def test_pods_keep_what_their_tag_said_until_they_are_restarted_with_the_latest(world: World):
    await made(world, "mine")
    pod = await world.post(PODS, {"pod_id": "one", "template": "mine"})
    world.clock.now = world.clock.now.replace(hour=13)
    newer = {"pod_definition": {"image": "redis:8"}, "commit_message": "second"}
    await world.post(f"{TEMPLATES}/mine/tags", newer)
    assert [tag["commit_message"] for tag in await world.get(f"{TEMPLATES}/mine/tags/latest")] == ["second", "first"]
    await world.change("PUT", f"{PODS}/one", {"environment_variables": {"B": "2"}})
    assert (await world.get(f"{PODS}/one/derived"))["image"] == "redis:7"
    await world.get(f"{PODS}/one/restart")
    assert (await world.get(f"{PODS}/one/derived"))["image"] == "redis:7"
    latest = await world.get(f"{PODS}/one/restart?grab_latest_template_tag=True")
    assert latest["template"] > pod["template"]
    assert (await world.get(f"{PODS}/one/derived"))["image"] == "redis:8"


LATER_SAID = {"environment_variables": {"C": "3"}, "resources": {"cpu_limit": 200}}


@pytest.mark.parametrize("gone", ["mine", "lower"])
async def test_a_pod_whose_template_was_removed_keeps_what_it_has_of_it_and_can_be_changed(world: World, gone: str):
    await made(world, "lower")
    upper = {"template": "lower", "command": ["run"], "resources": {"gpus": 1}}
    await made(world, "mine", {"pod_definition": upper, "commit_message": "m"}, tag="v1")
    await world.post(PODS, {"pod_id": "one", "template": "mine:v1", "environment_variables": {"B": "2"}})
    before = await world.get(f"{PODS}/one/derived")
    await world.change("DELETE", f"{TEMPLATES}/{gone}")
    changed = await world.change("PUT", f"{PODS}/one", LATER_SAID)
    assert changed["template"] == before["template"]
    for _ in range(2):
        after = await world.get(f"{PODS}/one/derived")
        assert (after["image"], after["command"]) == (before["image"], before["command"])
        assert after["environment_variables"] == {"A": "base", "C": "3"}
        assert (after["resources"]["gpus"], after["resources"]["cpu_limit"]) == (1, 200)
        await world.change("PUT", f"{PODS}/one", LATER_SAID)
    latest = await world.call("GET", f"{PODS}/one/restart?grab_latest_template_tag=True")
    assert (latest.status_code, f"no template '{gone}'" in latest.text) == (400, True)


async def test_whoever_may_change_a_pod_need_not_read_its_template(world: World):
    await made(world, "mine")
    await world.post(PODS, {"pod_id": "one", "template": "mine"})
    await world.post(f"{PODS}/one/permissions", {"user": "bob", "level": "ADMIN"})
    await world.change("PUT", f"{PODS}/one", {"environment_variables": {"B": "2"}}, user="bob")
    assert (await world.get(f"{PODS}/one/derived"))["environment_variables"] == {"A": "base", "B": "2"}
    latest = await world.call("GET", f"{PODS}/one/restart?grab_latest_template_tag=True", user="bob")
    assert (latest.status_code, "no template 'mine'" in latest.text) == (400, True)


async def test_a_template_stands_on_one_other_and_no_more(world: World):
    await made(world, "lower")
    upper = {"pod_definition": {"template": "lower", "environment_variables": {"B": "upper"}}, "commit_message": "m"}
    tag = await made(world, "upper", upper)
    assert tag["pod_definition"]["template"].startswith("lower:latest@")
    await world.post(PODS, {"pod_id": "one", "template": "upper"})
    assert (await world.get(f"{PODS}/one/derived"))["environment_variables"] == {"A": "base", "B": "upper"}
    await world.post(TEMPLATES, {"template_id": "third"})
    body = {"pod_definition": {"template": "upper"}, "commit_message": "m"}
    refused = await world.call("POST", f"{TEMPLATES}/third/tags", body)
    assert (refused.status_code, "stands on a template itself" in refused.text) == (400, True)


async def test_a_pod_is_kept_as_a_tag(world: World):
    await world.post(PODS, {"pod_id": "one", "template": "http", "environment_variables": {"A": "1"}})
    await world.post(TEMPLATES, {"template_id": "mine"})
    body = {"template_id": "mine", "commit_message": "as it runs", "tag": "v2"}
    tag = await world.post(f"{PODS}/one/save_pod_as_template_tag", body)
    assert tag["pod_definition"]["environment_variables"] == {"A": "1"}
    assert tag["pod_definition"]["stateful"] is False
    again = await world.post(PODS, {"pod_id": "two", "template": "mine:v2"})
    assert again["networking"]["default"]["port"] == 5000


@pytest.mark.parametrize(
    ("definition", "named"),
    [
        ({"time_to_stop_default": 1}, "pod_definition.time_to_stop_default"),
        ({"template": "nothing"}, "pod_definition.template: there is no template 'nothing'"),
        ({"template": "secret"}, "there is no template 'secret'"),
        ({"colour": "red"}, "colour"),
        ({"networking": {"default": {"port": 0}}}, "pod_definition.networking.default.port"),
    ],
)
async def test_a_definition_that_cannot_be_meant_is_refused(world: World, definition: dict[str, Any], named: str):
    await world.post(TEMPLATES, {"template_id": "secret"}, user="bob")
    await world.post(TEMPLATES, {"template_id": "mine"})
    body = {"pod_definition": definition, "commit_message": "m"}
    refused = await world.call("POST", f"{TEMPLATES}/mine/tags", body)
    assert refused.status_code == 400
    assert named in refused.json()["message"]
    assert await world.get(f"{TEMPLATES}/mine/tags") == []


async def test_templates_of_others_are_seen_by_those_who_may(world: World):
    await made(world, "mine")
    assert (await world.call("GET", f"{TEMPLATES}/mine", user="bob")).status_code == 404
    refused = await world.call("POST", PODS, {"pod_id": "one", "template": "mine"}, user="bob")
    assert refused.status_code == 400
    await world.post(f"{TEMPLATES}/mine/permissions", {"user": "TENANT", "level": "READ"})
    await world.post(PODS, {"pod_id": "one", "template": "mine"}, user="bob")
    for method, path, body in (("PUT", "", {"description": "x"}), ("POST", "/tags", BASE), ("DELETE", "", None)):
        assert (await world.call(method, f"{TEMPLATES}/mine{path}", body, user="bob")).status_code == 403


# -- images ------------------------------------------------------------------------------------------------------


async def test_any_image_runs_until_one_is_listed_then_only_those_and_what_comes_with_berth(world: World):
    await world.post(PODS, {"pod_id": "one", "image": "ghcr.io/org/app:1"})
    listed = await world.post(IMAGES, {"image": "python", "description": "any tag"}, user="admin")
    assert (listed["tenants"], listed["added_by"]) == (["dev"], "admin")
    await world.post(PODS, {"pod_id": "two", "image": "docker.io/library/python:3.12"})
    await world.post(PODS, {"pod_id": "three", "template": "neo4j"})
    refused = await world.call("POST", PODS, {"pod_id": "four", "image": "ghcr.io/org/app:1"})
    assert (refused.status_code, "not among the images" in refused.text) == (400, True)
    await made(world, "mine", {"pod_definition": {"image": "ghcr.io/org/app:1"}, "commit_message": "a way round"})
    assert (await world.call("POST", PODS, {"pod_id": "five", "template": "mine"})).status_code == 400


@pytest.mark.parametrize("image", ["/proc/self/root", "/home/ann/x.sif", "oci:/srv/tree:1", "docker-archive:/x.tar"])
async def test_a_path_of_the_place_runs_only_where_an_admin_says_so(world: World, image: str):
    refused = await world.call("POST", PODS, {"pod_id": "one", "image": image})
    assert (refused.status_code, "not among the images" in refused.text) == (400, True)
    assert (await world.call("POST", PODS, {"pod_id": "two", "image": image}, user="admin")).status_code == 200


async def test_images_are_listed_all_or_none_and_taken_off_by_admins(world: World):
    both = [{"image": "python"}, {"image": "ghcr.io/org/app"}]
    assert (await world.call("POST", f"{IMAGES}/bulk", both)).status_code == 403
    assert len(await world.post(f"{IMAGES}/bulk", both, user="admin")) == 2
    more = [{"image": "redis"}, {"image": "python"}]
    assert (await world.call("POST", f"{IMAGES}/bulk", more, user="admin")).status_code == 409
    assert [each["image"] for each in await world.get(IMAGES)] == ["ghcr.io/org/app", "python"]
    added = await world.post(f"{IMAGES}/bulk?skip_duplicates=True", more, user="admin")
    assert [each["image"] for each in added] == ["redis"]
    assert (await world.get(f"{IMAGES}/ghcr.io/org/app"))["image"] == "ghcr.io/org/app"
    assert "not listed" in await world.change("DELETE", f"{IMAGES}/ghcr.io/org/app", user="admin")
    assert (await world.call("GET", f"{IMAGES}/ghcr.io/org/app")).status_code == 404


@pytest.mark.parametrize("image", ["python:3.12", "a b", "python@sha256:" + "0" * 64, ""])
async def test_a_name_with_a_tag_is_not_listed(world: World, image: str):
    assert (await world.call("POST", IMAGES, {"image": image}, user="admin")).status_code == 400


async def test_images_for_other_tenants_are_listed_by_the_sites_own_tenant_alone(world: World):
    body = {"image": "python", "tenants": ["*"]}
    assert (await world.call("POST", IMAGES, body, user="admin")).status_code == 403
