"""The one reader of the environment and of ``berth.toml``: built once at start, frozen, and handed down in pieces."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AnyHttpUrl, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from scheduler.model.errors import BerthError

Network = IPv4Network | IPv6Network
Networks = Annotated[tuple[Network, ...], NoDecode]
Names = Annotated[tuple[str, ...], NoDecode]
Seconds = Annotated[float, Field(gt=0)]
Server = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$")]
DOMAIN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"
Mirror = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$")]


class SettingsInvalid(BerthError):
    """A setting cannot be meant; the text names the variable and the fix."""


def default_home() -> Path:
    """Where Berth keeps its state: BERTH_HOME, else /var/lib/berth as root, else the user's XDG data directory."""
    if named := os.environ.get("BERTH_HOME"):
        return Path(named).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/berth")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share").absolute() / "berth"


class Settings(BaseSettings):
    """Everything an operator can set: ``BERTH_<NAME>`` in the environment wins over ``<name>`` in berth.toml.

    Durations are seconds. Lists are comma-separated in the environment.
    """

    model_config = SettingsConfigDict(env_prefix="BERTH_", frozen=True, extra="forbid", env_ignore_empty=True)

    home: Path = Field(default_factory=default_home, validate_default=True)
    database_url: str = ""
    """``sqlite+aiosqlite:///...`` or ``postgresql+psycopg://...``; a SQLite file in ``home`` when not said."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65535)
    public_url: AnyHttpUrl | None = None
    """How users reach Berth; ``http://host:port`` when not said."""
    gateway_port: int = Field(default=8443, ge=0, le=65535)
    """Where pods are reached, with TLS; 0: nowhere."""
    gateway_host: str = ""
    """Where the gateway listens; at ``host`` when not said."""
    gateway_proxy: Literal["auto", "embedded", "haproxy"] = "auto"
    """What carries the traffic of pods: HAProxy where it is installed (``auto``), always, or never."""
    gateway_retries: int = Field(default=1, ge=0, le=3)
    """How often HAProxy sends a request without a body again where a pod closed the connection instead of an answer."""
    gateway_certificate: Path | None = None
    """A certificate for ``*.<pods domain>`` and those that signed it; from a CA of Berth's own when not said."""
    gateway_key: Path | None = None
    pods_domain: str = Field(default="pods.localhost", max_length=180, pattern=DOMAIN)
    """Pods have their names below it; for a tenant with a host name of its own, below ``pods.`` and that."""
    trusted_proxies: Names = ()
    cors_origins: Names = ()
    tenant: str = Field(default="berth", pattern=r"[a-z][a-z0-9_-]{0,23}")
    """The tenant made at the first start."""
    site: str = Field(default="berth", pattern=r"[a-z][a-z0-9_-]{0,23}")
    admin_user: str = Field(default="admin", pattern=r"[a-z][a-z0-9_.-]{0,59}")

    admin_password: SecretStr | None = None
    """The administrator's password at the first start; a random one, printed once, when not said."""

    secrets_key: SecretStr | None = None
    """32 bytes in base64 that wrap every secret; ``secrets.key`` in ``home`` when not said."""
    access_token_s: int = Field(default=4 * 3600, ge=60)
    refresh_token_s: int = Field(default=30 * 86400, ge=300)

    place_interval_s: Seconds = 5.0
    advance_interval_s: Seconds = 1.0
    watch_min_s: Seconds = 2.0
    watch_max_s: Seconds = 10.0
    snapshot_interval_s: Seconds = 30.0
    """Between two looks at a system for which jobs wait; ten times as long while none do."""
    solve_limit_s: Seconds = 5.0
    submissions_per_job: float = Field(default=1.3, ge=1, le=10)
    """How often a job is submitted in the mean of a week, moves included; 1 moves none."""

    lost_after_s: Seconds = 600.0
    """How long answering queries must miss a remote job before it counts as lost."""
    lease_s: Seconds = 60.0
    refused_login_pause_s: Seconds = 30.0
    """Between two logins that a system refuses: sites lock accounts that knock too often."""
    submit_settle_s: float = Field(default=0.02, ge=0, le=1)
    """How long jobs that became ready together are collected into one remote call."""
    submit_batch: int = Field(default=200, ge=1, le=1000)
    jobs_in_hand: int = Field(default=200, ge=1, le=1000)
    """Jobs whose steps run at the same time in one process."""

    probe_allow: Networks = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    """Addresses that ``systems probe`` and credentials may reach."""
    node_port_networks: Networks = ()
    """Where nodes of Kubernetes may be by whose node ports pods are reached; elsewhere, through the API server."""
    input_private_allow: Networks = ()
    """Private and loopback addresses from which http(s) inputs may be fetched; public ones always may."""
    input_limit_mib: int = Field(default=100 * 1024, ge=1)

    images_dir: Path | None = None
    """Where ``local`` systems unpack images: readable by the account that runs jobs, so not in root's ``home``."""

    registry_mirrors: Annotated[dict[Server, tuple[Mirror, ...]], NoDecode] = Field(default_factory=dict)
    """Registry -> places to ask before it, each ``host[:port][/prefix]``; a table, or JSON in the environment."""
    plain_http_registries: Annotated[tuple[Server, ...], NoDecode] = ()
    """``host[:port]`` of registries that are asked without TLS: whoever is in between can change what they answer."""
    docker_config: Path | None = None
    """A Docker or Podman ``config.json`` whose logins for registries serve all tenants."""
    image_folders: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders of this host from which users may name images as ``oci:`` or archives; none when not said."""
    image_unpack_limit_mib: int = Field(default=65_536, ge=0)
    """How large an image may be, unpacked, that is looked into and converted on this host; 0: none is."""
    image_cache_limit_mib: int = Field(default=20_480, ge=0)
    """How much of images stays on this host for those that share layers with them; 0: as little as can be."""

    image_push_limit_mib: int = Field(default=0, ge=0)
    """How much each user may push to this server in images; 0 lets nobody."""

    default_pod_template: str = Field(default="", pattern=r"^([a-z][a-z0-9._:@-]{1,200})?$")
    """The template of pods that name neither a template nor an image; empty: they are refused."""
    pod_volumes_dir: Path | None = None
    """Where the files of volumes and snapshots of pods lie; ``pod-volumes`` in ``home`` when not said."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        home = init_settings().get("home") or default_home()
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(home) / "berth.toml")

    @field_validator("trusted_proxies", "cors_origins", "plain_http_registries", "image_folders", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("registry_mirrors", mode="before")
    @classmethod
    def _table(cls, value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError('write {"docker.io": ["mirror.example.org/prefix"]}') from None

    @field_validator("probe_allow", "node_port_networks", "input_private_allow", mode="before")
    @classmethod
    def _networks(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(ip_network(part.strip()) if isinstance(part, str) else part for part in parts if part)

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite+aiosqlite:///", "postgresql+psycopg://")):
            raise ValueError("write sqlite+aiosqlite:///<path> or postgresql+psycopg://<user>@<host>/<database>")
        return value

    @model_validator(mode="after")
    def _watch_bounds(self) -> Self:
        if self.watch_max_s < self.watch_min_s:
            raise ValueError("watch_max_s must not be below watch_min_s")
        return self

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.gateway_certificate is None) != (self.gateway_key is None):
            raise ValueError("gateway_certificate and gateway_key belong together; set both or neither")
        return self

    @property
    def is_sqlite(self) -> bool:
        return self.effective_database_url.startswith("sqlite")

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.home / 'berth.sqlite'}"

    @property
    def effective_images_dir(self) -> Path:
        shared = Path("/var/cache/berth/images") if os.geteuid() == 0 else self.home / "images"
        return self.images_dir or shared

    @property
    def effective_pod_volumes_dir(self) -> Path:
        return self.pod_volumes_dir or self.home / "pod-volumes"

    @property
    def own_places(self) -> tuple[Path, ...]:
        """Files and directories of this machine that are for Berth alone, or for its operator."""
        named = (self.gateway_key, self.docker_config, self._database_file)
        return (self.home, self.effective_pod_volumes_dir, *(path for path in named if path is not None))

    @property
    def _database_file(self) -> Path | None:
        return Path(self.effective_database_url.partition("///")[2].partition("?")[0]) if self.is_sqlite else None

    @property
    def base_url(self) -> str:
        """How users reach Berth, without a slash at the end."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return str(self.public_url or f"http://{shown}:{self.port}").rstrip("/")


def load(**overrides: Any) -> Settings:
    """The settings of this process; SettingsInvalid names each wrong variable. ``overrides`` come from the command."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsInvalid("\n".join(_in_words(problem) for problem in error.errors())) from None


def _in_words(problem: Any) -> str:
    name = ".".join(map(str, problem["loc"])) or "settings"
    if problem["type"] == "extra_forbidden":
        return f"{name} in berth.toml: no such setting"
    shown = "" if "key" in name else f" (it is {str(problem['input'])[:80]!r})"
    return f"BERTH_{name.upper()}: {problem['msg'].removeprefix('Value error, ')}{shown}"
