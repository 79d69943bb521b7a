"""One login on a real SSH server: its faults, told in ssh's words and always in time."""

import asyncio
import contextlib
import time

import asyncssh
import pytest
import pytest_asyncio

from backends.base import REMOTE_OUTPUT_BYTES
from backends.ssh import connection as ssh
from backends.ssh.connection import SshConnection, verify
from scheduler.model.errors import BackendUnavailable, CredentialRefused, NotAuthorised, UnexpectedReply
from scheduler.model.systems import Credential, System
from tests.slurm.ssh_server import PASSWORD, USER, TestServer, ssh_server


@pytest_asyncio.fixture
async def server(tmp_path):
    async with ssh_server(tmp_path) as server:
        yield server


@pytest_asyncio.fixture
async def connection(server):
    connection = server.connection()
    yield connection
    await connection.aclose()


def other_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


def public(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


async def test_every_word_reaches_the_program_as_it_is(connection):
    hostile = ["a b", "'", '"', "$HOME", "`id`", "\\", "new\nline", "*", "!", ";", "ü", ""]
    done = await connection.run(["printf", "<%s>", *hostile])
    assert done.text == "".join(f"<{word}>" for word in hostile)


async def test_input_output_and_exit_status_come_back(connection):
    done = await connection.run(["sh", "-c", "cat; echo bad >&2; exit 7"], b"\0\xff" * 100_000)
    assert (done.exit_status, done.stdout, done.complaint) == (7, b"\0\xff" * 100_000, "bad")


async def test_a_script_travels_on_standard_input_and_is_in_no_list_of_processes(connection):
    script = "secret=only-in-the-script\ntr '\\0' ' ' </proc/$$/cmdline; printf '\\n%s\\n' \"$1\"; cat\n"
    done = await connection.run_script(script, ["a 'b' $c"], b"the rest")
    listed, argument, rest = done.text.split("\n")
    assert "only-in-the-script" not in listed
    assert (argument, rest) == ("a 'b' $c", "the rest")


async def test_many_commands_share_one_login_and_stay_below_max_sessions(server, connection):
    done = await asyncio.gather(*(connection.run(["sh", "-c", "sleep 0.05; echo x"]) for _ in range(30)))
    assert all(one.text == "x\n" for one in done)
    assert server.logins == 1
    assert 1 < server.most_sessions <= ssh.COMMAND_CHANNELS


async def test_a_slow_command_is_given_up_in_time_and_the_connection_stays(server, connection):
    began = time.monotonic()
    with pytest.raises(BackendUnavailable, match=r"did not answer within 0\.3 s"):
        await connection.run(["sleep", "30"], timeout_s=0.3)
    assert time.monotonic() - began < 5
    assert (await connection.run(["echo", "ok"])).text == "ok\n"
    assert server.logins == 1


async def test_too_much_output_is_an_unexpected_reply(connection):
    with pytest.raises(UnexpectedReply, match="8 MiB"):
        await connection.run(["head", "-c", str(REMOTE_OUTPUT_BYTES + 1), "/dev/zero"])
    assert (
        len((await connection.run(["head", "-c", str(REMOTE_OUTPUT_BYTES), "/dev/zero"])).stdout) == REMOTE_OUTPUT_BYTES
    )


async def test_a_lost_connection_fails_the_command_and_the_next_one_logs_in_again(server, connection):
    command = asyncio.create_task(connection.run(["sh", "-c", "echo begun; sleep 20"]))
    await server.busy.wait()
    server.hang_up()
    with pytest.raises(BackendUnavailable):
        await command
    assert (await connection.run(["echo", "again"])).text == "again\n"
    assert server.logins == 2


async def test_an_idle_connection_that_was_lost_costs_nobody_an_error(server, connection):
    await connection.run(["true"])
    server.hang_up()
    assert (await connection.run(["echo", "again"])).text == "again\n"


async def test_a_password_logs_in_too(server):
    connection = server.connection(private_key=None, password=PASSWORD)
    assert (await connection.run(["echo", "hi"])).text == "hi\n"
    await connection.aclose()


@pytest.mark.parametrize("secret", [{"private_key": None, "password": "wrong"}, {"private_key": None}])
async def test_a_refused_login_is_not_authorised(server, secret):
    with pytest.raises(NotAuthorised, match="Permission denied for user alice"):
        await server.connection(**secret).run(["true"])


async def test_a_key_that_is_none_is_not_authorised(server):
    with pytest.raises(NotAuthorised, match="private key"):
        await server.connection(private_key="-----BEGIN nonsense").run(["true"])


async def test_a_changed_host_key_names_both_fingerprints(server):
    pinned = other_key()
    with pytest.raises(NotAuthorised) as raised:
        await server.connection(host_key=public(pinned)).run(["true"])
    assert pinned.get_fingerprint() in str(raised.value)
    assert server.host_key.get_fingerprint() in str(raised.value)


async def test_a_host_key_of_another_kind_is_a_changed_one(server):
    pinned = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    with pytest.raises(NotAuthorised) as raised:
        await server.connection(host_key=public(pinned)).run(["true"])
    assert server.host_key.get_fingerprint() in str(raised.value)


async def test_an_unknown_host_key_is_refused_unless_it_is_being_learnt(server):
    with pytest.raises(NotAuthorised, match="not known yet"):
        await server.connection(host_key=None).run(["true"])
    learning = server.connection(host_key=None, learn_host_key=True)
    await learning.run(["true"])
    assert learning.seen_host_key == server.public_host_key
    await learning.aclose()


async def test_nobody_listening_is_unavailable_and_is_not_asked_again_at_once(server):
    await server.stop()
    now = 50.0
    connection = server.connection(monotonic=lambda: now)
    with pytest.raises(BackendUnavailable, match=r"[Cc]onnect"):
        await connection.run(["true"])
    await server.start()
    with pytest.raises(BackendUnavailable):
        await connection.run(["true"])
    assert server.logins == 0
    now += ssh.BACKOFF_S[0]
    assert (await connection.run(["echo", "back"])).text == "back\n"
    await connection.aclose()


async def test_a_refused_login_is_not_repeated_at_once(server):
    now = 50.0
    stranger = other_key().export_private_key().decode()
    connection = server.connection(private_key=stranger, refused_pause_s=7, monotonic=lambda: now)
    for _ in range(3):
        with pytest.raises(NotAuthorised):
            await connection.run(["true"])
    assert server.logins == 1
    now += 7
    with pytest.raises(NotAuthorised):
        await connection.run(["true"])
    assert server.logins == 2


async def test_a_host_that_takes_the_call_and_says_nothing_is_noticed(monkeypatch):
    monkeypatch.setattr(ssh, "CONNECT_TIMEOUT_S", 0.3)
    silent = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
    connection = SshConnection("127.0.0.1", silent.sockets[0].getsockname()[1], USER, password="x", learn_host_key=True)
    with pytest.raises(BackendUnavailable, match="did not answer"):
        await connection.run(["true"])
    silent.close()


async def test_a_link_that_drops_every_packet_is_noticed_by_keepalives(server, monkeypatch):
    monkeypatch.setattr(ssh, "KEEPALIVE_S", 0.1)
    monkeypatch.setattr(ssh, "CONNECT_TIMEOUT_S", 2.0)
    async with black_hole(server) as (port, swallow):
        connection = SshConnection(
            "127.0.0.1", port, USER, private_key=server.private_key, host_key=server.public_host_key
        )
        await connection.run(["true"])
        swallow.set()
        with pytest.raises(BackendUnavailable) as raised:
            await connection.run(["sleep", "30"], timeout_s=30)
        assert "did not answer within 30 s" not in str(raised.value)
        await connection.aclose()


class black_hole:  # noqa: N801 - used like a function
    """A relay to the server that can stop passing anything on, without a word."""

    def __init__(self, server: TestServer) -> None:
        self._server, self._swallow = server, asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self):
        self._listener = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return self._listener.sockets[0].getsockname()[1], self._swallow

    async def __aexit__(self, *_) -> None:
        self._listener.close()
        for writer in self._writers:
            writer.close()

    async def _relay(self, reader, writer) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._server.port)
        self._writers += [writer, back]
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, reader, writer) -> None:
        while data := await reader.read(65536):
            if not self._swallow.is_set():
                writer.write(data)


def system_and_credential(server, **changes):
    system = System(tenant="t", id="s", uuid="u", owner="o", host="127.0.0.1", port=server.port)
    settings = {"private_key": server.private_key} | changes
    return system, Credential(tenant="t", system_id="s", user="u", login_user=USER, **settings)


async def test_verify_answers_the_host_key_to_be_pinned(server):
    assert await verify(*system_and_credential(server)) == server.public_host_key


async def test_verify_refuses_in_the_words_of_ssh(server):
    with pytest.raises(CredentialRefused, match=r"Permission denied for user alice on host 127\.0\.0\.1"):
        await verify(*system_and_credential(server, private_key=None, password="wrong"))


async def test_verify_of_a_host_that_is_away_is_unavailable(server):
    await server.stop()
    with pytest.raises(BackendUnavailable):
        await verify(*system_and_credential(server))
