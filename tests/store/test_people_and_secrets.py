"""Tenants, users, credentials and keys: apart from each other, and secrets readable only through the box."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from scheduler.model.errors import AlreadyExists, NotFound, Unauthenticated
from scheduler.model.registries import RegistryLogin
from scheduler.model.systems import AuthnMethod, Credential
from scheduler.model.tenants import Site, Tenant
from scheduler.model.users import OAuthClient, RefreshGrant, SigningKey, User
from scheduler.security.secrets import SecretBox, SecretsUnreadable, box_at, read_key, rotate
from scheduler.store.database import Database
from scheduler.store.keys import KeyStore, RefreshStore
from scheduler.store.oauth_clients import OAuthClientStore
from scheduler.store.registries import RegistryLoginStore
from scheduler.store.rotation import reseal_everything
from scheduler.store.systems import CredentialStore
from scheduler.store.tenants import TenantStore
from scheduler.store.users import UserStore
from tests.store.things import NOW, tenant_and_site

ANN = User(tenant="dev", username="ann", email="ann@example.org", password_hash="h", is_admin=True, created_at=NOW)
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nvery secret\n"
CREDENTIAL = Credential(
    tenant="dev",
    system_id="cluster",
    user="ann",
    login_user="ann1",
    private_key=KEY,
    public_key="ssh-ed25519 A",
    verified_at=NOW,
    created_at=NOW,
)
LOGIN = RegistryLogin(
    tenant="dev", user="ann", registry="ghcr.io", username="ann1", secret="a sécret\n", created_at=NOW
)
CLIENT = OAuthClient(
    tenant="dev", client_id="portal", owner="ann", client_key="hunter4", created_at=NOW, updated_at=NOW
)


async def test_tenants_and_sites_are_read_back(database):
    async with database.reading() as db:
        store = TenantStore(db)
        assert await store.sites() == [Site(id="here", created_at=NOW)]
        dev = Tenant(id="dev", site_id="here", hosts=("dev.example.org",), created_at=NOW)
        assert (await store.tenants())[0] == await store.get("dev") == dev
        with pytest.raises(NotFound, match="nobody"):
            await store.get("nobody")


async def test_with_several_tenants_the_host_must_be_one_of_theirs(database):
    async with database.reading() as db:
        store = TenantStore(db)
        assert (await store.by_host("DEV.example.org")).id == "dev"
        assert await store.by_host("elsewhere.example.org") is None


async def test_with_one_tenant_any_host_is_its_own(empty_url):
    database = Database(empty_url)
    await database.create_tables()
    await tenant_and_site(database, "only")
    async with database.reading() as db:
        assert (await TenantStore(db).by_host("127.0.0.1")).id == "only"
    await database.aclose()


async def test_a_tenant_and_a_host_are_taken_once(database):
    for twin in (Tenant(id="dev", site_id="here"), Tenant(id="new", site_id="here", hosts=("Dev.Example.org",))):
        with pytest.raises(AlreadyExists):
            async with database.transaction() as db:
                await TenantStore(db).add_tenant(twin)
    async with database.reading() as db:
        assert [tenant.id for tenant in await TenantStore(db).tenants()] == ["dev", "other"]


async def test_a_user_lives_in_one_tenant(database):
    async with database.transaction() as db:
        store = UserStore(db)
        await store.add(ANN)
        await store.add(replace(ANN, tenant="other", is_admin=False))
        with pytest.raises(AlreadyExists, match="ann"):
            await store.add(ANN)
        assert await store.get("dev", "ann") == ANN
        await store.set_password("dev", "ann", "new")
        assert (await store.get("dev", "ann")).password_hash == "new"
        assert (await store.get("other", "ann")).password_hash == "h"
        await store.delete("dev", "ann")
        assert await store.list("dev") == []
        assert len(await store.list("other", limit=5)) == 1
        for asking in (store.get("dev", "ann"), store.delete("dev", "ann"), store.set_password("dev", "ann", "x")):
            with pytest.raises(NotFound):
                await asking


async def test_a_credential_is_read_back_with_its_secrets(database):
    async with database.transaction() as db:
        store = CredentialStore(db)
        await store.put(CREDENTIAL)
        assert await store.get("dev", "cluster", "ann") == CREDENTIAL
        newer = replace(CREDENTIAL, method=AuthnMethod.PASSWORD, private_key=None, public_key=None, password="pä")
        await store.put(newer)
        assert await store.get("dev", "cluster", "ann") == newer
        assert await store.holders("dev", "ann") == {"cluster"}
        assert await store.holders("other", "ann") == frozenset()
        for tenant, user in (("other", "ann"), ("dev", "bob")):
            with pytest.raises(NotFound):
                await store.get(tenant, "cluster", user)
        await store.remove("dev", "cluster", "ann")
        with pytest.raises(NotFound):
            await store.remove("dev", "cluster", "ann")


async def test_logins_for_registries_belong_to_one_user_of_one_tenant(database):
    others = [replace(LOGIN, user="bob"), replace(LOGIN, tenant="other"), replace(LOGIN, registry="docker.io")]
    async with database.transaction() as db:
        store = RegistryLoginStore(db)
        for login in (LOGIN, *others, replace(LOGIN, secret="newer")):
            await store.put(login)
        assert await store.of("dev", "ann") == [others[2], replace(LOGIN, secret="newer")]
        assert await store.get("dev", "bob", "ghcr.io") == others[0]
        await store.remove("dev", "ann", "ghcr.io")
        for asking in (store.get("dev", "ann", "ghcr.io"), store.remove("dev", "ann", "ghcr.io")):
            with pytest.raises(NotFound, match=r"login 'ghcr\.io'"):
                await asking
        await store.remove_all("dev", "ann")
        assert await store.of("dev", "ann") == []
        assert await store.of("other", "ann") == [others[1]]
        assert "sécret" not in repr(LOGIN)


async def test_no_secret_lies_readable_in_the_database(database):
    async with database.transaction() as db:
        await CredentialStore(db).put(replace(CREDENTIAL, password="hunter2"))
        await RegistryLoginStore(db).put(replace(LOGIN, secret="hunter3"))
        await OAuthClientStore(db).add(CLIENT)
        await KeyStore(db).add(SigningKey(kid="k", private_pem="PRIVATE", public_pem="PUBLIC", created_at=NOW))
        rows = [
            str((await db.execute(text(f"SELECT * FROM {table}"))).all())
            for table in ("credentials", "registry_logins", "signing_keys", "oauth_clients")
        ]
    assert not [
        word for word in ("very secret", "hunter2", "hunter3", "hunter4", "PRIVATE") if any(word in row for row in rows)
    ]


async def test_a_secret_copied_into_another_row_does_not_open(database):
    async with database.transaction() as db:
        await CredentialStore(db).put(CREDENTIAL)
        await db.execute(text("UPDATE credentials SET \"user\" = 'eve'"))
        with pytest.raises(SecretsUnreadable, match="moved"):
            await CredentialStore(db).get("dev", "cluster", "eve")
        await RegistryLoginStore(db).put(LOGIN)
        await db.execute(text("UPDATE registry_logins SET \"user\" = 'eve'"))
        with pytest.raises(SecretsUnreadable, match="moved"):
            await RegistryLoginStore(db).of("dev", "eve")
        await OAuthClientStore(db).add(CLIENT)
        await db.execute(text("UPDATE oauth_clients SET client_id = 'eve'"))
        with pytest.raises(SecretsUnreadable, match="moved"):
            await OAuthClientStore(db).get("dev", "eve")


class PowerCut(Exception):
    """The process ends here."""


@pytest.mark.parametrize("cut", ["never", "before the commit", "after the commit"])
async def test_a_key_can_be_rotated_and_an_interrupted_rotation_loses_nothing(url, tmp_path, cut):
    path, key = (
        tmp_path / "secrets.key",
        SigningKey(kid="k", private_pem="PRIVATE", public_pem="PUBLIC", created_at=NOW),
    )

    async def everything(db):
        login = await RegistryLoginStore(db).get("dev", "ann", "ghcr.io")
        client = await OAuthClientStore(db).get("dev", "portal")
        return await CredentialStore(db).get("dev", "cluster", "ann"), login, client, await KeyStore(db).all()

    async def in_one_transaction(box, act):
        database = Database(url, sealer=box)
        try:
            async with database.transaction() as db:
                return await act(db)
        finally:
            await database.aclose()

    async def fill(db):
        await CredentialStore(db).put(CREDENTIAL)
        await RegistryLoginStore(db).put(LOGIN)
        await OAuthClientStore(db).add(CLIENT)
        await KeyStore(db).add(key)

    async def reseal(box):
        await in_one_transaction(box, reseal_everything)

    async def reseal_with_a_power_cut(box):
        async def sealed_in_vain(db):
            await reseal_everything(db)
            raise PowerCut

        await in_one_transaction(box, sealed_in_vain if cut == "before the commit" else reseal_everything)
        raise PowerCut

    await in_one_transaction(box_at(path), fill)
    before = path.read_bytes()
    if cut != "never":
        with pytest.raises(PowerCut):
            await rotate(path, reseal_with_a_power_cut)
        assert await in_one_transaction(box_at(path), everything) == (CREDENTIAL, LOGIN, CLIENT, [key])
    await rotate(path, reseal)
    assert path.read_bytes() != before
    assert [entry.name for entry in tmp_path.iterdir() if "key" in entry.name] == ["secrets.key"]
    assert await in_one_transaction(SecretBox(read_key(path)), everything) == (CREDENTIAL, LOGIN, CLIENT, [key])


async def test_the_newest_key_comes_first_and_a_retired_one_stays(database):
    keys = [
        SigningKey(kid=str(n), private_pem=f"p{n}", public_pem="q", created_at=NOW + timedelta(days=n)) for n in (1, 2)
    ]
    async with database.transaction() as db:
        store = KeyStore(db)
        for key in keys:
            await store.add(key)
        await store.retire("1", NOW)
        assert await store.all() == [keys[1], replace(keys[0], retired_at=NOW)]


def a_grant(jti, family="f", username="ann", count=0):
    issued = {"issued_at": NOW, "expires_at": NOW + timedelta(days=30)}
    return RefreshGrant(jti=jti, family=family, tenant="dev", username=username, count=count, **issued)


async def granted(database, *grants):
    async with database.transaction() as db:
        for grant in grants:
            await RefreshStore(db).add(grant)


async def use(database, jti):
    async with database.transaction() as db:
        return await RefreshStore(db).use(jti, NOW)


async def test_a_refresh_token_is_good_once(database):
    await granted(database, a_grant("1"))
    assert await use(database, "1") == a_grant("1")
    assert await use(database, "1") is None


async def test_a_refresh_token_that_comes_again_ends_its_family(database):
    await granted(database, a_grant("1"), a_grant("2", count=1), a_grant("3", family="other"))
    await use(database, "1")
    await use(database, "1")
    assert await use(database, "2") is None, "what the thief or the owner got for the first is worth nothing"
    assert await use(database, "3") is not None


async def test_a_refresh_token_that_was_never_given_out_is_refused(database):
    with pytest.raises(Unauthenticated, match="not known"):
        await use(database, "1")


async def test_refresh_tokens_end_with_the_password_or_on_request(database):
    await granted(database, a_grant("1"), a_grant("2", family="g"), a_grant("3", family="h", username="bob"))
    async with database.transaction() as db:
        await RefreshStore(db).revoke("1", NOW)
    assert await use(database, "1") is None
    async with database.transaction() as db:
        await RefreshStore(db).revoke_user("dev", "ann", NOW)
        assert await RefreshStore(db).sweep(NOW) == 0
    assert await use(database, "2") is None
    assert await use(database, "3") is not None
    async with database.transaction() as db:
        assert await RefreshStore(db).sweep(NOW + timedelta(days=31)) == 3


async def test_two_who_spend_one_refresh_token_at_once_do_not_both_get_new_ones(on_postgresql):
    await granted(on_postgresql, a_grant("1"))
    answers = await asyncio.gather(*(use(on_postgresql, "1") for _ in range(8)))
    assert sum(answer is not None for answer in answers) == 1
