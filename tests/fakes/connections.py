"""Connections to FakeSystems by system id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backends.base import Backend, PodHost, Storage
from scheduler.model.errors import CredentialRefused, NotAuthorised
from scheduler.model.ids import LoginKey
from scheduler.model.probes import ProbeAsk, ProbeReport
from scheduler.model.runs import JobType
from scheduler.model.systems import Credential, System, Verified
from tests.fakes.system import FakeSystem


@dataclass
class FakeConnections:
    """The port that services and reconcilers get. ``refused`` holds the Berth users whose credential fails."""

    systems: Mapping[str, FakeSystem]
    refused: set[str] = field(default_factory=set)
    forgotten: list[LoginKey] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    """Of every credential that is tried."""

    async def backend(self, login: LoginKey, job_type: JobType) -> Backend:
        return self._system(login).backend()

    async def storage(self, login: LoginKey) -> Storage:
        return self._system(login).storage()

    async def storage_below(self, login: LoginKey, directory: str) -> Storage:
        return self._system(login).storage(f"/{directory}")

    async def pod_host(self, login: LoginKey) -> PodHost:
        return self._system(login).pod_host()

    async def verify(self, system: System, credential: Credential) -> Verified:
        if credential.user in self.refused:
            raise CredentialRefused("Permission denied (publickey).")
        return Verified("ssh-ed25519 AAAAfake", self.warnings)

    async def probe(self, ask: ProbeAsk) -> ProbeReport:
        return ProbeReport(
            definition={"id": ask.system_id or ask.host, "host": ask.host}, host_key="ssh-ed25519 AAAAfake"
        )

    async def forget(self, login: LoginKey) -> None:
        self.forgotten.append(login)

    async def aclose(self) -> None:
        """Nothing is held."""

    def _system(self, login: LoginKey) -> FakeSystem:
        if login.owner in self.refused or login.system_id not in self.systems:
            raise NotAuthorised(f"no usable credential of {login.owner} for {login.system_id}")
        return self.systems[login.system_id]
