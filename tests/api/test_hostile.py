"""What is sent to hurt: a clear 4xx, nothing stored, nothing executed."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from api.middleware import DRAINED_BYTES, MAX_BODY_BYTES
from tests.api.world import BASE_URL, JOB, World

SYSTEM = {
    "id": "cedar",
    "systemType": "LINUX",
    "host": "cedar.example.org",
    "defaultAuthnMethod": "PKI_KEYS",
    "canExec": True,
    "jobRuntimes": [{"runtimeType": "SINGULARITY"}],
    "jobWorkingDir": "work",
}


def option(text: str) -> dict:
    return {"parameterSet": {"schedulerOptions": [{"name": "o", "arg": text}]}}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "a\nb"}, "name"),
        ({"name": "a\u0000b"}, "NUL"),
        ({"name": "a\u202eb\u2028"}, "name"),
        ({"name": "${Nothing}"}, "name"),
        ({"execSystemExecDir": "../../etc"}, "execSystemExecDir"),
        ({"execSystemOutputDir": "a/../../b"}, "execSystemOutputDir"),
        ({"execSystemInputDir": "HOST_EVAL($HOME)/x"}, "execSystemInputDir"),
        ({"archiveSystemDir": "x/${Nothing}"}, "archiveSystemDir"),
        ({"execSystemLogicalQueue": "a;rm -rf /"}, "execSystemLogicalQueue"),
        ({"nodeCount": 0}, "nodeCount"),
        ({"nodeCount": 10**30}, "nodeCount"),
        ({"memoryMB": -1}, "memoryMB"),
        ({"maxMinutes": 10**9}, "maxMinutes"),
        ({"coresPerNode": True}, "coresPerNode"),
        ({"nodeCount": 1.5}, "nodeCount"),
        ({"parameterSet": {"envVariables": [{"key": "A;B", "value": "x"}]}}, "key"),
        ({"parameterSet": {"envVariables": [{"key": "A", "value": "x\ny"}]}}, "value"),
        ({"parameterSet": {"envVariables": [{"key": "_tapisJobUUID", "value": "x"}]}}, "_tapis"),
        ({"parameterSet": {"appArgs": [{"name": "a`b", "arg": "x"}]}}, "name"),
        ({"parameterSet": {"appArgs": [{"name": "a", "arg": "it's"}]}}, "balance its quotes"),
        ({"parameterSet": {"logConfig": {"stdoutFilename": "../../x"}}}, "stdoutFilename"),
        ({"parameterSet": {"logConfig": {"stdoutFilename": "a|b"}}}, "stdoutFilename"),
        (option("--wrap=id"), "--wrap is not allowed"),
        (option("--account=x;id"), "does not take the value"),
        (option("--account=x\n#SBATCH --uid=0"), "arg"),
        (option("--account='x y'"), "does not take the value"),
        (option("--time=10"), "use maxMinutes"),
        (option("-p long"), "use execSystemLogicalQueue"),
        (option("-N 4"), "use nodeCount"),
        (option("--mem 4G"), "use memoryMB"),
        (option("--tapis-profile tacc"), "there is no scheduler profile 'tacc'"),
        (option("--tapis-profile=../x"), "does not take the value"),
        (option("--tapis-profile"), "needs a value"),
        (option("$(id)"), "is not an option"),
        ({"fileInputs": [{"sourceUrl": "file:///etc/passwd"}]}, "sourceUrl"),
        ({"fileInputs": [{"sourceUrl": "tapis://alder/../../etc/passwd"}]}, "sourceUrl"),
        ({"fileInputs": [{"sourceUrl": "tapis://alder/x", "targetPath": "../x"}]}, "targetPath"),
        ({"fileInputs": [{"sourceUrl": "tapis://nowhere/x"}]}, "nowhere"),
        ({"notes": {"berth": {"array": "0-999999999"}}}, "array"),
        ({"notes": {"berth": {"array": "5-1"}}}, "array"),
        ({"notes": {"berth": {"colour": 1}}}, "colour"),
        ({"notes": {"berth": {"image": "--help"}}, "appId": "berth.image"}, "image"),
        ({"notes": {"x": "y" * 70_000}}, "notes"),
        ({"execSystemConstraints": ["1=1; DROP TABLE jobs"]}, "execSystemConstraints"),
        ({"tenant": "other"}, "tenant"),
        ({"execSystemId": "alder", "dynamicExecSystem": True}, "dynamicExecSystem"),
        ({"cmdPrefix": "echo", "isMpi": True}, "cmdPrefix"),
        ({"cmdPrefix": "echo"}, "cmdPrefix"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
async def test_a_job_that_cannot_be_meant_is_refused_by_name(world: World, changes, named):
    response = await world.call("POST", "/v3/jobs/submit", {**JOB, **changes})
    assert response.status_code == 400, response.text
    assert named in response.json()["message"]
    assert await world.count_jobs() == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"id": "a b"}, "id"),
        ({"id": ".."}, "id"),
        ({"id": "a/b"}, "id"),
        ({"host": "-oProxyCommand=id"}, "host"),
        ({"host": "a;b"}, "host"),
        ({"port": 0}, "port"),
        ({"rootDir": "relative"}, "rootDir"),
        ({"rootDir": "/a/../.."}, "rootDir"),
        ({"jobWorkingDir": "../up"}, "jobWorkingDir"),
        ({"systemType": "S3"}, "systemType"),
        ({"canRunBatch": True}, "batchScheduler"),
        ({"effectiveUserId": "root;id"}, "effectiveUserId"),
        ({"useProxy": True}, "useProxy"),
        ({"unknown": 1}, "unknown"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
async def test_a_system_that_cannot_be_meant_is_refused_by_name(world: World, changes, named):
    response = await world.call("POST", "/v3/systems", {**SYSTEM, **changes})
    assert response.status_code == 400, response.text
    assert named in response.json()["message"]
    assert (await world.call("GET", "/v3/systems/cedar")).status_code == 404


async def test_only_an_admin_may_make_the_servers_own_machine_a_system(world: World):
    local = {**SYSTEM, "notes": {"berth": {"backend": "local"}}}
    assert (await world.call("POST", "/v3/systems", local)).status_code == 403
    await world.post("/v3/systems", SYSTEM)
    patched = await world.call("PATCH", "/v3/systems/cedar", {"notes": {"berth": {"backend": "local"}}})
    assert patched.status_code == 403
    await world.post("/v3/systems", {**local, "id": "here"}, user="admin")


@pytest.mark.parametrize("root", ["", "/home", "/home/local/dev", "/link", "/data"])
async def test_the_servers_own_files_are_below_no_root_directory(world: World, tmp_path: Path, root: str):
    (tmp_path / "link").symlink_to(tmp_path)
    ports = replace(world.ports, own_places=(tmp_path / "home", tmp_path / "data/berth.sqlite"))
    world.app.state.edge = replace(world.app.state.edge, ports=ports)
    bad = {**SYSTEM, "id": "here", "rootDir": f"{tmp_path}{root}", "notes": {"berth": {"backend": "local"}}}
    refused = await world.call("POST", "/v3/systems", bad, user="admin")
    assert refused.status_code == 400
    assert "rootDir: " in refused.json()["message"]
    assert "name a directory apart from Berth's home" in refused.json()["message"]
    await world.post("/v3/systems", {**bad, "notes": {}}, user="admin")
    patched = await world.call("PATCH", "/v3/systems/here", {"notes": bad["notes"]}, user="admin")
    assert (patched.status_code, "rootDir: " in patched.json()["message"]) == (400, True)
    await world.post("/v3/systems", {**bad, "id": "apart", "rootDir": f"{tmp_path}/data/work"}, user="admin")


async def test_a_body_of_100_mb_is_refused_before_it_is_read(world: World):
    async def endless() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {"Content-Type": "application/json", "Content-Length": str(100 * 1024 * 1024)}
    response = await world.call("POST", "/v3/jobs/submit", content=endless(), headers=headers)
    assert response.status_code == 413
    assert response.json()["metadata"]["problem"]["status"] == 413


@pytest.mark.parametrize(
    "path", ["/v3/files/ops/alder/a", "/v3/pods/volumes/data/upload/a", "/v3/pods/web/upload_to_pod"]
)
async def test_only_what_is_written_to_the_disk_may_be_large(world: World, path: str):
    """JSON is read into memory before anybody asks who sends it."""
    large = b'{"operation": "MOVE", "newPath": "b"}'.ljust(2 * 1024 * 1024)
    headers = {"Content-Type": "application/json"}
    assert (await world.call("PUT", path, content=large, headers=headers, user=None)).status_code == 413


async def test_a_body_that_hides_its_length_is_cut_off(world: World):
    sent = 0

    async def growing() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1000:
            sent += 1
            yield b" " * 100_000

    response = await world.call(
        "POST", "/v3/jobs/submit", content=growing(), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert sent * 100_000 < MAX_BODY_BYTES + DRAINED_BYTES + 300_000


def forged(world: World, header: dict, claims: dict | None = None) -> str:
    """The token of ada with another header (and claims), without a signature that could hold."""
    _, body, signature = world.token().split(".")

    def part(content: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(claims) if claims else body}.{'' if header['alg'] == 'none' else signature}"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.é.é", "." * 5000, "x" * 100_000])
async def test_nonsense_is_no_token(world: World, token):
    response = await world.call("GET", "/v3/jobs/list", user=None, headers={"X-Tapis-Token": token.encode()})
    assert response.status_code == 401
    assert response.json()["status"] == "error"


async def test_a_token_that_nobody_signed_is_refused(world: World):
    kid = json.loads(base64.urlsafe_b64decode(world.token().split(".")[0] + "=="))["kid"]
    for header in ({"alg": "none", "typ": "JWT"}, {"alg": "HS256", "kid": kid}, {"alg": "RS256", "kid": "../x"}):
        response = await world.call("GET", "/v3/jobs/list", user=None, headers={"X-Tapis-Token": forged(world, header)})
        assert response.status_code == 401, header


async def test_an_expired_token_says_so(world: World):
    token = world.token()
    world.clock.now = world.clock.now.replace(year=world.clock.now.year + 1)
    response = await world.call("GET", "/v3/jobs/list", user=None, headers={"X-Tapis-Token": token})
    assert response.status_code == 401
    assert "expired" in response.json()["message"]


async def test_a_refresh_token_is_no_access_token(world: World):
    refresh, _ = world.tokens.refresh(world.users["ada"], BASE_URL)
    response = await world.call("GET", "/v3/jobs/list", user=None, headers={"X-Tapis-Token": refresh.token})
    assert response.status_code == 401
    assert "refresh token" in response.json()["message"]


async def test_a_token_speaks_for_nobody_else(world: World):
    response = await world.call("GET", "/v3/jobs/list", headers={"X-Tapis-User": "bob"})
    assert response.status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/v3/jobs/a%00b",
        "/v3/systems/a%0ab",
        "/v3/jobs/list?orderBy=%00",
        "/v3/jobs/search?name.eq=%00",
        "/v3/jobs/list?limit=99999999999999999999",
        "/v3/jobs/list?skip=-1",
        "/v3/jobs/list?orderBy=1%3BDROP",
        "/v3/jobs/list?startAfter=x",
        "/v3/systems?search=(id.eq.x",
        "/v3/systems?search=id.xx.y",
        "/v3/systems?select=secrets",
        "/v3/jobs/search?created.gt=yesterday",
        "/v3/jobs/search?id.eq=1%20OR%201",
    ],
)
async def test_an_address_that_cannot_be_meant_is_400(world: World, path):
    response = await world.call("GET", path)
    assert response.status_code == 400, response.text
    assert response.json()["status"] == "error"


async def test_a_path_out_of_the_output_directory_is_refused(world: World):
    uuid = (await world.submit())["uuid"]
    await world.finish(uuid, b"out")
    world.connections.systems["alder"].files.put("/etc/passwd", b"root")
    for path in ("..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "a/../../x"):
        for what in ("list", "download"):
            response = await world.call("GET", f"/v3/jobs/{uuid}/output/{what}/{path}")
            assert response.status_code in (400, 404), path
            assert b"root" not in response.content


async def test_a_text_that_looks_like_sql_is_only_a_text(world: World):
    text = "'; DROP TABLE jobs; --"
    job = await world.submit(description=text, tags=[text])
    assert (await world.get(f"/v3/jobs/{job['uuid']}"))["description"] == text
