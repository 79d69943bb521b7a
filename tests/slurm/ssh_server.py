"""An SSH server in the test process: real protocol, real shell commands of this machine, faults on demand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from backends.ssh.connection import SshConnection

USER = "alice"
PASSWORD = "open sesame"


@dataclass
class TestServer:
    """``port`` is where it listens now; ``env`` is what a login sees."""

    __test__ = False

    env: dict[str, str]
    user_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    host_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    port: int = 0
    logins: int = 0
    sessions: int = 0
    most_sessions: int = 0
    forwards: bool = True
    """Whether logins may open TCP connections to other hosts."""
    busy: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first command."""
    _acceptor: asyncssh.SSHAcceptor | None = None
    _connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    _commands: dict[asyncio.Task[None], asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self) -> None:
        self._acceptor = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_host_keys=[self.host_key],
            server_factory=lambda: _Login(self),
            process_factory=self._run,
            sftp_factory=True,
            encoding=None,
            reuse_address=True,
        )
        self.port = self._acceptor.get_port()

    async def stop(self) -> None:
        """Hang up on everyone and listen no more."""
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()
        self.hang_up()
        for shell in self._commands.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
        await asyncio.gather(*self._commands, return_exceptions=True)

    def hang_up(self) -> None:
        """Cut every connection; new ones are welcome."""
        while self._connections:
            self._connections.pop().abort()

    def connection(self, **changes: object) -> SshConnection:
        """A connection of Berth's to this server."""
        settings: dict = {"private_key": self.private_key, "host_key": self.public_host_key} | changes
        return SshConnection("127.0.0.1", self.port, USER, **settings)

    @property
    def private_key(self) -> str:
        return self.user_key.export_private_key().decode()

    @property
    def public_host_key(self) -> str:
        return " ".join(self.host_key.export_public_key().decode().split()[:2])

    async def _run(self, process: asyncssh.SSHServerProcess) -> None:
        self.sessions += 1
        self.busy.set()
        self.most_sessions = max(self.most_sessions, self.sessions)
        try:
            shell = await asyncio.create_subprocess_exec(
                "bash",
                "-c",
                process.command or "true",
                stdin=-1,
                stdout=-1,
                stderr=-1,
                env=self.env,
                start_new_session=True,
            )
            me = asyncio.current_task()
            assert me is not None
            self._commands[me] = shell
            me.add_done_callback(self._commands.pop)
            feeding = asyncio.create_task(_feed(process.stdin, shell))
            with contextlib.suppress(asyncssh.Error, OSError):
                await asyncio.gather(_pump(shell.stdout, process.stdout), _pump(shell.stderr, process.stderr))
            process.exit(await shell.wait())
            feeding.cancel()
        finally:
            self.sessions -= 1


async def _feed(source: asyncssh.SSHReader, shell: asyncio.subprocess.Process) -> None:
    """What the client sends; when the client is gone so is the command."""
    try:
        while data := await source.read(65536):
            shell.stdin.write(data)
            await shell.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # a command need not read all of it
    except asyncssh.Error:
        shell.terminate()
    finally:
        shell.stdin.close()


async def _pump(source: asyncio.StreamReader, target: asyncssh.SSHWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()


class _Login(asyncssh.SSHServer):
    def __init__(self, server: TestServer) -> None:
        self._server = server

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._server.logins += 1
        self._server._connections.append(conn)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        if not self._server.forwards:  # in OpenSSH's words
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed")
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return username == USER and password == PASSWORD

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == USER and key == self._server.user_key.convert_to_public()


@contextlib.asynccontextmanager
async def ssh_server(tmp_path: Path, path: Path | None = None) -> AsyncIterator[TestServer]:
    """A server whose commands find ``path`` first."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    search = os.environ["PATH"] if path is None else f"{path}:{os.environ['PATH']}"
    server = TestServer({"PATH": search, "HOME": str(home), "USER": USER, "LOGNAME": USER, "SHELL": "/bin/bash"})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
