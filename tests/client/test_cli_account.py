"""Logging in and out, users, systems, apps and the doctor, against a server."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml
from berth.cli.root import app
from berth.config import ConfigFile
from typer.testing import CliRunner

from tests.client.conftest import Berth
from tests.client.fake_berth import FakeBerth

OPENSSH_KEY = """\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
-----END OPENSSH PRIVATE KEY-----
"""
"""The beginning of a key without a passphrase, as ssh-keygen writes it; it opens nothing."""

PROTECTED_KEY = OPENSSH_KEY.replace("AAAABG5vbmUAAAAEbm9uZQ", "AAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0")


def alone(*words: str, **options: object) -> object:
    """A command without a stored login."""
    return CliRunner().invoke(app, list(words), **options)


def test_login_keeps_tokens_where_only_the_user_can_read_them(url: str, home: Path) -> None:
    done = alone("login", url + "/", "--user", "alice", "--password-stdin", input="secret\n")
    assert done.exit_code == 0, done.output
    path = home / "config/berth/config.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "secret" not in path.read_text()
    assert alone("whoami", "-o", "id").stdout == "alice\n"


def test_login_takes_the_password_from_the_environment(url: str) -> None:
    assert alone("login", url, "-u", "alice", env={"BERTH_PASSWORD": "secret"}).exit_code == 0


@pytest.mark.parametrize(("password", "code", "said"), [("wrong", 4, "refused the login of alice"), ("", 2, "empty")])
def test_a_login_that_fails_stores_nothing(url: str, home: Path, password: str, code: int, said: str) -> None:
    done = alone("login", url, "--user", "alice", "--password-stdin", input=f"{password}\n")
    assert done.exit_code == code
    assert said in done.stderr
    assert not (home / "config/berth/config.json").exists()


def test_without_a_terminal_nothing_is_asked(url: str) -> None:
    done = alone("login", url, "--user", "alice")
    assert done.exit_code == 2
    assert done.stderr == (
        "berth: there is no terminal to ask for a password; give --password-stdin or set BERTH_PASSWORD\n"
    )
    assert alone("login", url).exit_code == 2


def test_logout_forgets_the_login(berth: Berth, logged_in: str) -> None:
    assert berth("logout").exit_code == 0
    done = berth("ps")
    assert done.exit_code == 4
    assert done.stderr == f"berth: not logged in to {logged_in}; berth login {logged_in} --user NAME\n"


def test_url_and_token_of_the_environment_come_first(url: str, fake: FakeBerth, home: Path) -> None:
    done = alone("whoami", "-o", "json", env={"BERTH_URL": url, "BERTH_TOKEN": fake.token("admin")})
    item = json.loads(done.stdout)["item"]
    assert (item["server"], item["username"]) == (url, "admin")
    assert not (home / "config").exists()


def test_a_damaged_configuration_says_so(home: Path) -> None:
    (home / "config/berth").mkdir(parents=True)
    (home / "config/berth/config.json").write_text("{")
    done = alone("ps")
    assert done.exit_code == 5
    assert "is damaged; remove it and log in again" in done.stderr


def test_a_server_that_does_not_answer_ends_with_6() -> None:
    done = alone("ps", env={"BERTH_URL": "http://127.0.0.1:9", "BERTH_TOKEN": "a.e30.c"})
    assert done.exit_code == 6
    assert done.stderr.startswith("berth: cannot reach http://127.0.0.1:9: ")
    assert done.stderr.endswith("; see whether the server runs: berth doctor\n")


def test_users_are_added_listed_renamed_and_removed(berth: Berth, fake: FakeBerth) -> None:
    made_up = berth("user", "add", "bob")
    assert made_up.stdout == "made-up\n"
    assert berth("user", "add", "carol", "--password-stdin", input="pw\n").stdout == ""
    assert fake.users["carol"] == "pw"
    assert berth("user", "passwd", "carol", "--password-stdin", input="new\n").exit_code == 0
    assert fake.users["carol"] == "new"
    assert berth("user", "rm", "bob").exit_code == 0
    assert berth("user", "ls", "-o", "id").stdout.split() == ["alice", "admin", "carol"]


def test_many_users_are_listed_once_each(berth: Berth, fake: FakeBerth) -> None:
    fake.users.update({f"user-{number}": "" for number in range(150)})
    assert berth("user", "ls", "-o", "id").stdout.split() == list(fake.users)


def test_a_probe_writes_a_definition_that_can_be_registered(berth: Berth, fake: FakeBerth, home: Path) -> None:
    (home / "key").write_text(OPENSSH_KEY)
    where = ("login.example.org", "--port", "2222", "--user", "al", "--identity", "key", "--id", "new")
    changes = ("--set", 'notes.berth.plainHttpRegistries=["r:5000"]', "--set", "rootDir=/scratch")
    done = berth("systems", "probe", *where, *changes, "-o", "new.yaml")
    assert done.exit_code == 0, done.output
    text = (home / "new.yaml").read_text()
    assert "# Slurm version: sinfo --version: slurm 24.11.4" in text
    assert "# Warning: no quota could be read" in text
    shown = yaml.safe_load(text)
    assert (shown["id"], shown["port"], shown["rootDir"]) == ("new", 2222, "/scratch")
    assert shown["notes"] == {"berth": {"plainHttpRegistries": ["r:5000"]}}
    assert "new" not in fake.systems
    assert berth("systems", "create", "new.yaml").exit_code == 0
    assert fake.systems["new"] == shown


def test_a_probe_can_register_at_once_and_again(berth: Berth, fake: FakeBerth, home: Path) -> None:
    (home / "key").write_text(OPENSSH_KEY)
    for said in ("is added", "was there already"):
        done = berth("systems", "probe", "h", "-u", "al", "-i", "key", "--id", "new", "--register")
        assert done.exit_code == 0, done.output
        assert said in done.stderr
        assert "berth run --system new" in done.stderr
    assert fake.credentials["new", "alice"] == {"loginUser": "al", "privateKey": OPENSSH_KEY}


def test_a_refused_login_reaches_the_user_in_ssh_words(berth: Berth) -> None:
    done = berth("systems", "probe", "h", "--user", "al", "--password-stdin", input="nope\n")
    assert done.exit_code == 5
    assert "al@h: Permission denied (publickey)" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PROTECTED_KEY, "is protected by a passphrase"),
        ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", "is protected by a passphrase"),
        ("ssh-ed25519 AAAA me@here\n", "is a public key"),
        ("hello\n", "is no private key"),
    ],
)
def test_a_key_that_cannot_serve_never_leaves_this_machine(
    berth: Berth, fake: FakeBerth, home: Path, content: str, said: str
) -> None:
    (home / "key").write_text(content)
    done = berth("systems", "credential", "cluster", "--identity", "key")
    assert done.exit_code == 5
    assert said in done.stderr
    assert not [path for _, path, _, _ in fake.requests if "credential" in path]


def test_credentials_are_stored_checked_made_and_removed(berth: Berth, fake: FakeBerth, home: Path) -> None:
    (home / "key").write_text(OPENSSH_KEY)
    assert berth("systems", "credential", "cluster", "--check").exit_code == 3
    assert berth("systems", "credential", "cluster", "--login", "al", "--identity", "key").exit_code == 0
    assert fake.credentials["cluster", "alice"]["loginUser"] == "al"
    tried = berth("systems", "credential", "cluster", "--check")
    assert tried.exit_code == 0
    assert "berth: it may not list events" in tried.stderr
    assert berth("systems", "credential", "cluster", "--remove").exit_code == 0
    assert berth("systems", "credential", "kube", "--token-stdin", input="eyJ.token\n").exit_code == 0
    assert fake.credentials["kube", "alice"] == {"loginUser": "alice", "accessToken": "eyJ.token"}
    assert berth("systems", "credential", "kube", "--token-stdin", "--check").exit_code == 2
    made = berth("systems", "credential", "cluster", "--generate")
    assert made.stdout == "ssh-ed25519 AAAA berth\n"
    assert "authorized_keys" in made.stderr
    assert berth("systems", "credential", "cluster").exit_code == 2


def test_systems_are_listed_shown_switched_and_removed(berth: Berth, fake: FakeBerth) -> None:
    assert "normal" in berth("systems", "ls").stdout
    shown = berth("systems", "show", "cluster").stdout
    assert "login.example.org:22" in shown
    assert "2h 00m" in shown
    assert berth("systems", "match", "canExec = true", "-o", "id").stdout == "cluster\n"
    assert berth("systems", "disable", "cluster").exit_code == 0
    assert fake.systems["cluster"]["enabled"] is False
    assert berth("systems", "enable", "cluster").exit_code == 0
    assert berth("systems", "rm", "cluster").exit_code == 0
    assert berth("systems", "show", "cluster").exit_code == 3


def test_apps_are_created_shown_and_removed(berth: Berth, home: Path) -> None:
    (home / "app.json").write_text('{"id": "solver", "version": "1.0", "containerImage": "docker://solver"}')
    assert berth("apps", "create", "app.json").exit_code == 0
    assert berth("apps", "ls", "-o", "id").stdout == "solver:1.0\n"
    assert "docker://solver" in berth("apps", "show", "solver").stdout
    assert berth("apps", "rm", "solver").exit_code == 0
    assert berth("apps", "ls").stderr == "no apps; see berth apps create\n"


def test_the_doctor_finds_nothing_wrong_when_all_is_well(berth: Berth, fake: FakeBerth) -> None:
    fake.credentials["cluster", "alice"] = {}
    done = berth("doctor", "-o", "json")
    assert done.exit_code == 0, done.output
    checks = {item["check"]: item["verdict"] for item in json.loads(done.stdout)["items"]}
    assert checks == {"server": "ok", "clock": "ok", "login": "ok", "system cluster": "ok"}


def test_the_doctor_says_the_fix_for_each_thing_that_is_wrong(berth: Berth, fake: FakeBerth) -> None:
    done = berth("doctor")
    assert done.exit_code == 1
    assert "berth systems credential cluster --identity KEYFILE" in done.stdout
    fake.systems.clear()
    assert "berth systems probe HOST --user NAME --register" in berth("doctor").stdout


def test_the_doctor_tells_a_server_that_is_down_from_a_login_that_is_over(
    berth: Berth, fake: FakeBerth, logged_in: str
) -> None:
    ConfigFile().forget(logged_in)
    done = berth("doctor", env={"BERTH_URL": logged_in, "BERTH_TOKEN": "a.eyJzdWIiOiJhQGIifQ.c"})
    assert done.exit_code == 1
    assert f"berth login {logged_in} --user NAME" in done.stdout
    done = berth("doctor", "-o", "id", env={"BERTH_URL": "http://127.0.0.1:9"})
    assert (done.stdout, done.exit_code) == ("server\n", 1)
