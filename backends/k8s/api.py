"""The one door to a Kubernetes API server: objects as the API's own JSON, errors as Berth's. Alone imports lightkube.

lightkube brings the connection and the plain calls. What it cannot do goes over the same connection settings by hand:
watches with bookmarks, and logs as bytes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx2
import msgspec
from lightkube import ApiError, AsyncClient, SingleConfig
from lightkube.config import client_adapter, models
from lightkube.core.exceptions import ConfigError
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.types import CascadeType, PatchType

from backends.k8s.site import Access
from scheduler.model.errors import BackendUnavailable, NotAuthorised, NothingLearnt, UnexpectedReply

Object = dict[str, Any]

TIMEOUT_S = 20.0
PAGE = 500
"""Objects in one answer to a list; more come by its ``continue`` token."""

JOBS = create_namespaced_resource("batch", "v1", "Job", "jobs")
PODS = create_namespaced_resource("", "v1", "Pod", "pods")
SERVICES = create_namespaced_resource("", "v1", "Service", "services")
ROUTES = create_namespaced_resource("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
INGRESSES = create_namespaced_resource("networking.k8s.io", "v1", "Ingress", "ingresses")
SECRETS = create_namespaced_resource("", "v1", "Secret", "secrets")
EVENTS = create_namespaced_resource("", "v1", "Event", "events")
QUOTAS = create_namespaced_resource("", "v1", "ResourceQuota", "resourcequotas")
POLICIES = create_namespaced_resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
NODES = create_global_resource("", "v1", "Node", "nodes")
REVIEWS = create_global_resource("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")

_PATHS = {JOBS: "/apis/batch/v1/namespaces/{}/jobs", PODS: "/api/v1/namespaces/{}/pods"}
_GONE = 410
_NO_LOG = ("waiting to start", "is terminated", "not available")
_LOST_LOG = b"unable to retrieve container logs for "
"""How a node says that there is nothing to read, not yet or no more; the last in place of the log itself."""


class Refused(NothingLearnt):
    """The API server understood, and said no; nothing was changed. Of the run it says nothing to who only looks."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason

    @property
    def exists(self) -> bool:
        """Whether an object of this name is there already."""
        return self.reason == "AlreadyExists"


class HistoryGone(NothingLearnt):
    """A watch cannot go on from where it was: list again."""


class Listed(NamedTuple):
    """All objects of a kind, and the version from which a watch goes on."""

    items: Sequence[Object]
    version: str


class Event(NamedTuple):
    """One line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK."""

    kind: str
    object: Object


class Api:
    """One API server as one login, in one namespace. All methods raise NothingLearnt: Refused where it said no."""

    def __init__(self, access: Access, namespace: str) -> None:
        config, timeout = _config(access, namespace), httpx2.Timeout(TIMEOUT_S)
        self.namespace = namespace
        with _errors():
            self._client = AsyncClient(config, namespace, timeout=timeout, trust_env=False)
            self._http = client_adapter.AsyncClient(
                config, client_adapter.ConnectionParams(timeout=timeout, trust_env=False)
            )

    async def version(self) -> tuple[str, tuple[int, int]]:
        """``v1.20.2`` and (1, 20)."""
        with _errors():
            said = (await self._http.get("/version")).raise_for_status().json()
        return parse_version(said)

    async def create(self, kind: Any, manifest: Object, *, only_try: bool = False) -> Object:
        """The object as the server keeps it; what it does not know is left out. only_try: nothing is kept."""
        with _errors():
            return dict(await self._client.create(kind(manifest), dry_run=only_try))

    async def get(self, kind: Any, name: str) -> Object | None:
        """None: there is no such object."""
        try:
            with _errors():
                return dict(await self._client.get(kind, name))
        except Refused as refused:
            _raise_unless_missing(refused)
            return None

    async def list(
        self,
        kind: Any,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        everywhere: bool = False,
    ) -> Listed:
        """All objects with these labels and fields. everywhere: of all namespaces."""
        namespace = {"namespace": "*"} if everywhere else {}
        with _errors():
            found = self._client.list(
                kind, labels=dict(labels or {}), fields=dict(fields or {}), chunk_size=PAGE, **namespace
            )
            items = [dict(item) async for item in found]
            return Listed(items, found.resourceVersion)

    async def merge(self, kind: Any, name: str, changes: Object) -> Object | None:
        """Change fields of an object (JSON merge patch); None: there is no such object."""
        try:
            with _errors():
                return dict(await self._client.patch(kind, name, changes, patch_type=PatchType.MERGE))
        except Refused as refused:
            _raise_unless_missing(refused)
            return None

    async def delete(self, kind: Any, name: str, *, foreground: bool = False) -> None:
        """Ask for the end of an object. foreground: it goes when all that belongs to it has gone. Gone is success."""
        cascade = CascadeType.FOREGROUND if foreground else CascadeType.BACKGROUND
        try:
            with _errors():
                await self._client.delete(kind, name, cascade=cascade)
        except Refused as refused:
            _raise_unless_missing(refused)

    async def watch(self, kind: Any, labels: str, version: str, timeout_s: int) -> AsyncIterator[Event]:
        """What happens after ``version``; ends after ``timeout_s``. HistoryGone when that is too long ago."""
        params: dict[str, Any] = {"watch": "true", "allowWatchBookmarks": "true", "labelSelector": labels}
        params |= {"resourceVersion": version, "timeoutSeconds": timeout_s}
        # Bookmarks come about once a minute, so silence for much longer than that is a dead connection.
        timeout = httpx2.Timeout(TIMEOUT_S, read=timeout_s + TIMEOUT_S)
        with _errors():
            async with self._http.stream("GET", self._path(kind), params=params, timeout=timeout) as answer:
                if answer.is_error:
                    await answer.aread()
                    _raise_for(answer)
                async for line in answer.aiter_lines():
                    yield parse_event(line)

    async def log(self, pod: str, container: str, limit_bytes: int) -> bytes:
        """The first bytes of what a container wrote, both of its streams together; empty where the node has none."""
        params = {"container": container, "limitBytes": str(limit_bytes)}
        try:
            with _errors():
                answer = await self._http.get(f"{self._path(PODS)}/{pod}/log", params=params)
                _raise_for(answer)
                return b"" if answer.content.startswith(_LOST_LOG) else answer.content
        except Refused as refused:
            if not _is_no_log(refused):
                raise
            return b""

    async def whole_log(self, pod: str, container: str) -> AsyncIterator[bytes]:
        """Everything that the node still has of what a container wrote, in pieces."""
        params = {"container": container}
        try:
            with _errors():
                async with self._http.stream("GET", f"{self._path(PODS)}/{pod}/log", params=params) as answer:
                    if answer.is_error:
                        await answer.aread()
                        _raise_for(answer)
                    async for piece in answer.aiter_bytes():
                        if piece.startswith(_LOST_LOG):
                            return
                        yield piece
        except Refused as refused:
            if not _is_no_log(refused):
                raise

    async def aclose(self) -> None:
        await self._client.aclose()
        await self._http.aclose()

    def _path(self, kind: Any) -> str:
        return _PATHS[kind].format(self.namespace)


# -- what a server says --------------------------------------------------------------------------------------------


def parse_version(said: Object) -> tuple[str, tuple[int, int]]:
    """The answer of ``/version``; some vendors write the minor as ``28+``."""
    found = re.match(r"v?(\d+)\.(\d+)", str(said.get("gitVersion", "")))
    if found is None:
        raise UnexpectedReply("the API server's version was not understood", json.dumps(said))
    return str(said["gitVersion"]), (int(found[1]), int(found[2]))


def parse_event(line: str) -> Event:
    """One line of a watch. HistoryGone, or what else the server says in place of an event."""
    try:
        said = json.loads(line)
        kind, about = said["type"], said["object"]
    except (ValueError, KeyError, TypeError):
        raise UnexpectedReply("a line of a watch was not understood", line) from None
    if kind != "ERROR":
        return Event(kind, about)
    if about.get("code") == _GONE:
        raise HistoryGone(str(about.get("message", "")))
    raise BackendUnavailable(f"the watch was ended: {about.get('message', '')}")


def error_of(code: int, reason: str, message: str) -> Exception:
    """What an answer that is no success means to the caller."""
    if code == _GONE:
        return HistoryGone(message)
    if code == httpx2.codes.UNAUTHORIZED:
        return NotAuthorised(f"the API server does not know this login: {message}")
    if code == httpx2.codes.FORBIDDEN and "cannot " in message:  # by RBAC; a quota or an admission rule forbids too
        return NotAuthorised(f"the API server does not allow this: {message}")
    if code == httpx2.codes.TOO_MANY_REQUESTS or code >= httpx2.codes.INTERNAL_SERVER_ERROR:
        return BackendUnavailable(f"the API server answers {code}: {message}")
    return Refused(code, reason, message)


async def ensured(api: Api, kind: Any, manifest: Object) -> Object:
    """Create an object, or take the one of this name that is there."""
    try:
        return await api.create(kind, manifest)
    except Refused as refused:
        if not refused.exists:
            raise
    there = await api.get(kind, manifest["metadata"]["name"])
    if there is None:
        raise BackendUnavailable(f"{manifest['kind']} {manifest['metadata']['name']} comes and goes")
    return there


@contextmanager
def _errors() -> Iterator[None]:
    """No exception of a library leaves: each becomes what the caller may do next."""
    try:
        yield
    except ApiError as error:
        raise error_of(error.status.code or 0, error.status.reason or "", error.status.message or "") from None
    except httpx2.HTTPStatusError as error:
        raise error_of(error.response.status_code, "", error.response.text[:500]) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise BackendUnavailable(f"the API server does not answer: {str(error) or type(error).__name__}") from None
    except (msgspec.DecodeError, msgspec.ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UnexpectedReply("the API server's answer was not understood", str(error)) from None
    except ConfigError as error:
        raise NotAuthorised(str(error)) from None


def _raise_for(answer: httpx2.Response) -> None:
    if not answer.is_error:
        return
    try:
        said = answer.json()
    except ValueError:
        said = {"message": answer.text[:500]}
    raise error_of(answer.status_code, str(said.get("reason", "")), str(said.get("message", "")))


def _is_no_log(refused: Refused) -> bool:
    if refused.code == httpx2.codes.BAD_REQUEST:
        return any(word in str(refused) for word in _NO_LOG)
    return refused.code == httpx2.codes.NOT_FOUND


def _raise_unless_missing(refused: Refused) -> None:
    if refused.code != httpx2.codes.NOT_FOUND:
        raise refused


def _config(access: Access, namespace: str) -> SingleConfig:
    ca = None if access.ca is None else base64.b64encode(access.ca.encode()).decode()
    return SingleConfig(
        context_name="berth",
        context=models.Context(cluster="berth", user="berth", namespace=namespace),
        cluster=models.Cluster(server=access.server, certificate_auth_data=ca),
        user=models.User(token=access.token),
    )
