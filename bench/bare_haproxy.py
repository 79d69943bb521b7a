"""A HAProxy with TLS and nothing else in front of servers: what any gateway with it can reach at most."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def bare_haproxy(program: str, folder: Path, pem: Path, ports: Mapping[str, int]) -> Iterator[int]:
    """Its port. folder: is made. pem: certificate and key. ports: of loopback, by host name."""
    folder.mkdir()
    (folder / "bare.pem").symlink_to(pem)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        (folder / "haproxy.cfg").write_text(_configuration(listener.fileno(), ports))
        argv = [program, "-db", "-f", "haproxy.cfg"]
        process = subprocess.Popen(argv, cwd=folder, pass_fds=(listener.fileno(),))
        port = int(listener.getsockname()[1])
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def _configuration(listener: int, ports: Mapping[str, int]) -> str:
    uses = "\n".join(f"    use_backend {port} if {{ ssl_fc_sni {name} }}" for name, port in ports.items())
    backends = "\n".join(
        f"backend {port}\n    http-reuse always\n    server pod 127.0.0.1:{port}" for port in ports.values()
    )
    return f"""\
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend tls
    bind fd@{listener} ssl crt bare.pem alpn http/1.1
{uses}
{backends}
"""
