"""Systems, permissions and credentials over HTTP."""

import pytest

from scheduler.store.systems import CredentialStore, SystemStore
from tests.api.test_hostile import SYSTEM
from tests.api.world import World


async def test_a_created_system_shows_every_attribute_resolved(world: World):
    response = await world.call("POST", "/v3/systems", {**SYSTEM, "rootDir": "/home/${apiUserId}", "tags": ["t"]})
    assert response.status_code == 201
    assert response.json()["result"] == {"url": "http://berth.test/v3/systems/cedar"}
    system = await world.get("/v3/systems/cedar")
    assert (system["owner"], system["effectiveUserId"], system["rootDir"]) == ("ada", "ada", "/home/ada")
    assert system["isDynamicEffectiveUser"] is True
    assert system["jobRuntimes"] == [{"runtimeType": "SINGULARITY", "version": None}]
    assert (system["enabled"], system["deleted"], system["tenant"], system["hasCredentials"]) == (
        True,
        False,
        "dev",
        False,
    )
    assert system["created"].endswith("Z")


async def test_a_system_that_is_sent_back_as_it_came_is_accepted(world: World):
    await world.post("/v3/systems", SYSTEM)
    shown = await world.get("/v3/systems/cedar")
    await world.post("/v3/systems", {**shown, "id": "copy"})
    copy = await world.get("/v3/systems/copy")
    for ours in ("id", "uuid", "created", "updated", "isDynamicEffectiveUser", "effectiveUserId"):
        shown.pop(ours)
        copy.pop(ours)
    assert shown == copy


async def test_an_id_is_given_once(world: World):
    await world.post("/v3/systems", SYSTEM)
    again = await world.call("POST", "/v3/systems", SYSTEM)
    assert again.status_code == 409
    assert "already exists" in again.json()["message"]


async def test_a_repeated_create_under_one_key_is_answered_alike(world: World):
    headers = {"Idempotency-Key": "s-1"}
    first = await world.post("/v3/systems", SYSTEM, headers=headers)
    assert await world.post("/v3/systems", SYSTEM, headers=headers) == first


async def test_others_do_not_know_of_a_system_until_it_is_granted(world: World):
    await world.post("/v3/systems", SYSTEM)
    assert (await world.call("GET", "/v3/systems/cedar", user="bob")).status_code == 404
    await world.post("/v3/systems/perms/cedar/user/bob", {"permissions": ["READ"]})
    assert (await world.get("/v3/systems/perms/cedar/user/bob"))["names"] == ["READ"]
    assert (await world.get("/v3/systems/cedar", user="bob"))["effectiveUserId"] == "bob"
    assert (await world.call("PATCH", "/v3/systems/cedar", {"description": "x"}, user="bob")).status_code == 403
    assert (await world.call("GET", "/v3/systems/cedar?requireExecPerm=true", user="bob")).status_code == 403
    assert [s["id"] for s in await world.get("/v3/systems?listType=ALL", user="bob")] == ["cedar"]
    await world.post("/v3/systems/perms/cedar/user/bob/revoke", {"permissions": ["READ"]})
    assert (await world.call("GET", "/v3/systems/cedar", user="bob")).status_code == 404


async def test_a_list_shows_the_summary_or_what_is_selected(world: World):
    summary = await world.get("/v3/systems?search=id.eq.alder")
    assert set(summary[0]) == {
        "id",
        "systemType",
        "owner",
        "host",
        "effectiveUserId",
        "defaultAuthnMethod",
        "canExec",
    }
    named = await world.get("/v3/systems?search=(id.like.*r*)~(enabled.eq.true)&select=id,host&orderBy=id(desc)")
    assert named == [{"id": "birch", "host": "birch.example.org"}, {"id": "alder", "host": "alder.example.org"}]
    assert "batchLogicalQueues" in (await world.get("/v3/systems?select=allAttributes"))[0]


async def test_a_patch_changes_what_it_names_and_nothing_else(world: World):
    before = await world.get("/v3/systems/alder")
    await world.change(
        "PATCH", "/v3/systems/alder", {"description": "better", "jobMaxJobs": 5, "id": "ignored", "rootDir": "/etc"}
    )
    after = await world.get("/v3/systems/alder")
    assert (after["description"], after["jobMaxJobs"]) == ("better", 5)
    unchanged = before.keys() - {"description", "jobMaxJobs", "updated"}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}


async def test_a_put_gives_defaults_to_what_it_leaves_out(world: World):
    await world.change("PATCH", "/v3/systems/birch", {"description": "d", "tags": ["t"]})
    await world.change(
        "PUT",
        "/v3/systems/birch",
        {"host": "new.example.org", "jobRuntimes": [{"runtimeType": "DOCKER"}], "jobWorkingDir": "w"},
    )
    after = await world.get("/v3/systems/birch")
    assert (after["host"], after["tags"], after["owner"], after["canExec"]) == ("new.example.org", [], "ada", True)


async def test_a_patch_that_makes_no_sense_is_refused_whole(world: World):
    refused = await world.call("PATCH", "/v3/systems/alder", {"description": "x", "batchDefaultLogicalQueue": "none"})
    assert refused.status_code == 400
    assert "batchDefaultLogicalQueue" in refused.json()["message"]
    assert (await world.get("/v3/systems/alder"))["description"] == ""


async def test_what_cannot_be_meant_of_images_is_refused_under_its_key(world: World):
    wrong = {"berth": {"images": {"store": "scratch", "waitS": 0}}}
    for method, path, body in (
        ("POST", "/v3/systems", {**SYSTEM, "notes": wrong}),
        ("PATCH", "/v3/systems/alder", {"notes": wrong}),
    ):
        refused = await world.call(method, path, body)
        assert refused.status_code == 400, method
        for key in ("store", "waitS"):
            assert f"notes.berth.images.{key}" in refused.json()["message"]
    good = {"berth": {"images": {"store": "/scratch/images", "quotaBytes": 2**40}}}
    await world.change("PATCH", "/v3/systems/alder", {"notes": good})
    assert (await world.get("/v3/systems/alder"))["notes"] == good


async def test_switches_say_how_much_they_changed(world: World):
    assert await world.post("/v3/systems/alder/disable") == {"changes": 1}
    assert await world.post("/v3/systems/alder/disable") == {"changes": 0}
    assert await world.get("/v3/systems/alder/isEnabled") == {"aBool": False}
    refused = await world.call("POST", "/v3/jobs/submit", {"name": "x", "appId": "hello", "appVersion": "0.1"})
    assert "disabled" in refused.json()["message"]
    assert await world.post("/v3/systems/alder/enable") == {"changes": 1}
    assert await world.post("/v3/systems/alder/delete") == {"changes": 1}
    assert (await world.call("GET", "/v3/systems/alder")).status_code == 404
    assert await world.post("/v3/systems/alder/undelete") == {"changes": 1}
    assert (await world.get("/v3/systems/alder"))["id"] == "alder"


async def test_a_key_pair_is_made_when_none_is_given(world: World):
    made = await world.post("/v3/systems/credential/alder/user/ada", {})
    assert made["publicKey"].startswith("ssh-ed25519 ")
    assert "authorized_keys" in made["message"]
    assert made["privateKey"] is None
    async with world.ports.reading() as db:
        kept = await CredentialStore(db).get("dev", "alder", "ada")
    assert kept.private_key.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


async def test_a_credential_is_tried_by_a_real_login_and_the_host_key_pinned(world: World, ssh_key: str):
    path = "/v3/systems/credential/alder/user/ada"
    one_line = {"privateKey": ssh_key.strip().replace("\n", "\\n"), "loginUser": "ada_l"}
    await world.post(path, one_line)
    shown = await world.get(path)
    assert (shown["loginUser"], shown["privateKey"], shown["authnMethod"]) == ("ada_l", None, "PKI_KEYS")
    assert shown["publicKey"].startswith("ssh-ed25519 ")
    assert shown["verifiedAt"]
    async with world.ports.reading() as db:
        assert (await SystemStore(db).get("dev", "alder")).host_key == "ssh-ed25519 AAAAfake"
        assert (await CredentialStore(db).get("dev", "alder", "ada")).private_key == ssh_key
    assert "host_key" not in str(await world.get("/v3/systems/alder"))


async def test_a_refused_login_is_told_in_the_systems_own_words_and_not_kept(world: World, ssh_key: str):
    world.connections.refused.add("ada")
    path = "/v3/systems/credential/birch/user/ada"
    await world.change("DELETE", path)
    response = await world.call("POST", path, {"privateKey": ssh_key})
    assert response.status_code == 400
    assert "Permission denied (publickey)." in response.json()["message"]
    assert (await world.call("GET", path)).status_code == 404
    await world.call("POST", path + "?skipCredentialCheck=true", {"privateKey": "k", "publicKey": "p"})
    checked = await world.call("POST", path + "/check")
    assert "Permission denied (publickey)." in checked.json()["message"]


@pytest.mark.parametrize(
    "key", ["nonsense", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"]
)
async def test_a_key_that_cannot_be_read_is_named(world: World, key):
    response = await world.call("POST", "/v3/systems/credential/alder/user/ada", {"privateKey": key})
    assert response.status_code == 400
    assert "privateKey: cannot be read" in response.json()["message"]


async def test_credentials_are_ones_own(world: World):
    await world.post("/v3/systems/perms/alder/user/bob", {"permissions": ["EXECUTE"]})
    await world.post("/v3/systems/credential/alder/user/bob", {}, user="bob")
    assert (await world.call("GET", "/v3/systems/credential/alder/user/ada", user="bob")).status_code in (403, 404)
    assert (await world.call("GET", "/v3/systems/credential/alder/user/bob", user="admin")).status_code == 200


async def test_a_static_account_has_one_credential_under_its_own_name(world: World):
    await world.post("/v3/systems", {**SYSTEM, "effectiveUserId": "svc"})
    wrong = await world.call("POST", "/v3/systems/credential/cedar/user/ada", {})
    assert "register the credential under that name" in wrong.json()["message"]
    await world.post("/v3/systems/credential/cedar/user/svc", {})
    assert (await world.get("/v3/systems/cedar"))["hasCredentials"] is True


async def test_probing_is_for_admins_and_owners(world: World):
    ask = {"host": "new.example.org", "loginUser": "ada", "privateKey": "k"}
    assert (await world.call("POST", "/v3/systems/probe", ask, user="bob")).status_code == 403
    report = await world.post("/v3/systems/probe", ask)
    assert report["definition"]["host"] == "new.example.org"
    assert report["hostKey"]


async def test_a_stored_credential_goes_only_to_its_own_host(world: World):
    elsewhere = {"host": "evil.example.org", "systemId": "alder"}
    assert (await world.call("POST", "/v3/systems/probe", elsewhere)).status_code == 403
    await world.post("/v3/systems/probe", {"host": "alder.example.org", "systemId": "alder"})


async def test_match_constraints_ranks_what_fits(world: World):
    found = await world.post(
        "/v3/systems/match/constraints", {"match": ["canRunBatch = true AND", "batchScheduler = 'SLURM'"]}
    )
    assert [system["id"] for system in found] == ["alder"]
    assert found[0]["notes"]["berth"]["estimate"]["totalP50"] >= 0
    bad = await world.call("POST", "/v3/systems/match/constraints", {"match": ["canRunBatch ="]})
    assert bad.status_code == 400
