"""One SSH connection per system and login, with many channels on it.

The only module that logs in. No exception of the library leaves it: what went wrong is told in ssh's own words as
BackendUnavailable (try again), NotAuthorised (someone must act) or UnexpectedReply (we do not understand the host).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import asyncssh
from asyncssh.public_key import get_default_public_key_algs

from backends.base import REMOTE_OUTPUT_BYTES, Channel
from backends.ssh.forward import ForwardedChannel
from scheduler.model.errors import BackendUnavailable, CredentialRefused, NotAuthorised, UnexpectedReply
from scheduler.model.systems import Credential, System

COMMAND_CHANNELS = 7
"""Commands at once on one connection; with the SFTP session they stay below sshd's MaxSessions of 10."""

CONNECTS_AT_ONCE = 2
"""Logins under way to one host, whatever the number of users: sshd's MaxStartups drops crowds."""

CONNECT_TIMEOUT_S = 20.0
KEEPALIVE_S = 5.0
KEEPALIVES_UNANSWERED = 3
"""A dead link is noticed after KEEPALIVE_S times this, also when packets just vanish."""

BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Pause after the n-th failed connect in a row; the last one repeats."""

REFUSED_PAUSE_S = 30.0
"""Pause after a refused login, where nobody says otherwise: sites lock accounts that knock too often."""

_PIECE_BYTES = 64 * 1024

_REFUSED = re.compile("refused|Errno 111", re.IGNORECASE)
"""How servers say that a host answered, and nobody listened there."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A remote command that ended. ``exit_status`` is negative when a signal ended it (its number)."""

    exit_status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 survive a round trip."""
        return self.stdout.decode("utf-8", "surrogateescape")

    @property
    def complaint(self) -> str:
        """What the command said on standard error, else its exit status, for people."""
        return self.stderr.decode("utf-8", "replace").strip() or f"exit status {self.exit_status}"


class ForwardingClosed(BackendUnavailable):
    """The host does not forward TCP connections (AllowTcpForwarding, PermitOpen)."""


class SshConnection:
    """A login on a host that comes back by itself when it was lost.

    Opened by the first command. ``host_key`` is the pinned key in OpenSSH's form; a host that shows another one is
    NotAuthorised. None is refused unless ``learn_host_key``: then any key is taken and ``seen_host_key`` says which.
    """

    def __init__(
        self,
        host: str,
        port: int,
        login_user: str,
        *,
        private_key: str | None = None,
        password: str | None = None,
        host_key: str | None = None,
        learn_host_key: bool = False,
        refused_pause_s: float = REFUSED_PAUSE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host, self.port, self.login_user = host, port, login_user
        self.seen_host_key: str | None = None
        self._private_key, self._password = private_key, password
        self._host_key, self._learn_host_key = host_key, learn_host_key
        self._refused_pause_s, self._monotonic = refused_pause_s, monotonic
        self._connection: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None
        self._sftp_connection: asyncssh.SSHClientConnection | None = None
        self._opening = asyncio.Lock()
        self._opening_sftp = asyncio.Lock()
        self._channels = asyncio.Semaphore(COMMAND_CHANNELS)
        self._failures = 0
        self._failure: BackendUnavailable | NotAuthorised | None = None
        self._not_before = 0.0
        self._closed = False
        self._under_way = 0
        self._used_at = -math.inf

    @property
    def idle_s(self) -> float:
        """Seconds since anything was under way; 0 while something is."""
        return 0.0 if self._under_way else self._monotonic() - self._used_at

    def __str__(self) -> str:
        return f"{self.login_user}@{self.host}:{self.port}"

    async def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        """Run one program; every word reaches it as it is. Its end is taken as it comes, also a failing one."""
        return await self._run(shlex.join(argv), stdin, timeout_s)

    async def run_script(
        self, script: str, args: Sequence[str] = (), stdin: bytes = b"", timeout_s: float = 60.0
    ) -> Completed:
        """Run a bash script with ``args`` as ``$1``...; it travels on standard input, before ``stdin``.

        The login shell (which may be any) reads one fixed line; the script is never seen in a list of processes.
        """
        text = script.encode()
        command = f"bash -c 'eval \"$(head -c {len(text)})\"' berth {shlex.join(args)}"
        return await self._run(command, text + stdin, timeout_s)

    @contextlib.asynccontextmanager
    async def sftp(self) -> AsyncIterator[asyncssh.SFTPClient]:
        """The one SFTP session of this connection; errors of the link (not of files) are translated."""
        with self._operation():
            async with self._opening_sftp:
                connection = await self._open()
                if self._sftp is None or self._sftp_connection is not connection:
                    self._sftp = await asyncio.wait_for(connection.start_sftp_client(), CONNECT_TIMEOUT_S)
                    self._sftp_connection = connection
                client = self._sftp
        with self._operation(ours_alone=True):
            yield client

    @contextlib.asynccontextmanager
    async def process(self, argv: Sequence[str]) -> AsyncIterator[asyncssh.SSHClientProcess[bytes]]:
        """A running program whose standard input and output the caller moves; for streams of any size."""
        async with self._channels:
            with self._operation():
                async with asyncio.timeout(CONNECT_TIMEOUT_S * 1.5):
                    process = await self._start(shlex.join(argv))
            try:
                with self._operation(ours_alone=True):
                    yield process
            finally:
                process.close()

    async def open_stream(self, host: str, port: int, timeout_s: float = CONNECT_TIMEOUT_S) -> Channel:
        """A TCP connection from the host to a port that it sees; it keeps this connection in use until it is closed.

        ConnectionRefusedError where nobody listens, another ConnectionError where nothing answers, ForwardingClosed
        where the host opens none.
        """
        with self._operation(ours_alone=True):
            try:
                async with asyncio.timeout(timeout_s):
                    connection, reader, writer = await self._open_forward(host, port)
            except TimeoutError:
                raise ConnectionError(f"{host}:{port} did not answer within {timeout_s:g} s") from None
            except asyncssh.ChannelOpenError as error:
                if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                    raise ForwardingClosed(f"{self} opens no connections to other hosts: {error.reason}") from None
                kind = ConnectionRefusedError if _REFUSED.search(error.reason) else ConnectionError
                raise kind(f"{host}:{port}: {error.reason}") from None
        self._under_way += 1
        return ForwardedChannel(reader, writer, connection.is_closed, self._stream_closed)

    async def _open_forward(
        self, host: str, port: int
    ) -> tuple[asyncssh.SSHClientConnection, asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]]:
        connection = await self._open()
        try:
            return connection, *await connection.open_connection(host, port, encoding=None)
        except asyncssh.ChannelOpenError:
            if not connection.is_closed():
                raise
        connection = await self._open()  # the link had gone while nobody used it
        return connection, *await connection.open_connection(host, port, encoding=None)

    def _stream_closed(self) -> None:
        self._under_way -= 1
        self._used_at = self._monotonic()

    async def connect(self) -> None:
        """Log in now, if that was not done yet."""
        with self._operation():
            await self._open()

    async def aclose(self) -> None:
        """Log out; commands under way fail with BackendUnavailable."""
        self._closed = True
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    # -- commands ----------------------------------------------------------------------------------------------------

    async def _run(self, command: str, stdin: bytes, timeout_s: float) -> Completed:
        """Bounded at both ends: here by the clock, there by ``timeout``, so that no process outlives its caller."""
        command = f"timeout -k 5 {math.ceil(timeout_s)} {command}"
        with self._operation():
            try:
                async with asyncio.timeout(timeout_s), self._channels:
                    return await self._finish(await self._start(command), stdin)
            except TimeoutError:
                raise BackendUnavailable(f"{self} did not answer within {timeout_s:g} s") from None

    async def _start(self, command: str) -> asyncssh.SSHClientProcess[bytes]:
        connection = await self._open()
        try:
            return await connection.create_process(command, encoding=None)
        except asyncssh.ChannelOpenError:
            if not connection.is_closed():
                raise
        # The link had gone while nobody used it: nothing was started, so starting on a new one is safe.
        return await (await self._open()).create_process(command, encoding=None)

    async def _finish(self, process: asyncssh.SSHClientProcess[bytes], stdin: bytes) -> Completed:
        try:
            _, stdout, stderr = await asyncio.gather(
                self._feed(process, stdin), self._collect(process.stdout), self._collect(process.stderr)
            )
            await process.wait_closed()
        finally:
            process.close()
        if process.returncode is None:
            raise BackendUnavailable(f"the connection to {self} was lost while a command ran")
        return Completed(process.returncode, stdout, stderr)

    async def _feed(self, process: asyncssh.SSHClientProcess[bytes], stdin: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a command need not read all of it
            for start in range(0, len(stdin), _PIECE_BYTES):
                process.stdin.write(stdin[start : start + _PIECE_BYTES])
                await process.stdin.drain()
            process.stdin.write_eof()

    async def _collect(self, stream: asyncssh.SSHReader[bytes]) -> bytes:
        pieces = bytearray()
        while piece := await stream.read(_PIECE_BYTES):
            pieces += piece
            if len(pieces) > REMOTE_OUTPUT_BYTES:
                raise UnexpectedReply(f"{self} sent more than {REMOTE_OUTPUT_BYTES >> 20} MiB of output")
        return bytes(pieces)

    # -- connecting --------------------------------------------------------------------------------------------------

    async def _open(self) -> asyncssh.SSHClientConnection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        async with self._opening:
            if self._closed:
                raise BackendUnavailable(f"the connection to {self} was closed")
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> asyncssh.SSHClientConnection:
        if self._failure is not None and self._monotonic() < self._not_before:
            raise self._failure
        try:
            async with _startups(self.host, self.port):
                connection = await self._log_in()
        except (BackendUnavailable, NotAuthorised) as error:
            pause = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
            self._failures += 1
            self._failure = error
            refused = isinstance(error, NotAuthorised)
            self._not_before = self._monotonic() + (self._refused_pause_s if refused else pause)
            raise
        self._failures, self._failure = 0, None
        return connection

    async def _log_in(self) -> asyncssh.SSHClientConnection:
        gate = _HostKeyGate(self._pinned(), self._learn_host_key)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await asyncssh.connect(
                    self.host,
                    self.port,
                    username=self.login_user,
                    client_factory=lambda: gate,
                    known_hosts=([], [], []),
                    server_host_key_algs=gate.algorithms(),
                    client_keys=self._client_keys(),
                    password=self._password,
                    preferred_auth="publickey,keyboard-interactive,password",
                    agent_path=None,
                    config=None,
                    x509_trusted_certs=None,
                    keepalive_interval=KEEPALIVE_S,
                    keepalive_count_max=KEEPALIVES_UNANSWERED,
                )
        except TimeoutError:
            raise BackendUnavailable(f"{self} did not answer within {CONNECT_TIMEOUT_S:g} s") from None
        except asyncssh.HostKeyNotVerifiable:
            raise NotAuthorised(gate.complaint(self.host)) from None
        except asyncssh.PermissionDenied as error:
            raise NotAuthorised(f"{self}: {error.reason}") from None
        except (asyncssh.Error, OSError) as error:
            raise _unavailable(self, error) from None
        self.seen_host_key = gate.seen
        return connection

    def _pinned(self) -> asyncssh.SSHKey | None:
        if self._host_key is None:
            return None
        try:
            return asyncssh.import_public_key(self._host_key)
        except asyncssh.KeyImportError as error:
            raise NotAuthorised(f"the pinned host key of {self.host} cannot be read: {error}") from None

    def _client_keys(self) -> list[asyncssh.SSHKey] | None:
        if self._private_key is None:
            return None
        try:
            return [asyncssh.import_private_key(self._private_key)]
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise NotAuthorised(f"the private key for {self} cannot be used: {error}") from None

    @contextlib.contextmanager
    def _operation(self, *, ours_alone: bool = False) -> Iterator[None]:
        """Something under way. Translates what the library raises; ours_alone: an OSError is the caller's own."""
        self._under_way += 1
        try:
            yield
        except asyncssh.SFTPError:
            raise  # speaks of a file; the storage knows which
        except asyncssh.Error as error:
            raise _unavailable(self, error) from error
        except OSError as error:
            if ours_alone:
                raise
            raise _unavailable(self, error) from error
        finally:
            self._under_way -= 1
            self._used_at = self._monotonic()


async def verify(system: System, credential: Credential) -> str:
    """Log in for real and start a command. Answers the host key seen, in OpenSSH's form.

    CredentialRefused carries ssh's own words; BackendUnavailable when the host did not answer.
    """
    connection = SshConnection(
        system.host,
        system.port,
        credential.login_user,
        private_key=credential.private_key,
        password=credential.password,
        host_key=system.host_key,
        learn_host_key=system.host_key is None,
    )
    try:
        answer = await connection.run(["true"], timeout_s=CONNECT_TIMEOUT_S * 1.5)
        if answer.exit_status != 0:
            words = answer.text.strip() or answer.complaint
            raise CredentialRefused(f"{connection}: logged in, but no command can run: {words}")
        assert connection.seen_host_key is not None  # set by every login
        return connection.seen_host_key
    except NotAuthorised as error:
        raise CredentialRefused(str(error)) from None
    finally:
        await connection.aclose()


class _HostKeyGate(asyncssh.SSHClient):
    """Decides on the host's key: exactly the pinned one, or any where it is being learnt."""

    def __init__(self, pinned: asyncssh.SSHKey | None, learn: bool) -> None:
        self._pinned, self._learn = pinned, learn
        self.seen: str | None = None
        self._seen_fingerprint = ""

    def algorithms(self) -> list[str] | tuple[()]:
        """The pinned key's first; others too, so that a host that changed its kind of key shows the new one."""
        if self._pinned is None:
            return ()
        first = [name.decode() for name in self._pinned.sig_algorithms]
        return first + [name.decode() for name in get_default_public_key_algs() if name.decode() not in first]

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.seen = " ".join(key.export_public_key().decode().split()[:2])
        self._seen_fingerprint = key.get_fingerprint()
        return self._learn if self._pinned is None else key == self._pinned

    def complaint(self, host: str) -> str:
        if self._pinned is None:
            return f"the host key of {host} is not known yet ({self._seen_fingerprint}); check the credential to pin it"
        return (
            f"the host key of {host} has changed: pinned is {self._pinned.get_fingerprint()}, "
            f"the host shows {self._seen_fingerprint}"
        )


_STARTUPS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], asyncio.Semaphore]] = WeakKeyDictionary()


def _startups(host: str, port: int) -> asyncio.Semaphore:
    """What logins to one host share, whoever logs in."""
    doors = _STARTUPS.setdefault(asyncio.get_running_loop(), {})
    return doors.setdefault((host, port), asyncio.Semaphore(CONNECTS_AT_ONCE))


def _unavailable(connection: SshConnection, error: Exception) -> BackendUnavailable:
    reason: Any = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return BackendUnavailable(f"{connection}: {reason or type(error).__name__}")
