"""HTTP through the gateway: real clients, real servers, and requests that no real client sends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from functools import partial

import httpx
import pytest
import websockets

from scheduler.model.pods import PodStatus
from tests.gateway.world import DOMAIN, World, as_status

GET = f"GET / HTTP/1.1\r\nHost: web.{DOMAIN}\r\n".encode()
END = b"Connection: close\r\n\r\n"
BOTH_LENGTHS = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"


def values(answer: httpx.Response, name: str) -> list[str]:
    return [value for key, value in answer.json()["headers"] if key == name]


async def test_a_request_reaches_the_pod_of_its_name(world: World):
    await world.echo()
    async with world.client() as client:
        answer = await client.get(world.url("/a/b?c=%20d"))
    assert answer.status_code == 200
    assert (answer.json()["method"], answer.json()["target"]) == ("GET", "/a/b?c=%20d")


async def test_one_connection_carries_many_requests_to_the_gateway_and_to_the_pod(world: World):
    await world.echo()
    reader, writer = await world.connect()
    for _ in range(5):
        writer.write(GET + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head
        assert b"transfer-encoding: chunked" in head.lower()
        while await reader.readuntil(b"\r\n") != b"0\r\n":
            await reader.readuntil(b"\r\n")
        assert await reader.readuntil(b"\r\n") == b"\r\n"
    writer.close()
    assert world.place.connects == 1


async def test_requests_sent_at_once_are_answered_in_order(world: World):
    await world.echo()
    answers = await world.say(GET.replace(b"/ ", b"/1 ") + b"\r\n" + GET.replace(b"/ ", b"/2 ") + END)
    assert answers.index(b'"target": "/1"') < answers.index(b'"target": "/2"')


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_arrives_whole(world: World, size, chunked):
    await world.echo()
    body = b"x" * size

    async def pieces():
        for at in range(0, size, 100_000):
            yield body[at : at + 100_000]

    async with world.client() as client:
        answer = await client.post(world.url(), content=pieces() if chunked else body)
    assert answer.json()["body"] == (body.decode() if size < 10_000 else size)


async def test_the_pod_learns_who_asked_from_us_alone(world: World):
    await world.echo()
    forged = {
        "X-Forwarded-For": "1.2.3.4",
        "X_Forwarded_For": "1.2.3.4",
        "X-Real-IP": "1.2.3.4",
        "Forwarded": "for=1.2.3.4",
        "X-Forwarded-Proto": "http",
    }
    async with world.client() as client:
        answer = await client.get(world.url(), headers=forged)
    assert values(answer, "x-forwarded-for") == values(answer, "x-real-ip") == ["127.0.0.1"]
    assert values(answer, "x-forwarded-proto") == ["https"]
    assert values(answer, "x-forwarded-host") == values(answer, "host") == [f"web.{DOMAIN}:{world.port}"]
    assert "1.2.3.4" not in answer.text


async def test_headers_of_one_connection_stay_on_it_and_cannot_name_ours(world: World):
    await world.echo()
    said = {
        "Connection": "X-Secret, X-Forwarded-For, Host",
        "X-Secret": "s",
        "TE": "trailers",
        "Keep-Alive": "9",
        "X-Kept": "k",
    }
    async with world.client() as client:
        answer = await client.get(world.url(), headers=said)
    assert values(answer, "x-kept") == ["k"]
    assert values(answer, "x-forwarded-for") == ["127.0.0.1"]
    assert not (values(answer, "x-secret") + values(answer, "te") + values(answer, "keep-alive"))


async def test_a_request_for_another_name_than_the_handshake_is_misdirected(world: World):
    """As browsers send them that share connections between names of one certificate."""
    await world.echo()
    answer = await world.say(f"GET / HTTP/1.1\r\nHost: other.{DOMAIN}\r\n".encode() + END)
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert world.place.connects == 0


async def test_a_name_of_no_pod_is_answered_with_a_page(world: World):
    answer = await world.say(f"GET / HTTP/1.1\r\nHost: none.{DOMAIN}\r\n".encode() + END, "none")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"none.pods.localhost" in answer


@pytest.mark.parametrize(
    "smuggled",
    [
        GET + BOTH_LENGTHS + b"\r\n0\r\n\r\nX",
        GET + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        GET + b"Content-Length: +5\r\n\r\nhello",
        GET + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        GET + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        GET + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        GET + b"Transfer-Encoding: chunked\r\n\r\n5;\n\r\nhello\r\n0x\r\n\r\n",
        GET + b" Folded: first\r\n" + END,
        GET + b"X: a\rb\r\n" + END,
        GET + b"X: a\0b\r\n" + END,
        GET + f"Host: other.{DOMAIN}\r\n".encode() + END,
        b"GET http://inner/ HTTP/1.1\r\nHost: web.pods.localhost\r\n" + END,
        b"GET /a b HTTP/1.1\r\nHost: web.pods.localhost\r\n" + END,
        b"GET / HTTP/1.1\r\n" + END,
        b"GET / HTTP/1.0\r\nHost: web.pods.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT inner:22 HTTP/1.1\r\nHost: web.pods.localhost\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: web.pods.localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda raw: raw[-40:].decode("latin-1"),
)
async def test_what_two_parsers_could_read_differently_reaches_no_pod(world: World, smuggled):
    got: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    await world.pod(record)
    answer = await world.say(smuggled)
    if BOTH_LENGTHS in smuggled and world.proxy == "haproxy":  # it passes on what the one reading of the two leaves
        assert [b"content-length" in part or b"X" in part[-1:] for part in got] == [False]
        return
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"405", b"413", b"421", b"501", b"505"), answer[:80]
    assert b"200" not in answer[:15]
    assert all(b"chunked" in part or part == b"" for part in got), got


async def test_what_follows_a_request_of_two_lengths_is_not_read_as_one(world: World):
    await world.echo()
    hidden = GET + BOTH_LENGTHS + b"\r\n0\r\n\r\n" + GET + END
    answer = await world.say(hidden)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert world.place.connects == (1 if world.proxy == "haproxy" else 0)


async def test_a_head_beyond_64_kib_is_refused(world: World):
    await world.echo()
    answer = await world.say(GET + b"X: " + b"a" * 70_000 + b"\r\n" + END)
    assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert world.place.connects == 0


async def test_websockets_pass_with_large_messages_and_subprotocols(world: World):
    await world.echo()
    async with websockets.connect(
        f"wss://web.{DOMAIN}:{world.port}/ws",
        host="127.0.0.1",
        port=world.port,
        ssl=world.tls(),
        subprotocols=["chat"],
        max_size=None,
        proxy=None,
    ) as socket:
        assert socket.subprotocol == "chat"
        for message in ("hello", b"\0" * 500_000, "bye"):
            await socket.send(message)
            assert await socket.recv() == message


async def test_a_change_to_http2_without_tls_is_not_passed_on(world: World):
    await world.echo()
    async with world.client() as client:
        headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "x"}
        answer = await client.get(world.url(), headers=headers)
    assert answer.status_code == 200
    assert not values(answer, "upgrade")


async def test_an_answer_that_breaks_off_is_not_shown_as_whole(world: World):
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    await world.pod(cut)
    async with world.client() as client:
        with pytest.raises(httpx.HTTPError):
            await client.get(world.url())


@pytest.mark.parametrize("garbage", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_a_pod_that_speaks_no_http_is_a_bad_answer(world: World, garbage):
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(garbage)
        await writer.drain()
        writer.close()

    await world.pod(speak)
    async with world.client() as client:
        assert (await client.get(world.url())).status_code == 502


async def test_a_kept_connection_that_the_pod_closed_costs_no_request(world: World):
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    await world.pod(once)
    async with world.client() as client:
        for _ in range(3):
            assert (await client.get(world.url())).text == "ok"
        for _ in range(3):
            assert (await client.post(world.url(), content=b"x")).text == "ok"


async def test_an_answer_may_come_before_the_request_has_ended(world: World):
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()

    await world.pod(refuse)
    reader, writer = await world.connect()
    writer.write(GET.replace(b"GET", b"POST") + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000)
    async with asyncio.timeout(5):
        assert b"413" in await reader.readuntil(b"\r\n")
        assert (await reader.readuntil(b"\r\n\r\nno")).endswith(b"no")
    writer.close()


async def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(world: World):
    await world.echo()
    reader, writer = await world.connect()
    writer.write(GET.replace(b"GET", b"POST") + b"Content-Length: 5\r\nExpect: 100-continue\r\n" + END)
    async with asyncio.timeout(5):
        assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello")
        assert b'"body": "hello"' in (await reader.read()).replace(b"\r\n", b"")
    writer.close()


async def test_a_pod_notices_that_its_client_has_left(world: World):
    left = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            while not reader.at_eof():
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        left.set()

    await world.pod(stream)
    reader, writer = await world.connect()
    writer.write(GET + b"\r\n")
    await reader.readuntil(b"x\r\n")
    writer.transport.abort()
    async with asyncio.timeout(5):
        await left.wait()


async def test_events_of_a_pod_arrive_as_they_are_sent(world: World):
    more = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await more.wait()
        writer.write(b"data: 2\n\n")
        writer.close()

    await world.pod(stream)
    async with world.client() as client, client.stream("GET", world.url()) as answer:
        parts = answer.aiter_bytes()
        assert await anext(parts) == b"data: 1\n\n"
        more.set()
        assert await anext(parts) == b"data: 2\n\n"


async def test_a_head_request_has_no_body(world: World):
    await world.echo()
    async with world.client() as client:
        answer = await client.head(world.url())
        assert (answer.status_code, answer.content) == (200, b"")
        assert (await client.get(world.url())).status_code == 200


# -- pods that do not answer -------------------------------------------------------------------------------------


async def test_a_stopped_pod_says_so_and_when_to_come_again(world: World):
    known = await world.echo()
    world.know(as_status(known, PodStatus.STOPPED))
    async with world.client() as client:
        answer = await client.get(world.url())
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "is stopped" in answer.text


async def test_a_request_waits_for_a_pod_that_is_handed_over(world: World):
    known = await world.echo()
    world.know(as_status(known, PodStatus.CREATING))
    async with world.client() as client:
        asked = asyncio.create_task(client.get(world.url()))
        await asyncio.sleep(0.2)
        assert not asked.done()
        world.know(known)
        assert (await asked).status_code == 200


async def test_a_request_does_not_wait_for_ever(world: World):
    known = await world.echo()
    world.know(as_status(known, PodStatus.CREATING))
    async with world.client() as client:
        asked = asyncio.create_task(client.get(world.url()))
        await asyncio.sleep(0.1)
        world.behind_s = 11
        world.know()
        assert (await asked).status_code == 503


async def test_a_pod_that_moved_gets_the_next_request_of_an_open_connection(world: World):
    async def named(name: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name)

    async with world.client() as client:
        for name in (b"1", b"2"):
            await world.pod(partial(named, name), remote_id=f"r{name.decode()}")
            assert (await client.get(world.url())).content == name


# -- rules of nets -----------------------------------------------------------------------------------------------


async def test_an_address_that_is_not_listed_is_refused(world: World):
    await world.echo(ip_allow=("203.0.113.0/24",))
    async with world.client() as client:
        assert (await client.get(world.url())).status_code == 403
    assert world.place.connects == 0


async def test_a_net_with_a_login_lets_nobody_in_where_none_can_be_asked(world: World):
    await world.echo(needs_login=True)
    async with world.client() as client:
        assert (await client.get(world.url())).status_code == 403
    assert world.place.connects == 0


CORS = {
    "cors_allow_origins": ["https://app.example.org"],
    "cors_allow_methods": ["GET", "PUT"],
    "cors_allow_headers": ["X-Token"],
    "cors_allow_credentials": True,
    "cors_max_age": 100,
}


async def test_a_page_that_is_named_may_read_answers_and_no_other_may(world: World):
    await world.echo(cors=CORS)
    async with world.client() as client:
        named = await client.get(world.url(), headers={"Origin": "https://app.example.org"})
        other = await client.get(world.url(), headers={"Origin": "https://evil.example.org"})
    assert named.headers.get_list("access-control-allow-origin") == ["https://app.example.org"]
    assert named.headers["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in other.headers
    assert named.headers["vary"] == other.headers["vary"] == "Origin"


async def test_a_browser_that_asks_for_leave_is_answered_without_the_pod(world: World):
    await world.echo(cors={**CORS, "cors_allow_methods": ["GET", "PUT "]})
    asked = {"Origin": "https://app.example.org", "Access-Control-Request-Method": "PUT"}
    async with world.client() as client:
        answer = await client.options(world.url(), headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-methods"] == "GET, PUT"
    assert answer.headers["access-control-allow-headers"] == "X-Token"
    assert answer.headers["access-control-max-age"] == "100"
    assert world.place.connects == 0


async def test_any_page_may_read_without_cookies_where_all_are_named(world: World):
    await world.echo(cors={**CORS, "cors_allow_origins": ["*"]})
    async with world.client() as client:
        answer = await client.get(world.url(), headers={"Origin": "https://any.example.org"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


async def test_without_rules_the_pods_own_words_on_other_pages_stay(world: World):
    await world.echo()
    async with world.client() as client:
        answer = await client.get(world.url(), headers={"Origin": "https://any.example.org"})
    assert answer.headers["access-control-allow-origin"] == "https://pod.says"


async def test_curl_reaches_a_pod(world: World):
    await world.echo()
    name = f"web.{DOMAIN}"
    command = ["curl", "-sS", "--cacert", str(world.ca), "--resolve", f"{name}:{world.port}:127.0.0.1", world.url("/c")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True, timeout=20)
    assert json.loads(done.stdout)["target"] == "/c"
