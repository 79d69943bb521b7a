"""A real sshd on a loopback port, and this machine behind it under contract."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh

from backends.ssh.backend import SshBackend
from backends.ssh.connection import SshConnection
from scheduler.model.systems import System
from tests.contract.fork import CuttableCommands, ForkSubject

CONFIG = """
HostKey {home}/host_key
AuthorizedKeysFile {home}/authorized_keys
PidFile none
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
StrictModes no
PermitUserEnvironment no
Subsystem sftp internal-sftp
"""


class Sshd:
    """One ``sshd -i`` for each connection, so that no port is guessed and every link can be cut."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
        assert self._program, "sshd is missing: apt install openssh-server"
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.user_key = asyncssh.generate_private_key("ssh-ed25519")
        host_key = asyncssh.generate_private_key("ssh-ed25519")
        host_key.write_private_key(home / "host_key")
        (home / "host_key").chmod(0o600)
        self.user_key.write_public_key(home / "authorized_keys")
        (home / "config").write_text(CONFIG.format(home=home))
        self.host_key = " ".join(host_key.export_public_key().decode().split()[:2])
        self._children: list[asyncio.subprocess.Process] = []

    async def serve(self) -> None:
        while True:
            link, _ = await asyncio.get_running_loop().sock_accept(self._socket)
            argv = (self._program, "-i", "-e", "-f", str(self._home / "config"))
            with link, (self._home / "log").open("ab") as log:
                link.setblocking(True)
                self._children.append(await asyncio.create_subprocess_exec(*argv, stdin=link, stdout=link, stderr=log))

    async def hang_up(self) -> None:
        """Cut every link that is there now."""
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        self._children.clear()

    async def close(self) -> None:
        await self.hang_up()
        self._socket.close()

    def connection(self) -> SshConnection:
        """Berth's own connection to it, as the user who runs the tests."""
        key = self.user_key.export_private_key().decode()
        return SshConnection("127.0.0.1", self.port, getpass.getuser(), private_key=key, host_key=self.host_key)


@contextlib.asynccontextmanager
async def sshd(tmp_path: Path) -> AsyncIterator[Sshd]:
    """Debian's sshd wants this directory, which only its service makes."""
    if getpass.getuser() == "root":
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # noqa: ASYNC240
    home = tmp_path / "sshd"
    home.mkdir()
    server = Sshd(home)
    serving = asyncio.create_task(server.serve())
    try:
        yield server
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        await server.close()


def host_system(root: Path) -> System:
    """The host behind sshd, with ``root`` as its root directory."""
    return System(tenant="t", id="host", uuid="u", owner="o", host="127.0.0.1", root_dir=str(root))


class SshSubject(ForkSubject):
    """FORK jobs behind sshd."""

    def __init__(self, connection: SshConnection, work: Path) -> None:
        commands = CuttableCommands(connection)
        super().__init__(SshBackend(host_system(work), getpass.getuser(), commands), commands, work)
