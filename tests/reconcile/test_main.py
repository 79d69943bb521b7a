"""A whole Berth as a process: it starts, says so, stops when asked, and leaves its home to the next one."""

import re
import resource
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from testbed.server import ROOT, Server, ServerError, running
from tests.end_to_end.wire import Wire


def test_the_first_start_prints_a_password_once_and_it_works(tmp_path: Path):
    server = Server(tmp_path / "home", admin_password="")
    server.start()
    try:
        [password] = re.findall(r"password \(shown once\): (\S+)", server.tail())
        Wire(server.url, password=password)
        server.stop()
        server.start()
        Wire(server.url, password=password)
        assert server.tail().count("password") == 1
    finally:
        server.stop()


def test_tokens_and_secrets_outlive_a_kill(tmp_path: Path):
    with running(tmp_path / "home") as server:
        wire = Wire(server.url)
        server.kill()
        server.start()
        assert wire.get("/v3/oauth2/profiles/admin")["username"] == "admin"


def test_a_second_process_is_told_what_is_taken(tmp_path: Path):
    with running(tmp_path / "home") as server:
        same_home = said(Server(tmp_path / "home"), "up")
        assert f"in use by process {server.pid}: on SQLite exactly one" in same_home
        same_port = said(Server(tmp_path / "other", port=server.port), "up")
        assert "berth: BERTH_HOST, BERTH_PORT: 127.0.0.1" in same_port
        assert "Traceback" not in same_home + same_port
        assert server.answers()


def test_the_gateway_answers_under_the_names_of_pods(tmp_path: Path):
    port = free_port()
    with running(tmp_path / "home", gateway_port=str(port)) as server:
        trusted = ssl.create_default_context(cafile=tmp_path / "home/ca/pods.localhost/ca.pem")
        with httpx.Client(verify=trusted) as client:
            named = {"headers": {"Host": "none.pods.localhost"}, "extensions": {"sni_hostname": "none.pods.localhost"}}
            assert client.get(f"https://127.0.0.1:{port}/", **named).status_code == 404
        same_port = said(Server(tmp_path / "other", gateway_port=str(port)), "up")
        assert f"berth: BERTH_GATEWAY_PORT: 127.0.0.1:{port}: " in same_port
        assert "Traceback" not in same_port + server.tail()


def test_a_gateway_whose_certificate_cannot_serve_does_not_start(tmp_path: Path):
    files = {"gateway_certificate": str(tmp_path / "none.pem"), "gateway_key": str(tmp_path / "none.pem")}
    with pytest.raises(ServerError, match="berth: BERTH_GATEWAY_CERTIFICATE, BERTH_GATEWAY_KEY: "):
        Server(tmp_path / "home", gateway_port=str(free_port()), **files).start()


def test_a_server_opens_as_many_files_as_it_may(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        with running(tmp_path / "home") as server:
            assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_wrong_setting_stops_the_start_with_its_name(tmp_path: Path):
    with pytest.raises(ServerError, match="berth: BERTH_LEASE_S: "):
        Server(tmp_path / "home", lease_s="never").start()


def test_sigterm_ends_it_cleanly(tmp_path: Path):
    server = Server(tmp_path / "home")
    server.start()
    process = server._process
    server.stop()
    assert process is not None
    assert process.returncode == 0
    assert "Traceback" not in server.tail()


def test_upgrade_brings_an_empty_database_up_to_date(tmp_path: Path):
    assert "the database is at revision" in said(Server(tmp_path), "db", "upgrade", status=0)


def test_a_rotated_key_opens_what_the_old_one_sealed_and_nothing_else_does(tmp_path: Path):
    home = tmp_path / "home"
    with running(home) as server:
        token = Wire(server.url).http.headers["X-Tapis-Token"]
        assert "in use by process" in said(server, "key", "rotate")
    old = (home / "secrets.key").read_bytes()
    assert "1 secrets are sealed with a new key" in said(server, "key", "rotate", status=0)
    new = (home / "secrets.key").read_bytes()
    assert new != old
    with running(home) as server:
        answer = httpx.get(f"{server.url}/v3/oauth2/profiles/admin", headers={"X-Tapis-Token": token})
        assert answer.status_code == 200, "the signing key is the one from before"
    (home / "secrets.key").write_bytes(old)
    assert "which is not the key given" in said(server, "key", "rotate")


def test_a_key_outside_home_is_not_rotated(tmp_path: Path):
    server = Server(tmp_path, secrets_key="A" * 43 + "=")
    assert "only a key in a file can be rotated" in said(server, "key", "rotate")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def said(server: Server, *command: str, status: int = 1) -> str:
    """What a command that ends by itself says in the environment of a server."""
    done = subprocess.run(
        [sys.executable, "-m", "berth", *command],
        env=server.environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr
