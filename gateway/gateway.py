"""The gateway as a whole: what a process with one holds, and what it looks up again from time to time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from gateway import certificates, conversation
from gateway.board import Board
from gateway.certificates import Certificate
from gateway.conversation import Guard
from gateway.embedded import Embedded, Names
from gateway.errors import GatewayRefused
from gateway.haproxy import HAProxy
from gateway.haproxy_process import find_program
from gateway.routes import routes
from gateway.ways import Ways
from scheduler.ports import Ports
from scheduler.services import pod_nets

ROUTES_S = 1.0
"""Between two looks at what the store says of pods."""
CERTIFICATES_S = 3600.0
"""Between two looks at domains, and at how long certificates last."""
BACKLOG = 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the gateway is told by the settings. certificate, key: the operator's; None: from a CA of our own.

    proxy: who carries the traffic; auto: HAProxy where it is installed. retries: see ``haproxy_config.Shape``.
    """

    home: Path
    host: str
    port: int
    pods_domain: str
    certificate: Path | None = None
    key: Path | None = None
    proxy: Literal["auto", "embedded", "haproxy"] = "embedded"
    retries: int = 1


class Gateway:
    """Stands in front of all pods of all tenants. ``look_at_certificates`` is called once; then ``look_at_pods`` and
    ``keep_certificates`` again and again, and ``serve`` answers meanwhile."""

    def __init__(self, ports: Ports, options: Options, guard: Guard = conversation.nobody) -> None:
        self._ports, self._options = ports, options
        self._domains: Mapping[str, str] = {}
        self._served: Mapping[str, Certificate] = {}
        self._refusal = ""
        self._told: dict[str, str] = {}
        """What pods were told of the certificate of a domain."""
        self._names = Names()
        self.board = Board(ports.clock, self.look_at_pods)
        self._ways = Ways(ports.connections, self.board)
        self._embedded = Embedded(self._names, self._ways, guard)
        self.haproxy: HAProxy | None = None

    async def choose_proxy(self) -> None:
        """Once, before all else: what carries the traffic. GatewayRefused when HAProxy is asked for and missing."""
        if self._options.proxy == "embedded":
            return
        program = await find_program(required=self._options.proxy == "haproxy")
        if program is not None:
            folder, retries = self._options.home / "gateway", self._options.retries
            self.haproxy = HAProxy(program, folder, self._embedded, self._ways, retries=retries)

    def listener(self) -> socket.socket:
        """The listening socket; GatewayRefused when the address is taken, or not ours."""
        host, port = self._options.host, self._options.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            fix = "choose another, or 0 for no gateway"
            raise GatewayRefused(f"BERTH_GATEWAY_PORT: {host}:{port}: {error.strerror}; {fix}") from None

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Answer until ``stop`` is set."""
        await (self.haproxy or self._embedded).serve(listener, stop)

    async def look_at_pods(self) -> None:
        """Show the routes of now."""
        nets = await pod_nets.open_nets(self._ports)
        self.board.show(routes(nets, self._domains, self.board.routes, self._ports.clock()))

    async def look_at_certificates(self) -> None:
        """Serve a certificate for every domain; one that was renewed or changed on disk from now on. GatewayRefused."""
        self._domains = await pod_nets.domains(self._ports, self._options.pods_domain)
        found = await asyncio.to_thread(self._certificates, sorted(set(self._domains.values())))
        if found != self._served:
            self._names.serve(found)
            if self.haproxy is not None:
                self.haproxy.serve_certificates(found)
            self._served = found

    async def keep_certificates(self) -> None:
        """The same of a gateway that runs: what was served goes on where another is refused, and who looks at a pod of
        which clients refuse the name is told."""
        try:
            await self.look_at_certificates()
            refusal = ""
        except (GatewayRefused, OSError) as error:
            refusal = str(error)
        if refusal not in ("", self._refusal):
            log.error("a certificate is refused; what was served before goes on", why=refusal)
        self._refusal = refusal
        for domain in sorted({*self._domains.values(), *self._told}):
            trouble = self.name_trouble(domain)
            if trouble != self._told.get(domain, ""):
                tenants = [tenant for tenant, below in self._domains.items() if below == domain]
                words = trouble or f"the certificate of *.{domain} holds again"
                await pod_nets.tell(self._ports, tenants, words)
            self._told[domain] = trouble

    def name_trouble(self, domain: str) -> str:
        """Why clients refuse the names below a domain, for who looks at a pod; empty where they do not."""
        served = self._served.get(domain)
        if served is None:
            return f"no certificate holds for *.{domain}: nobody is answered under this name"
        if served.not_after_at <= self._ports.clock():
            ended = f"{served.not_after_at:%Y-%m-%d %H:%M} UTC"
            return f"the certificate of *.{domain} ended on {ended}: clients refuse this name until it is renewed"
        return ""

    def _certificates(self, domains: list[str]) -> Mapping[str, Certificate]:
        chain, key, now = self._options.certificate, self._options.key, self._ports.clock()
        if chain is not None and key is not None:
            return dict.fromkeys(domains, certificates.given(chain, key, domains, now))
        return {domain: certificates.own(self._options.home, domain, now) for domain in domains}
