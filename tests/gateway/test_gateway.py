"""The whole gateway over a real store: what the store says of pods and domains is what clients meet."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509

from gateway.certificates import LEAF_DAYS
from gateway.errors import GatewayRefused
from gateway.gateway import Gateway, Options
from scheduler.model.ids import RemoteId, marker_for, new_job_uuid
from scheduler.model.pods import (
    ANSWER_HOLDS,
    InstanceState,
    Pod,
    PodCredentials,
    PodDefinition,
    PodEvent,
    PodInstance,
)
from scheduler.model.runs import RunSpec
from scheduler.model.tenants import Site, Tenant
from scheduler.ports import Ports
from scheduler.security.secrets import KEY_BYTES, SecretBox
from scheduler.store.database import Database
from scheduler.store.pods import PodStore
from scheduler.store.tenants import TenantStore
from tests.gateway.nets import net
from tests.gateway.test_streams import parrot
from tests.gateway.world import TCP, Place

DOMAIN = "pods.localhost"
BEGIN = datetime.now(UTC)
STEPS = (PodEvent.PLACED, PodEvent.ACCEPTED, PodEvent.STARTED, PodEvent.ANSWERED)


@dataclass
class Whole:
    """A gateway, its store and its clock."""

    home: Path
    database: Database
    place: Place
    options: Options
    passed: timedelta = field(default_factory=timedelta)

    @property
    def ports(self) -> Ports:
        return Ports(self.database.transaction, self.place, clock=self.now)  # type: ignore[arg-type]

    def now(self) -> datetime:
        return BEGIN + self.passed

    async def add_pod(self, pod_id: str) -> Pod:
        """A pod that is AVAILABLE, and answered now."""
        now, run_id = self.now(), new_job_uuid()
        definition = PodDefinition(image="x", nets=(net(protocol=TCP),))
        owned: dict[str, Any] = {"tenant": "dev", "id": pod_id, "uuid": run_id, "owner": "ann", "asked": {}}
        pod = Pod(**owned, definition=definition, created_at=now, updated_at=now)
        instance = PodInstance(
            pod_uuid=run_id,
            number=1,
            marker=marker_for(run_id, 1),
            tenant="dev",
            system_id="local",
            owner="ann",
            queue=None,
            run=RunSpec(
                job_uuid=run_id, name="x", image="x", ports=(5000,), exec_dir="/", input_dir="/", output_dir="/"
            ),
            intended_at=now,
        )
        async with self.database.transaction() as db:
            store = PodStore(db)
            await store.add(pod, PodCredentials(user_password="u", service_password="s"))
            await store.intend(instance)
            running = {"state": InstanceState.RUNNING, "remote_id": RemoteId(pod_id), "answered_at": now}
            await store.write(instance, **running)
            for step in STEPS:
                pod = await store.move(pod, step, now)
        return pod

    async def greet(self, port: int, pod_id: str) -> bytes:
        """What comes back from a pod that repeats what it hears."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=self.trusting(), server_hostname=f"{pod_id}.{DOMAIN}"
        )
        writer.write(b"hello")
        async with asyncio.timeout(5):
            answer = await reader.read(5)
        writer.close()
        return answer

    async def serial_number(self, port: int) -> int:
        """Of the certificate that is shown, which may be one of the future."""
        context = self.trusting()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=f"any.{DOMAIN}")
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return x509.load_der_x509_certificate(shown).serial_number

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.home / "ca" / DOMAIN / "ca.pem")


@pytest.fixture
async def whole(proxy: str, tmp_path: Path) -> AsyncIterator[Whole]:
    home = Path(tempfile.mkdtemp(prefix="berth-gw-"))
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'berth.sqlite'}", sealer=SecretBox(b"k" * KEY_BYTES))
    await database.create_tables()
    async with database.transaction() as db:
        await TenantStore(db).add_site(Site(id="here"))
        await TenantStore(db).add_tenant(Tenant(id="dev", site_id="here", created_at=BEGIN, updated_at=BEGIN))
    options = Options(home=home, host="127.0.0.1", port=0, pods_domain=DOMAIN, proxy=proxy)
    yield Whole(home, database, Place(), options)
    await database.aclose()
    shutil.rmtree(home)


async def test_what_the_store_says_of_a_pod_is_what_its_clients_meet(whole: Whole):
    gateway, stop = Gateway(whole.ports, whole.options), asyncio.Event()
    await gateway.choose_proxy()
    await gateway.look_at_certificates()
    listener = gateway.listener()
    serving = asyncio.create_task(gateway.serve(listener, stop))
    port = listener.getsockname()[1]
    server = await asyncio.start_unix_server(parrot, whole.home / "pod.sock")
    whole.place.ports["web", 5000] = whole.home / "pod.sock"
    try:
        await whole.add_pod("web")
        assert await whole.greet(port, "web") == b"hello", "whoever hears that it is AVAILABLE may come at once"
        whole.passed = ANSWER_HOLDS * 2.5
        await gateway.look_at_pods()
        whole.passed *= 2
        await gateway.look_at_pods()
        assert await whole.greet(port, "web") == b""
    finally:
        server.close()
        stop.set()
        await serving


async def test_a_certificate_is_renewed_while_the_gateway_runs(whole: Whole):
    gateway, stop = Gateway(whole.ports, whole.options), asyncio.Event()
    await gateway.choose_proxy()
    await gateway.look_at_certificates()
    listener = gateway.listener()
    serving = asyncio.create_task(gateway.serve(listener, stop))
    port = listener.getsockname()[1]
    seen = []
    for days in (0, 1, LEAF_DAYS - 10):
        whole.passed = timedelta(days=days)
        await gateway.look_at_certificates()
        seen.append(await whole.serial_number(port))
    stop.set()
    await serving
    assert seen[0] == seen[1] != seen[2]


async def test_an_address_that_is_taken_is_named(whole: Whole):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(GatewayRefused, match=f"BERTH_GATEWAY_PORT: 127.0.0.1:{port}: "):
            Gateway(whole.ports, replace(whole.options, port=port)).listener()


async def test_the_operators_certificate_must_hold_for_every_tenants_domain(whole: Whole):
    own = Gateway(whole.ports, whole.options)
    await own.look_at_certificates()
    leaf = whole.home / "ca" / DOMAIN / "leaf.pem"
    given = Gateway(whole.ports, replace(whole.options, certificate=leaf, key=leaf))
    await given.look_at_certificates()
    async with whole.database.transaction() as db:
        other = Tenant(id="lab", site_id="here", hosts=("lab.example.org",), created_at=BEGIN, updated_at=BEGIN)
        await TenantStore(db).add_tenant(other)
    with pytest.raises(GatewayRefused, match=r"lacks \*\.pods\.lab\.example\.org"):
        await given.look_at_certificates()
    await own.look_at_certificates()
    assert (whole.home / "ca" / "pods.lab.example.org" / "ca.pem").exists()


async def test_pods_say_that_their_certificate_has_ended_until_it_is_renewed(whole: Whole, tmp_path: Path):
    await Gateway(whole.ports, whole.options).look_at_certificates()
    mine, theirs = tmp_path / "given.pem", whole.home / "ca" / DOMAIN / "leaf.pem"
    mine.write_bytes(theirs.read_bytes())
    gateway = Gateway(whole.ports, replace(whole.options, certificate=mine, key=mine))
    await gateway.look_at_certificates()
    pod = await whole.add_pod("web")
    await gateway.keep_certificates()
    assert gateway.name_trouble(DOMAIN) == ""

    whole.passed = timedelta(days=LEAF_DAYS)
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            await gateway.keep_certificates()
    [line] = logged
    assert ("exc_info" in line, "renew it" in line["why"]) == (False, True), "it is said once, in words"
    ended = f"the certificate of *.{DOMAIN} ended on "
    assert gateway.name_trouble(DOMAIN).startswith(ended)
    with pytest.raises(GatewayRefused, match="renew it"):
        await gateway.look_at_certificates()

    await Gateway(whole.ports, whole.options).look_at_certificates()
    mine.write_bytes(theirs.read_bytes())
    await gateway.keep_certificates()
    assert gateway.name_trouble(DOMAIN) == ""
    async with whole.database.reading() as db:
        said = [action.words for action in await PodStore(db).actions(pod.uuid) if "certificate" in action.words]
    assert [said[0].startswith(ended), *said[1:]] == [True, f"the certificate of *.{DOMAIN} holds again"]
