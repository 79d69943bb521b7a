"""HAProxy as a child of ours: what it is told, and what clients meet when it, or we, are gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from gateway import certificates, haproxy_process
from gateway.errors import GatewayRefused
from gateway.haproxy import Numbering
from gateway.haproxy_config import Shape, configuration, shape_here
from gateway.haproxy_process import PROGRAMS, find_program
from gateway.plain import is_plain
from gateway.proxied import SIGNATURE, parse, read_header
from gateway.routes import RouteState, routes
from scheduler.model.pods import NetProtocol, PodStatus
from scheduler.ports import utc_now
from tests.gateway.nets import DOMAINS, instance, net, open_net
from tests.gateway.test_http import END, GET
from tests.gateway.world import DOMAIN, TCP, World, as_status, gateway

NOW = utc_now()
IS_HERE = any(map(shutil.which, PROGRAMS))


def known(*nets):
    return routes(nets, DOMAINS, {}, NOW)


# -- what is plain, and what is told -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "plain"),
    [
        ({}, True),
        ({"needs_login": True}, False),
        ({"ip_allow": ("10.0.0.0/8",)}, False),
        ({"cors": {"cors_allow_origins": ["*"]}}, False),
    ],
)
def test_only_a_net_without_rules_is_plain(rule, plain):
    [route] = known(open_net(of_net=net(**rule))).values()
    assert is_plain(route) == plain


def test_a_pod_that_does_not_answer_is_not_plain():
    [route] = known(open_net(status=PodStatus.STOPPED)).values()
    assert not is_plain(route)
    assert route.state is RouteState.CLOSED


@pytest.mark.parametrize("name", ["a b.pods.localhost", "a\nb.pods.localhost", "a#.pods.localhost", ""])
def test_a_name_that_could_be_read_as_more_than_one_is_not_plain(name):
    [route] = known(open_net()).values()
    assert not is_plain(replace(route, host_name=name))


def test_a_name_has_another_number_when_it_leads_elsewhere_and_else_the_same():
    numbering = Numbering()
    one = numbering.of(known(open_net(behind=instance(1, "r1")), open_net("db", net(protocol=TCP))))
    same = numbering.of(known(open_net(behind=instance(1, "r1"))))
    moved = numbering.of(known(open_net(behind=instance(2, "r2"))))
    name = f"web.{DOMAIN}"
    assert one[NetProtocol.HTTP][name] == same[NetProtocol.HTTP][name] != moved[NetProtocol.HTTP][name]
    assert list(one[NetProtocol.TCP]) == [f"db.{DOMAIN}"]
    assert not same[NetProtocol.TCP]


def test_few_files_mean_few_connections():
    assert "maxconn 4000\n" in configuration(Shape(listener=3, most_files=1_000_000))
    assert "maxconn 160\n" in configuration(Shape(listener=3, most_files=1000))


def test_haproxy_leaves_half_of_the_cores_to_pods_and_to_us(monkeypatch):
    for cores, threads in ((1, 1), (2, 1), (8, 4)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert f"nbthread {threads}\n" in configuration(shape_here(3, retries=1))


@pytest.mark.parametrize("said", [b"", b"\x01" * 11])
def test_half_a_header_is_none(said):
    with pytest.raises(ValueError, match="half a PROXY header"):
        parse(1, said)


async def test_what_begins_otherwise_is_no_header():
    here, there = socket.socketpair()
    here.setblocking(False)
    for wrong in (b"GET / HTTP/1.1\r\n", SIGNATURE + b"\x20\x11\0\0", SIGNATURE + b"\x21\x11\xff\xff"):
        there.sendall(wrong)
        with pytest.raises(ValueError, match="no PROXY header"):
            await read_header(here)
    there.close()
    with pytest.raises(EOFError):
        await read_header(here)
    here.close()


async def test_a_haproxy_that_is_asked_for_and_missing_is_named(monkeypatch):
    monkeypatch.setattr(haproxy_process, "PROGRAMS", ("no-such-haproxy",))
    assert await find_program(required=False) is None
    with pytest.raises(GatewayRefused, match="BERTH_GATEWAY_PROXY: haproxy is not installed; install it"):
        await find_program(required=True)


async def test_a_haproxy_that_is_too_old_is_named(monkeypatch, tmp_path: Path):
    old = tmp_path / "haproxy"
    old.write_text("#!/bin/sh\necho HAProxy version 2.2.9\n")
    old.chmod(0o755)
    monkeypatch.setattr(haproxy_process, "PROGRAMS", (str(old),))
    assert await find_program(required=False) is None
    with pytest.raises(GatewayRefused, match=r"older than 2\.6"):
        await find_program(required=True)


async def works_10_ms(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A pod that takes its time for each request, on connections that stay."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        while await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(0.01)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
    writer.close()


# -- with one that runs ------------------------------------------------------------------------------------------------


if IS_HERE:

    @pytest.fixture
    def proxy() -> str:
        return "haproxy"

    async def test_requests_of_plain_names_are_not_ours_to_read(world: World, monkeypatch):
        async def nothing(*_: object) -> None:
            raise AssertionError("the embedded proxy was asked")

        monkeypatch.setattr("gateway.embedded.Embedded.serve_one", nothing)
        monkeypatch.setattr("gateway.embedded.Embedded.serve_named", nothing)
        await world.echo()
        async with world.client() as client:
            for _ in range(3):
                assert (await client.get(world.url())).status_code == 200

    async def test_clients_share_connections_to_a_pod(world: World):
        await world.echo()
        for _ in range(5):
            assert b"200 OK" in await world.say(GET + END)
        assert world.place.connects == 1

    async def test_connections_to_one_pod_do_not_crowd_out_those_to_another(world: World):
        for pod_id in ("quiet", "busy"):
            await world.pod(works_10_ms, pod_id, f"r-{pod_id}")

        async def ask(pod_id: str, times: int) -> None:
            async with world.client() as client:
                for _ in range(times):
                    assert (await client.get(world.url(pod_id=pod_id))).status_code == 200

        await ask("quiet", 1)
        world.place.connects = 0
        await asyncio.gather(*(ask("busy", 25) for _ in range(4)))
        assert world.place.connects <= 8, "four would do; one of each request was too many"

    async def test_an_open_connection_meets_what_a_pod_has_become(world: World):
        pod = await world.echo()
        async with world.client() as client:
            assert (await client.get(world.url())).status_code == 200
            world.know(as_status(pod, PodStatus.STOPPED))
            await world.shown()
            answer = await client.get(world.url())
            assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
            world.know(replace(pod, net=net(ip_allow=("203.0.113.0/24",))))
            await world.shown()
            assert (await client.get(world.url())).status_code == 403

    async def test_a_way_that_was_opened_under_an_older_map_does_not_pass_a_new_rule(world: World, monkeypatch):
        """The map is told a moment later than we know."""
        pod = await world.echo()
        monkeypatch.setattr("gateway.haproxy.Numbering.of", lambda *_: world.haproxy.process.shown)
        world.know(replace(pod, net=net(needs_login=True)))
        answer = await world.say(GET + END)
        assert b"200 OK" not in answer

    async def test_many_names_are_told_at_once(world: World):
        many = [open_net(f"pod{n}", behind=instance(1, f"r{n}")) for n in range(1000)]
        world.know(*many)
        await world.shown()
        assert len(world.haproxy.process.shown[NetProtocol.HTTP]) == 1000
        world.forget()
        await world.shown()
        await world.echo()
        assert b"200 OK" in await world.say(GET + END)

    async def test_when_haproxy_is_killed_nobody_is_refused_and_another_follows(world: World):
        await world.echo()
        first = world.haproxy.process.pid
        os.kill(first, signal.SIGKILL)
        until = time.monotonic() + 10
        failed = 0
        while world.haproxy.process is None or world.haproxy.process.pid == first or not world.haproxy.is_told:
            assert time.monotonic() < until
            try:
                assert b"200 OK" in await world.say(GET + END)
            except OSError:  # it was with the one that died
                failed += 1
        assert failed <= 1
        assert b"200 OK" in await world.say(GET + END)

    async def test_one_that_cannot_start_leaves_the_rest_to_us(world: World, tmp_path: Path):
        await world.echo()
        broken = tmp_path / "haproxy"
        broken.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
        broken.chmod(0o755)
        world.haproxy._program = str(broken)
        os.kill(world.haproxy.process.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        assert b"200 OK" in await world.say(GET + END)
        assert world.haproxy.process is None

    async def test_a_renewed_certificate_is_shown_without_a_request_lost(world: World):
        await world.echo()
        first, before = world.haproxy.process.pid, await shown_serial(world)
        streamed = await world.connect("web", "http/1.1")
        (world.folder / "ca" / DOMAIN / "leaf.pem").unlink()
        renewed = certificates.own(world.folder, DOMAIN, utc_now() + timedelta(seconds=1))
        world.haproxy.serve_certificates({DOMAIN: renewed})
        until = time.monotonic() + 10
        while world.haproxy.process.pid == first or await shown_serial(world) == before:
            assert b"200 OK" in await world.say(GET + END)
            assert time.monotonic() < until
        streamed[1].write(GET + END)
        assert b"200 OK" in await streamed[0].read(), "a connection from before goes on"
        streamed[1].close()

    def test_when_we_are_killed_it_dies_and_frees_the_port():
        alone = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway.test_haproxy"], stdout=subprocess.PIPE, text=True
        )
        assert alone.stdout is not None
        pid, port, folder = alone.stdout.readline().split()
        alone.kill()
        alone.wait()
        alone.stdout.close()
        until = time.monotonic() + 5
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < until, "an orphan"
            time.sleep(0.02)
        socket.create_server(("127.0.0.1", int(port))).close()
        shutil.rmtree(folder)


async def shown_serial(world: World) -> int:
    _, writer = await world.connect()
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    shown = tls.getpeercert(binary_form=True)
    writer.close()
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


async def _run_until_killed() -> None:
    async with gateway("haproxy") as world:
        assert world.haproxy is not None
        assert world.haproxy.process is not None
        print(world.haproxy.process.pid, world.port, world.folder, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_run_until_killed())
