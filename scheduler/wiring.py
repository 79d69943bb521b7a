"""From settings to ports: the only place that names concrete backends. Nothing is opened before it is needed."""

from __future__ import annotations

import asyncio
import posixpath
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import structlog

from backends.base import Backend, PodHost, Storage
from backends.below import Below
from backends.k8s.site import Access, Site, access_of, site_of
from backends.local.backend import LocalBackend
from backends.local.commands import account_for
from backends.local.own_places import overlapped
from backends.local.pods import LocalPodHost
from backends.local.registries import Registries
from backends.local.storage import LocalStorage
from backends.slurm.backend import SlurmBackend
from backends.slurm.pacing import TokenBucket
from backends.slurm.pods import SlurmPodHost
from backends.slurm.probe import probe
from backends.ssh.backend import SshBackend
from backends.ssh.connection import SshConnection, verify
from backends.ssh.storage import SftpStorage
from images.access import try_login
from images.bring import Bringer
from images.bringers import Bringers
from images.credentials import Login, Logins, docker_config, no_logins
from images.exchange import Exchange, Rules
from images.origins import Origins
from images.personal import Personal
from images.pushed import Pushed, Pushes
from images.streams import Limits
from images.workshop import Workshop
from scheduler.addresses import GuardedTransport, addresses_of
from scheduler.knowledge import Knowledge
from scheduler.model.errors import BackendUnavailable, CredentialRefused, NotAuthorised, NotFound
from scheduler.model.ids import LoginKey
from scheduler.model.images import PushedKind
from scheduler.model.probes import ProbeAsk, ProbeReport
from scheduler.model.runs import JobType
from scheduler.model.systems import BackendKind, Credential, System, Verified
from scheduler.ports import Images, Ports
from scheduler.security.secrets import SecretBox, SecretsUnreadable, box_at, parse_key, rotate
from scheduler.settings import Network, Settings, SettingsInvalid
from scheduler.store.database import Database
from scheduler.store.definitions import Definitions
from scheduler.store.group_commit import GroupCommit
from scheduler.store.pushed import PushedStore
from scheduler.store.registries import RegistryLoginStore
from scheduler.store.rotation import reseal_everything
from scheduler.store.systems import CredentialStore, SystemStore

if TYPE_CHECKING:  # what stands on the client of Kubernetes, which is an extra
    from backends.k8s.sight import Sight

log = structlog.get_logger()

Reading = Callable[[], AbstractAsyncContextManager[Any]]

REREAD_S = 10.0
"""How long a definition or a credential that another process changed may go on being used."""

REGISTRY_TIMEOUT_S, REGISTRY_CONNECT_S = 60.0, 10.0
"""How long a registry may take to send something, and to be there at all."""

IDLE_S = 15 * 60.0
"""After this long without use a connection is closed."""


@dataclass
class Opened:
    """What is open for one login: at most one connection, and what stands on it."""

    system: System
    credential: Credential | None
    connection: SshConnection | None
    read_at: float
    used_at: float
    backends: dict[JobType, Backend] = field(default_factory=dict)
    storage: Storage | None = None
    pod_host: PodHost | None = None
    sight: Sight | None = None
    """Of a Kubernetes: what is watched there, for the backend and for the host of pods."""

    def is_idle(self, now: float) -> bool:
        """Whether it was not asked for, nor used by a long transfer that began before, for so long."""
        in_use = self.connection is not None and self.connection.idle_s <= IDLE_S
        return now - self.used_at > IDLE_S and not in_use

    async def aclose(self) -> None:
        for one in (*self.backends.values(), self.storage, self.pod_host, self.sight, self.connection):
            if one is not None:
                await one.aclose()


class SystemConnections:
    """Backends and storages of real systems; one SSH connection per login carries all of them."""

    def __init__(
        self,
        reading: Reading,
        *,
        state_dir: Path,
        images_dir: Path,
        allowed: Sequence[Network],
        node_port_networks: Sequence[Network] = (),
        refused_pause_s: float,
        registries: Registries = Registries(),  # noqa: B008 - frozen
        own_places: Sequence[Path] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reading, self._allowed, self._monotonic = reading, allowed, monotonic
        self._state_dir, self._images_dir = state_dir, images_dir
        self._refused_pause_s, self._registries, self._own_places = refused_pause_s, registries, own_places
        self._node_port_networks = node_port_networks
        self._opened: dict[LoginKey, Opened] = {}
        self._buckets: dict[tuple[str, str], TokenBucket] = {}
        self._opening = asyncio.Lock()

    async def backend(self, login: LoginKey, job_type: JobType) -> Backend:
        opened = await self._open(login)
        if job_type not in opened.backends:
            opened.backends[job_type] = self._backend(opened, login, job_type)
        return opened.backends[job_type]

    async def storage(self, login: LoginKey) -> Storage:
        opened = await self._open(login)
        if opened.storage is None:
            opened.storage = _storage(opened)
        return opened.storage

    async def storage_below(self, login: LoginKey, directory: str) -> Storage:
        opened = await self._open(login)
        if opened.system.backend is BackendKind.K8S:
            return Below(await self.storage(login), directory)
        root_dir = posixpath.join(opened.system.root_dir, directory)
        return _storage(replace(opened, system=replace(opened.system, root_dir=root_dir)))

    async def adopt(self, directory: Path, login: LoginKey, path: str) -> bool:
        """As ``Ports.adopt``, of any directory of this machine."""
        storage = await self.storage(login)
        return isinstance(storage, LocalStorage) and await storage.adopt(directory, path)

    async def pod_host(self, login: LoginKey) -> PodHost:
        opened = await self._open(login)
        if opened.pod_host is None:
            opened.pod_host = _pod_host(opened, self._node_port_networks)
        return opened.pod_host

    async def verify(self, system: System, credential: Credential) -> Verified:
        await self._check_address(system.host)
        if system.backend is BackendKind.K8S:
            with _kubernetes_extra():
                from backends.k8s import login
            return Verified(warnings=await login.verify(system, credential))
        return Verified(await verify(system, credential))

    async def probe(self, ask: ProbeAsk) -> ProbeReport:
        await self._check_address(ask.host)
        return await probe(ask)

    async def forget(self, login: LoginKey) -> None:
        async with self._opening:
            for key in [key for key in self._opened if key[:2] == login[:2]]:
                self._opened[key].read_at = -REREAD_S  # others look whether the system itself changed
            if (opened := self._opened.pop(login, None)) is not None:
                await opened.aclose()

    async def aclose(self) -> None:
        async with self._opening:
            for opened in self._opened.values():
                await opened.aclose()
            self._opened.clear()

    # -- below -------------------------------------------------------------------------------------------------------

    async def _open(self, login: LoginKey) -> Opened:
        """What is open for a login, opened anew when its system or its credential changed."""
        now = self._monotonic()
        async with self._opening:
            opened = self._opened.get(login)
            if opened is None or now - opened.read_at >= REREAD_S:
                opened = await self._reread(login, opened, now)
            opened.used_at = now
            await self._close_idle(now)
            return opened

    async def _reread(self, login: LoginKey, opened: Opened | None, now: float) -> Opened:
        system, credential = await self._definition(login)
        if opened is not None and (opened.system.version, opened.credential) == (system.version, credential):
            opened.read_at = now
            return opened
        if opened is not None:
            await opened.aclose()
        speaks_ssh = system.backend is not BackendKind.K8S
        connection = self._connection(system, credential) if credential is not None and speaks_ssh else None
        self._opened[login] = Opened(system, credential, connection, read_at=now, used_at=now)
        return self._opened[login]

    async def _definition(self, login: LoginKey) -> tuple[System, Credential | None]:
        async with self._reading() as db:
            system = await SystemStore(db).get(login.tenant, login.system_id, deleted=True)
            if system.backend is BackendKind.LOCAL:
                self._demand_apart(system)
                return system, None
            try:
                return system, await CredentialStore(db).get(login.tenant, login.system_id, login.owner)
            except NotFound:
                self._opened.pop(login, None)
                words = f"there is no credential of {login.owner} for system '{login.system_id}'; register one"
                raise NotAuthorised(words) from None

    def _demand_apart(self, system: System) -> None:
        """NotAuthorised while a root directory and Berth's own places overlap, as a link made since can let them."""
        if (place := overlapped(system.root_dir, self._own_places)) is not None:
            words = f"rootDir {system.root_dir} of system '{system.id}' overlaps {place}, which is for Berth alone"
            raise NotAuthorised(f"{words}; make a system with a directory of its own")

    async def _close_idle(self, now: float) -> None:
        for key in [key for key, opened in self._opened.items() if opened.is_idle(now)]:
            await self._opened.pop(key).aclose()

    def _connection(self, system: System, credential: Credential) -> SshConnection:
        return SshConnection(
            system.host,
            system.port,
            credential.login_user,
            private_key=credential.private_key,
            password=credential.password,
            host_key=system.host_key,
            refused_pause_s=self._refused_pause_s,
        )

    def _backend(self, opened: Opened, login: LoginKey, job_type: JobType) -> Backend:
        system = opened.system
        if system.backend is BackendKind.K8S:
            # What watches the cluster serves runs of both types.
            return next(iter(opened.backends.values()), None) or _kubernetes_backend(opened)
        if opened.connection is None or opened.credential is None:
            state_dir = self._state_dir / "local" / system.tenant / system.id
            return LocalBackend(
                system, state_dir, owner=login.owner, images_dir=self._images_dir, registries=self._registries
            )
        login_user = opened.credential.login_user
        if job_type is JobType.BATCH and system.backend is BackendKind.SLURM:
            bucket = self._buckets.setdefault(login[:2], TokenBucket(system.berth_notes.get("submitRatePerS")))
            return SlurmBackend(system, login_user, opened.connection, bucket=bucket)
        return SshBackend(system, login_user, opened.connection)

    async def _check_address(self, host: str) -> None:
        """CredentialRefused when the operator does not let users make Berth talk to this host."""
        if all(network.prefixlen == 0 for network in self._allowed):
            return
        try:
            addresses = set(await addresses_of(host))
        except (socket.gaierror, UnicodeError) as error:
            raise CredentialRefused(f"{host}: {error}") from None
        for address in addresses:
            if not any(address in network for network in self._allowed if network.version == address.version):
                raise CredentialRefused(f"{host} ({address}) is outside the addresses that BERTH_PROBE_ALLOW names")


def _kubernetes_backend(opened: Opened) -> Backend:
    with _kubernetes_extra():
        from backends.k8s.api import Api
        from backends.k8s.backend import KubernetesBackend
        from backends.k8s.storage import VolumeStorage
        from backends.k8s.volume import VolumePod
        from backends.k8s.ways import Ways
    site, access = _kubernetes_site(opened)
    api = Api(access, site.namespace)
    files = None if site.volume is None else VolumeStorage(VolumePod(api, access, site, site.volume))
    ways = Ways(api, site) if site.has_ways else None
    return KubernetesBackend(opened.system, api, sight=_kubernetes_sight(opened), files=files, ways=ways)


def _kubernetes_pod_host(opened: Opened, node_port_networks: Sequence[Network]) -> PodHost:
    with _kubernetes_extra():
        from backends.k8s.api import Api
        from backends.k8s.pods import KubernetesPodHost
        from backends.k8s.ways import Ways
    site, access = _kubernetes_site(opened)
    api = Api(access, site.namespace)
    ways = Ways(api, site, node_port_networks) if site.has_ways else None
    return KubernetesPodHost(api, access, sight=_kubernetes_sight(opened), ways=ways)


def _kubernetes_sight(opened: Opened) -> Sight:
    from backends.k8s.api import Api
    from backends.k8s.sight import Sight

    if opened.sight is None:
        site, access = _kubernetes_site(opened)
        opened.sight = Sight(Api(access, site.namespace))
    return opened.sight


def _kubernetes_storage(opened: Opened) -> Storage:
    with _kubernetes_extra():
        from backends.k8s.api import Api
        from backends.k8s.storage import VolumeStorage
        from backends.k8s.volume import VolumePod
    site, access = _kubernetes_site(opened)
    if site.volume is None:
        words = (
            f"files of system '{opened.system.id}' are reached by its runs alone; notes.berth.k8s.volume names a claim"
        )
        raise BackendUnavailable(words)
    return VolumeStorage(VolumePod(Api(access, site.namespace), access, site, site.volume))


def _kubernetes_site(opened: Opened) -> tuple[Site, Access]:
    if opened.credential is None:
        raise NotAuthorised(f"there is no credential for system '{opened.system.id}'; register one")
    return site_of(opened.system), access_of(opened.system, opened.credential)


@contextmanager
def _kubernetes_extra() -> Iterator[None]:
    """BackendUnavailable where the client of Kubernetes, which is an extra, is not installed."""
    try:
        yield
    except ImportError as error:
        raise BackendUnavailable(f"Kubernetes needs the extra k8s (pip install 'berth-hpc[k8s]'): {error}") from None


def _storage(opened: Opened) -> Storage:
    if opened.system.backend is BackendKind.K8S:
        return _kubernetes_storage(opened)
    if opened.connection is None:
        return LocalStorage(Path(opened.system.root_dir), account_for(opened.system.berth_notes.get("runAs")))
    return SftpStorage(opened.system, opened.connection)


def _pod_host(opened: Opened, node_port_networks: Sequence[Network]) -> PodHost:
    system = opened.system
    if system.backend is BackendKind.K8S:
        return _kubernetes_pod_host(opened, node_port_networks)
    if opened.connection is None or opened.credential is None:
        return LocalPodHost(system)
    if system.backend is BackendKind.SLURM:
        return SlurmPodHost(system, opened.credential.login_user, opened.connection)
    raise BackendUnavailable(f"system '{system.id}' keeps no pods")


def secret_box(settings: Settings) -> SecretBox:
    """What seals secrets: the key of the settings, else the one in home, made at the first start."""
    with _wrong_key_told():
        if settings.secrets_key is not None:
            return SecretBox(parse_key(settings.secrets_key.get_secret_value()))
        return box_at(_key_file(settings))


async def rotate_key(settings: Settings) -> int:
    """Put a new key in the place of the one in home; how many rows were sealed anew.

    SettingsInvalid when the key is not in home, or does not open what is in the store.
    """
    if settings.secrets_key is not None:
        raise SettingsInvalid(
            "BERTH_SECRETS_KEY: only a key in a file can be rotated; write it to secrets.key in BERTH_HOME (mode 0600)"
            " and unset the variable"
        )
    resealed = 0

    async def reseal(box: SecretBox) -> None:
        nonlocal resealed
        opened = database(settings, box)
        try:
            async with opened.transaction() as db:
                resealed = await reseal_everything(db)
        finally:
            await opened.aclose()

    with _wrong_key_told():
        await rotate(_key_file(settings), reseal)
    return resealed


def _key_file(settings: Settings) -> Path:
    return settings.home / "secrets.key"


@contextmanager
def _wrong_key_told() -> Iterator[None]:
    """SettingsInvalid in place of what the secrets' own module raises."""
    try:
        yield
    except ValueError as error:
        raise SettingsInvalid(f"BERTH_SECRETS_KEY: {error}") from None
    except (PermissionError, SecretsUnreadable) as error:
        raise SettingsInvalid(str(error)) from None
    except FileNotFoundError as error:
        raise SettingsInvalid(f"there is no key at {error.filename}; the first start of a server makes one") from None


def database(settings: Settings, box: SecretBox) -> Database:
    """The store that the settings name."""
    return Database(settings.effective_database_url, sealer=box)


def ports(opened: Database, settings: Settings, wake: Callable[[], None], process_id: str) -> Ports:
    """The bundle that services and reconcilers get."""
    connections = SystemConnections(
        opened.reading,
        state_dir=settings.home,
        images_dir=settings.effective_images_dir,
        allowed=settings.probe_allow,
        node_port_networks=settings.node_port_networks,
        refused_pause_s=settings.refused_login_pause_s,
        registries=Registries(settings.registry_mirrors, settings.plain_http_registries),
        own_places=settings.own_places,
    )
    return Ports(
        transaction=opened.transaction,
        reads=opened.reading,
        group=GroupCommit(opened.transaction),
        definitions=Definitions(opened.reading),
        knowledge=Knowledge(opened.reading),
        connections=connections,
        wake=wake,
        process_id=process_id,
        images=images(settings, opened.reading),
        volumes=lambda place: LocalStorage(settings.effective_pod_volumes_dir / place),
        adopt=lambda place, login, path: connections.adopt(settings.effective_pod_volumes_dir / place, login, path),
        own_places=settings.own_places,
    )


def images(settings: Settings, reading: Reading) -> Images:
    """Registries, libraries and files as the operator lets them be read, and looked into as far as he allows."""
    mirrors = {mirror.partition("/")[0] for places in settings.registry_mirrors.values() for mirror in places}
    plain_http = frozenset(settings.plain_http_registries)
    http = httpx.AsyncClient(
        transport=GuardedTransport(settings.input_private_allow, mirrors | plain_http),
        timeout=httpx.Timeout(REGISTRY_TIMEOUT_S, connect=REGISTRY_CONNECT_S),
        follow_redirects=False,
    )
    exchange = Exchange(http, Rules(mirrors=settings.registry_mirrors, plain_http=plain_http))
    logins = docker_config(settings.docker_config) if settings.docker_config else None
    pushes = Pushes(settings.home / "pushed", settings.image_push_limit_mib * 2**20)
    read = personal_images(
        exchange,
        logins,
        settings.image_folders,
        reading,
        http.aclose,
        pushes if settings.image_push_limit_mib else None,
    )
    limit_bytes = settings.image_unpack_limit_mib * 2**20
    if not limit_bytes:
        return read
    limits, turn = Limits(unpacked_bytes=limit_bytes, file_bytes=limit_bytes), asyncio.Semaphore(1)

    def open_at(home: Path) -> Bringer:
        return Bringer(Workshop(home), limits=limits, keeps_bytes=settings.image_cache_limit_mib * 2**20, turn=turn)

    bringers = Bringers(settings.home / "images", open_at, read.reads_alone)
    return replace(read, bringer=bringers.shared, bringers=bringers)


def personal_images(
    exchange: Exchange,
    operators: Logins | None,
    folders: Sequence[Path],
    reading: Reading,
    aclose: Callable[[], Awaitable[None]],
    pushes: Pushes | None = None,
) -> Images:
    """Images for all users over one transport: each with the logins that they have in the store."""

    async def own(tenant: str, user: str) -> Mapping[str, Login]:
        async with reading() as db:
            kept = await RegistryLoginStore(db).of(tenant, user)
        return {each.registry: Login(each.username, each.secret) for each in kept}

    def open_as(logins: Logins) -> Origins:
        return Origins(exchange, logins, folders)

    def pushed(tenant: str, user: str) -> Pushed:
        async def kind_of(digest: str) -> tuple[PushedKind, int] | None:
            async with reading() as db:
                found = await PushedStore(db).find(tenant, user, digest)
            return None if found is None else (found.kind, found.size_bytes)

        assert pushes is not None
        return Pushed(pushes, kind_of)

    public = open_as(no_logins)
    shared = open_as(operators) if operators else public
    personal = Personal(shared, own, operators or no_logins, open_as, pushed if pushes else None)
    return Images(
        shared,
        aclose=aclose,
        public=public,
        sources=personal.of,
        try_login=partial(try_login, exchange),
        pushes=pushes,
        reads_alone=personal.reads_alone,
    )
