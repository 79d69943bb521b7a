"""The relay alone, between two sockets of this machine."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import relay
from testbed.host import wait_until


@pytest.fixture
def inner() -> Iterator[socket.socket]:
    """The listening socket of a service inside."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield listening


@pytest.fixture
def door(inner: socket.socket) -> Iterator[tuple[str, int]]:
    """Address of a relay's door to ``inner``."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        argv = [sys.executable, "-I", relay.__file__, f"{listening.fileno()}=127.0.0.1:{inner.getsockname()[1]}"]
        process = subprocess.Popen(argv, pass_fds=[listening.fileno()])
        try:
            yield listening.getsockname()
            open_files = Path(f"/proc/{process.pid}/fd")
            wait_until(lambda: not any(_is_connection(file) for file in open_files.iterdir()), "all connections closed")
        finally:
            process.terminate()
            assert process.wait(timeout=10) == 0


def test_bytes_pass_both_ways_and_an_end_of_one_way_leaves_the_other(inner, door):
    with socket.create_connection(door, timeout=10) as outside, inner.accept()[0] as inside:
        outside.sendall(b"ask" * 100_000)
        outside.shutdown(socket.SHUT_WR)
        assert _everything(inside) == b"ask" * 100_000
        inside.sendall(b"answer" * 100_000)
        inside.shutdown(socket.SHUT_WR)
        assert _everything(outside) == b"answer" * 100_000


def test_a_caller_that_vanishes_is_noticed_inside(inner, door):
    with socket.create_connection(door, timeout=10) as outside, inner.accept()[0] as inside:
        inside.settimeout(10)
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        outside.close()
        with pytest.raises(ConnectionResetError):
            inside.recv(1)


def test_a_door_to_nobody_resets_the_caller(inner, door):
    inner.close()
    with socket.create_connection(door, timeout=10) as outside, pytest.raises(ConnectionResetError):
        outside.recv(1)


def _everything(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def _is_connection(file: Path) -> bool:
    """Whether an open file of the relay is an established TCP connection, by the kernel's table."""
    try:
        inode = file.readlink().name.removeprefix("socket:[").removesuffix("]")
    except FileNotFoundError:
        return False
    rows = (row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[9] == inode and row[3] != "0A" for row in rows)
