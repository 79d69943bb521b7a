"""Logins: found as the Docker command finds them, and never shown."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from images.credentials import HUB_KEY, Login, ask_helper, docker_config, first_of, no_logins
from scheduler.model.errors import SpecInvalid


def auth(user: str, secret: str = "hunter2") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{secret}".encode()).decode()}


@pytest.fixture
def config(tmp_path):
    """Writes a config file and answers what finds logins in it."""

    def write(value: object):
        path = tmp_path / "config.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return docker_config(path)

    return write


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Installs a credential helper made of a few lines of shell."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def install(name: str, script: str) -> Path:
        program = tmp_path / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return tmp_path

    return install


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("https://ghcr.io/v2/", "ghcr.io"),
        ("GHCR.io/", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
        (HUB_KEY, "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
async def test_a_login_is_found_under_all_names_that_clients_write(config, key, host):
    logins = config({"auths": {key: auth("ann")}})
    assert await logins(host, "org/app") == Login("ann", "hunter2")
    assert await logins("other.org", "org/app") is None


async def test_the_nearest_parent_of_a_repository_wins(config):
    logins = config({"auths": {"quay.io": auth("all"), "quay.io/org": auth("org"), "quay.io/org/app": auth("app")}})
    found = [await logins("quay.io", name) for name in ("org/app", "org/other", "orga/app")]
    assert [login.username for login in found] == ["app", "org", "all"]


async def test_a_password_may_hold_colons_and_an_identity_token_has_no_user(config):
    logins = config({"auths": {"a.org": auth("ann", "a:b"), "b.org": {"identitytoken": "id"}, "c.org": {}}})
    assert (await logins("a.org", "x")).secret == "a:b"
    assert (await logins("b.org", "x")).is_identity_token
    assert await logins("c.org", "x") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"a.org": {"auth": "hunter2!"}}}', "[" * 100_000])
async def test_a_file_that_cannot_be_read_is_named_and_not_quoted(config, text):
    with pytest.raises(SpecInvalid, match=r"config\.json.*is no registry configuration") as refused:
        await config(text)("a.org", "x")
    assert "hunter2" not in str(refused.value)


async def test_no_file_means_no_logins(tmp_path):
    assert await docker_config(tmp_path / "none.json")("a.org", "x") is None


async def test_the_helper_of_a_host_is_asked_over_its_standard_input(config, helper):
    asked = helper("store", 'cat > "$0.asked"; echo "$@" >> "$0.asked"; echo \'{"Username": "ann", "Secret": "s"}\'')
    logins = config({"credHelpers": {"a.org": "store"}, "auths": {"b.org": auth("bob")}})
    assert await logins("a.org", "x") == Login("ann", "s")
    assert (asked / "docker-credential-store.asked").read_text() == "a.orgget\n"
    assert (await logins("b.org", "x")).username == "bob"


async def test_the_common_store_is_asked_for_docker_hub_by_its_old_name(config, helper):
    helper("all", f'read server; test "$server" = {HUB_KEY} && echo \'{{"Username": "<token>", "Secret": "id"}}\'')
    login = await config({"credsStore": "all"})("docker.io", "library/python")
    assert login.is_identity_token


async def test_a_helper_without_the_login_leaves_it_to_the_file(config, helper):
    helper("all", "cat > /dev/null; echo credentials not found in native keychain; exit 1")
    logins = config({"credsStore": "all", "auths": {"a.org": auth("ann")}})
    assert (await logins("a.org", "x")).username == "ann"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo hunter2; echo hunter2 >&2; exit 3", "exit code 3"),
        ("echo hunter2", "not a login"),
        ("echo '[]'", "not a login"),
        ('echo \'{"Username": 1, "Secret": "hunter2"}\'', "not a login"),
        ("sleep 60", "no answer in 0.2 s"),
        ("while :; do echo hunter2hunter2hunter2; done", "more than 65536 bytes"),
    ],
)
async def test_a_helper_that_fails_is_named_and_what_it_said_is_not_shown(helper, script, words):
    helper("bad", script)
    with pytest.raises(SpecInvalid, match=f"docker-credential-bad .*{words}") as refused:
        await ask_helper("bad", "a.org", timeout_s=0.2 if "sleep" in script else 20)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["../evil", "a b", "", "a/b", "$(id)", "no-such-helper"])
async def test_a_name_that_is_no_helper_runs_nothing(name):
    with pytest.raises(SpecInvalid):
        await ask_helper(name, "a.org")


async def test_a_helper_does_not_get_berths_own_environment(helper, monkeypatch):
    monkeypatch.setenv("BERTH_SECRETS_KEY", "key")
    helper("env", 'cat > /dev/null; echo "{\\"Username\\": \\"u\\", \\"Secret\\": \\"x$BERTH_SECRETS_KEY\\"}"')
    assert (await ask_helper("env", "a.org")).secret == "x"


async def test_a_tenants_own_login_comes_before_the_operators(config):
    async def own(host: str, repository: str) -> Login | None:
        return Login("tenant", "s") if repository.startswith("lab/") else None

    logins = first_of(own, config({"auths": {"a.org": auth("operator")}}), no_logins)
    assert (await logins("a.org", "lab/app")).username == "tenant"
    assert (await logins("a.org", "app")).username == "operator"
    assert await logins("b.org", "app") is None


def test_a_login_does_not_show_its_secret():
    assert "hunter2" not in f"{Login('ann', 'hunter2')!r} {Login('ann', 'hunter2')}"
