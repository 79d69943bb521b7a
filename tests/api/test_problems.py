"""Every error reaches the caller in the envelope, with a status that says whose turn it is."""

import inspect
from dataclasses import replace

import pytest

from api import problems
from scheduler.model import errors
from tests.api.world import JOB, World
from tests.fakes.system import Fault


def all_errors():
    pending, found = [errors.BerthError], []
    while pending:
        cls = pending.pop()
        found.append(cls)
        pending.extend(cls.__subclasses__())
    return [cls for cls in found if cls is not errors.BerthError and cls.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_has_a_row_of_its_own_or_of_its_kind(cls):
    kind = problems.kind_of(cls.__new__(cls))
    assert kind is not problems.UNFORESEEN, f"{cls.__name__} would reach a user as a 500; add it to PROBLEMS"
    assert 400 <= kind.status < 600


def test_every_error_is_told_apart_by_its_text():
    silent = [cls.__name__ for cls in all_errors() if not inspect.getdoc(cls)]
    assert not silent


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v3/nothing", 404),
        ("GET", "/", 404),
        ("DELETE", "/v3/jobs/submit", 405),
        ("GET", "/v3/systems/none", 404),
        ("GET", "/v3/jobs/none", 404),
        ("GET", "/v3/apps/none/1", 404),
    ],
)
async def test_what_is_not_there_is_said_in_the_envelope(world: World, method, path, status):
    response = await world.call(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body["status"] == "error"
    assert body["result"] is None
    assert body["message"]
    assert body["metadata"]["problem"]["status"] == status


async def test_all_problems_of_a_body_are_named_at_once(world: World):
    bad = {"name": "x" * 65, "appId": "hello", "appVersion": "0.1", "nodeCount": "two", "colour": 1, "tags": "t"}
    response = await world.call("POST", "/v3/jobs/submit", bad)
    assert response.status_code == 400
    message = response.json()["message"]
    assert isinstance(message, str)
    for said in (
        "name: is too long; at most 64 are allowed",
        "nodeCount: must be a whole number",
        "colour: is not a known field",
        "tags: must be a list",
    ):
        assert said in message
    fields = {problem["field"] for problem in response.json()["metadata"]["problem"]["problems"]}
    assert fields == {"name", "nodeCount", "colour", "tags"}


async def test_a_field_deep_inside_is_named_as_the_caller_wrote_it(world: World):
    body = {**JOB, "parameterSet": {"envVariables": [{"key": "OK", "value": "1"}, {"key": "not ok"}]}}
    response = await world.call("POST", "/v3/jobs/submit", body)
    assert "parameterSet.envVariables[1].key" in response.json()["message"]


async def test_a_form_where_json_is_needed_is_415(world: World):
    response = await world.call("POST", "/v3/jobs/submit", content=b"name=x", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415
    assert "application/json" in response.json()["message"]


async def test_a_body_that_is_no_json_is_400(world: World):
    response = await world.call("POST", "/v3/jobs/submit", content=b"{", headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert "body: is not JSON" in response.json()["message"]


async def test_a_bug_is_an_envelope_too_and_tells_nothing_of_the_inside(world: World):
    class Broken:
        def __call__(self):
            raise RuntimeError("secret detail")

    edge = world.app.state.edge
    world.app.state.edge = replace(edge, ports=replace(edge.ports, transaction=Broken(), reads=None))
    response = await world.call("GET", "/v3/jobs/list")
    assert response.status_code == 500
    assert response.json()["status"] == "error"
    assert "secret" not in response.text


async def test_a_system_that_does_not_answer_is_503_in_its_own_words(world: World):
    uuid = (await world.submit())["uuid"]
    await world.start(uuid)
    world.connections.systems["alder"].fail("read_log", Fault.UNAVAILABLE)
    response = await world.call("GET", f"/v3/jobs/{uuid}/logs")
    assert response.status_code == 503
    assert "no route to host" in response.json()["message"]
