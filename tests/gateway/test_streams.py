"""What is not HTTP: anything over TLS by its name, and PostgreSQL as its clients begin."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from functools import partial

import psycopg
import pytest

from gateway import postgres
from scheduler.model.pods import PodStatus
from testbed.postgresql import postgresql
from tests.gateway.world import DOMAIN, POSTGRES, TCP, World, as_status, gateway

BOLT = struct.pack("!I4I", 0x6060B017, 0x00000404, 0x00000304, 0, 0)
"""How a Neo4j driver begins: magic, and four versions that it speaks."""


@pytest.fixture(scope="module")
def database():
    with postgresql(durable=False) as running:
        yield running


async def parrot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says everything again; ends when the other side does."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def bolt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Chooses a version, as a Neo4j server does."""
    assert await reader.readexactly(20) == BOLT
    writer.write(struct.pack("!I", 0x00000404))
    await writer.drain()
    writer.close()


async def test_a_bolt_handshake_passes_by_name(world: World):
    await world.pod(bolt, "graph", protocol=TCP, port=7687)
    reader, writer = await world.connect("graph")
    writer.write(BOLT)
    async with asyncio.timeout(5):
        assert await reader.read() == struct.pack("!I", 0x00000404)
    writer.close()


async def test_a_stream_carries_much_both_ways_unchanged(world: World):
    await world.pod(parrot, protocol=TCP)
    reader, writer = await world.connect()
    sent = bytes(range(256)) * 20_000

    async def send() -> None:
        for at in range(0, len(sent), 70_001):
            writer.write(sent[at : at + 70_001])
            await writer.drain()

    sending = asyncio.create_task(send())
    async with asyncio.timeout(20):
        assert await reader.readexactly(len(sent)) == sent
    await sending
    writer.close()


async def test_everything_that_a_pod_said_arrives_before_the_end(world: World):
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 1_000_000)
        await writer.drain()
        writer.close()

    await world.pod(speak, protocol=TCP)
    assert await asyncio.to_thread(bytes_read, world) == 1_000_000


async def test_everything_that_a_client_said_arrives_before_the_end(world: World):
    heard = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(len(await reader.read()))
        writer.close()

    await world.pod(listen, protocol=TCP)
    async with asyncio.timeout(10):
        await asyncio.to_thread(bytes_read, world, b"x" * 1_000_000)
        assert await heard == 1_000_000


async def test_who_has_said_all_hears_the_rest(world: World):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read()
        await asyncio.sleep(0.2)
        writer.write(asked * 2)
        writer.close()

    await world.pod(answer, protocol=TCP)
    async with asyncio.timeout(10):
        assert await asyncio.to_thread(bytes_read, world, b"x" * 200_000) == 400_000


def bytes_read(world: World, says: bytes = b"") -> int:
    """Until the end of a connection, by a client that ends its own direction when it has said what it has to.

    It has no event loop: uvloop's TLS loses what comes right before the end while nobody reads (its pull request 661).
    """
    with (
        socket.create_connection(("127.0.0.1", world.port), 10) as raw,
        world.tls().wrap_socket(raw, server_hostname=f"web.{DOMAIN}") as stream,
    ):
        if says:
            stream.sendall(says)
            end(stream)
        read = 0
        with contextlib.suppress(ssl.SSLZeroReturnError):  # so it tells who ended first of the other's end
            while some := stream.recv(65536):
                read += len(some)
        return read


def end(stream: ssl.SSLSocket) -> None:
    """Say that no more comes, and do not wait until the other side says so."""
    stream.settimeout(0)
    with contextlib.suppress(ssl.SSLWantReadError):
        stream.unwrap()
    stream.settimeout(10)
    raw = socket.socket(fileno=os.dup(stream.fileno()))
    raw.shutdown(socket.SHUT_WR)
    raw.close()


async def test_two_names_lead_to_two_pods(world: World):
    async def speak(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name.encode())
        writer.close()

    for name in ("one", "two"):
        await world.pod(partial(speak, name), name, f"r-{name}", protocol=TCP)
    for name in ("one", "two"):
        reader, writer = await world.connect(name)
        assert await reader.read() == name.encode()
        writer.close()


@pytest.mark.parametrize("name", ["web.pods.example.org", "a.b.pods.localhost", "localhost"])
async def test_a_name_of_no_domain_of_ours_fails_the_handshake(world: World, name):
    await world.pod(parrot, protocol=TCP)
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        await world.connect(name=name)


async def test_a_handshake_without_a_name_fails(world: World):
    context = world.tls()
    context.check_hostname = False
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        await asyncio.open_connection("127.0.0.1", world.port, ssl=context, server_hostname="")


async def test_old_tls_is_refused(world: World):
    await world.pod(parrot, protocol=TCP)
    context = world.tls()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, OSError)):
        await asyncio.open_connection("127.0.0.1", world.port, ssl=context, server_hostname=f"web.{DOMAIN}")


@pytest.mark.parametrize("rule", [{"ip_allow": ("203.0.113.0/24",)}, {"needs_login": True}])
async def test_a_stream_that_may_not_pass_ends_at_once(world: World, rule):
    await world.pod(parrot, protocol=TCP, **rule)
    reader, writer = await world.connect()
    writer.write(b"hello")
    async with asyncio.timeout(5):
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
    assert world.place.connects == 0
    writer.close()


async def test_who_says_nothing_keeps_nobody_waiting(proxy: str, monkeypatch):
    monkeypatch.setattr("gateway.embedded.HANDSHAKE_S", 1)
    async with gateway(proxy) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_http_without_tls_is_told_so(world: World):
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: web.pods.localhost\r\n\r\n")
    assert b"https://" in await reader.read()
    writer.close()


async def test_a_stream_that_carries_nothing_for_long_is_ended(world: World, monkeypatch):
    monkeypatch.setattr("gateway.embedded.IDLE_S", 0.3)
    monkeypatch.setattr("gateway.plain.IDLE_S", 0.3)
    await world.pod(parrot, protocol=TCP)
    reader, writer = await world.connect()
    writer.write(b"hello")
    async with asyncio.timeout(5):
        assert await reader.readexactly(5) == b"hello"
        assert await reader.read() == b""
    writer.close()


# -- PostgreSQL --------------------------------------------------------------------------------------------------


def query(world: World, pod_id: str = "db", **options: object) -> int:
    name = f"{pod_id}.{DOMAIN}"
    with psycopg.connect(
        host=name,
        hostaddr="127.0.0.1",
        port=world.port,
        user="berth",
        dbname="postgres",
        connect_timeout=10,
        sslrootcert=str(world.ca),
        **{"sslmode": "verify-full", **options},  # type: ignore[arg-type]
    ) as connection:
        row = connection.execute("SELECT sum(length(repeat('x', n))) FROM generate_series(1, 1000) n").fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
async def test_psycopg_reaches_a_real_database_by_its_name(world: World, database, negotiation):
    world.at(database / ".s.PGSQL.5432", "db", protocol=POSTGRES, port=5432)
    assert await asyncio.to_thread(query, world, sslnegotiation=negotiation) == 500_500


async def test_two_databases_share_the_port(world: World, database):
    world.at(database / ".s.PGSQL.5432", "db", protocol=POSTGRES, port=5432)
    world.at(database / ".s.PGSQL.5432", "dc", "r2", protocol=POSTGRES, port=5432)
    found = await asyncio.gather(*(asyncio.to_thread(query, world, name) for name in ("db", "dc") * 5))
    assert found == [500_500] * 10


async def test_a_database_that_is_not_there_is_told_in_postgresqls_words(world: World, database):
    known = world.at(database / ".s.PGSQL.5432", "db", protocol=POSTGRES, port=5432)
    world.know(as_status(known, PodStatus.STOPPED))
    with pytest.raises(psycopg.OperationalError, match="the pod db is stopped"):
        await asyncio.to_thread(query, world)


async def test_a_database_of_no_name_is_told_in_postgresqls_words(world: World):
    with pytest.raises(psycopg.OperationalError, match="no pod has the name none"):
        await asyncio.to_thread(query, world, "none")


async def test_a_database_without_tls_is_told_what_to_do(world: World):
    with pytest.raises(psycopg.OperationalError, match="sslmode=require"):
        await asyncio.to_thread(query, world, sslmode="disable")


async def test_nothing_that_was_sent_before_tls_is_taken_as_sent_within(world: World, database):
    """A middle man could put it there (CVE-2021-23222)."""
    world.at(database / ".s.PGSQL.5432", "db", protocol=POSTGRES, port=5432)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(postgres.SSL_REQUEST + struct.pack("!II", 8, 196608))
    async with asyncio.timeout(5):
        assert (await reader.read())[:1] == postgres.YES
    assert world.place.connects == 0
    writer.close()


async def test_a_database_may_be_waited_for_while_it_is_handed_over(world: World, database):
    known = world.at(database / ".s.PGSQL.5432", "db", protocol=POSTGRES, port=5432)
    world.know(as_status(known, PodStatus.CREATING))
    asked = asyncio.create_task(asyncio.to_thread(query, world))
    await asyncio.sleep(0.3)
    assert not asked.done()
    world.know(known)
    assert await asked == 500_500


async def test_bytes_for_a_database_are_not_brought_to_another_protocol(world: World):
    await world.echo()
    with pytest.raises(psycopg.OperationalError, match="no pod has the name"):
        await asyncio.to_thread(query, world, "web")
    assert world.place.connects == 0


async def test_a_wish_for_tls_may_come_byte_by_byte(world: World, database):
    world.at(database / ".s.PGSQL.5432", "db", protocol=POSTGRES, port=5432)
    with socket.create_connection(("127.0.0.1", world.port)) as client:
        for byte in postgres.SSL_REQUEST:
            client.sendall(bytes([byte]))
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(client.recv, 1) == postgres.YES
