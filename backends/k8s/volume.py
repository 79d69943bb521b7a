"""The pod through which a volume's files are reached: one for each namespace and volume, made when it is needed.

It is named for what it is made of, so every process finds the same one. It ends by itself when nobody has used it for
some minutes, so that a volume that only one node can have is free for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.k8s.api import PODS, Api, Object, Refused
from backends.k8s.exec import Command, command, executed, open_session
from backends.k8s.objects import MAIN, MANAGED, PREFIX, bare_pod, literal
from backends.k8s.site import Access, Site
from backends.k8s.spdy import Session, Stream
from backends.k8s.states import WAITING, pod_is_over, pod_waits_for
from scheduler.model.errors import BackendUnavailable, UnexpectedReply

FILES = PREFIX + "files"
"""Label of such pods; its value is the claim."""

VOLUME, HOME = "/volume", "/berth"
"""Where the pod has the volume, and a directory of its own."""

START_S, LOOK_S = 60.0, 0.1
"""How long a caller waits for the pod, which goes on starting after that; and how often it looks."""

AT_ONCE = 8
"""So many short commands run in the pod at the same time; more wait. Streams do not: one may feed another."""

PIECE_BYTES = 1024 * 1024
"""What is given to a command travels in pieces of at least so much, but for the last."""

_KEEP = """
idle=0
while [ "$idle" -lt 18 ]; do
    sleep 10
    set -- /proc/[0-9]*
    if [ "$#" -gt 1 ] || [ -e "$BERTH_HOME/used" ]; then
        rm -f "$BERTH_HOME/used"
        idle=0
    else
        idle=$((idle + 1))
    fi
done
"""
"""What the pod runs: it ends when for three minutes no command has run in it."""

_IS_NO_START = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    exit_status: int
    stdout: bytes
    stderr: bytes


def volume_pod(site: Site, claim: str) -> Object:
    """The pod's manifest; its name says what is in it."""
    program = Path(__file__).with_name("programs").joinpath("files.sh").read_text()
    texts = {"BERTH_FILES": literal(program), "BERTH_VOLUME": VOLUME, "BERTH_HOME": HOME}
    main = {
        "name": MAIN,
        "image": site.helper_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", literal(_KEEP)],
        "workingDir": HOME,
        "env": [{"name": name, "value": value} for name, value in texts.items()],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}},
        "volumeMounts": [{"name": "files", "mountPath": VOLUME}, {"name": "home", "mountPath": HOME}],
    }
    volumes = [
        {"name": "files", "persistentVolumeClaim": {"claimName": claim}},
        {"name": "home", "emptyDir": {}},
    ]
    spec = {**bare_pod(site, main, volumes), "terminationGracePeriodSeconds": 1}
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    about = {"name": f"berth-files-{digest}", "labels": {**MANAGED, FILES: claim}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}


def asking(operation: str, *words: str) -> list[str]:
    """The command that does an operation of the pod's program."""
    return ["sh", "-c", 'eval "$BERTH_FILES"', "sh", operation, *words]


def a_name() -> str:
    """Of a file that nobody else makes."""
    return f".berth-{secrets.token_hex(8)}"


async def give(to: Stream, chunks: AsyncIterator[bytes], enough: Callable[[], bool] = lambda: False) -> int:
    """Write chunks as the pod's program reads them, with their sum after the last; how many bytes that were.

    The sender's errors pass. enough: whether the program wants no more, for which it would only take the trouble.
    """
    held, size = bytearray(), 0
    with contextlib.suppress(_CommandGone):
        async for chunk in chunks:
            held += chunk
            size += len(chunk)
            if len(held) >= PIECE_BYTES:
                await _give_piece(to, held)
                held.clear()
            if enough():
                break
        if held:
            await _give_piece(to, held)
        await _write(to, b"end %d\n" % size)
    return size


class VolumePod:
    """Commands beside the files of a volume. They raise NothingLearnt; then a retry finds the pod, or makes it."""

    def __init__(self, api: Api, access: Access, site: Site, claim: str) -> None:
        self._api, self._access = api, access
        self._manifest = volume_pod(site, claim)
        self._name: str = self._manifest["metadata"]["name"]
        self._claim, self._is_up = claim, False
        self._making, self._turns = asyncio.Lock(), asyncio.Semaphore(AT_ONCE)

    async def do(self, operation: str, *words: str, timeout_s: float) -> Done:
        """One operation of the pod's program (``files.sh``), which reads nothing."""
        return await self._executed(asking(operation, *words), Stream.end, timeout_s)

    async def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Done:
        """A command with all that it is given and writes, of at most REMOTE_OUTPUT_BYTES."""

        async def give_all(to: Stream) -> None:
            await give(to, _once(stdin))

        return await self._executed(asking("run", a_name(), *argv), give_all, timeout_s)

    @contextlib.asynccontextmanager
    async def command(self, argv: Sequence[str]) -> AsyncIterator[Command]:
        """A command whose streams the caller reads and writes; ConnectionError becomes BackendUnavailable here."""
        with self._errors():
            async with command(await self._session(argv)) as running:
                yield running

    async def aclose(self) -> None:
        """The pod stays for whoever else uses it, and ends by itself."""
        await self._api.aclose()

    # -- pieces ------------------------------------------------------------------------------------------------------

    async def _executed(
        self, argv: Sequence[str], give_all: Callable[[Stream], Awaitable[None]], timeout_s: float
    ) -> Done:
        with self._errors():
            async with self._turns:
                done = await executed(await self._session(argv), give_all, timeout_s)
        return Done(done.exit_code, done.stdout, done.stderr)

    async def _session(self, argv: Sequence[str]) -> Session:
        if self._is_up:
            try:
                return await open_session(self._access, self._api.namespace, self._name, argv)
            except (Refused, BackendUnavailable):
                self._is_up = False  # nothing was begun: the pod may have ended
        await self._ensure()
        return await open_session(self._access, self._api.namespace, self._name, argv)

    async def _ensure(self) -> None:
        """Return when the pod runs."""
        async with self._making:
            if self._is_up:
                return
            said = [""]
            try:
                async with asyncio.timeout(START_S):
                    while not await self._runs(said):  # noqa: ASYNC110 - what happens, happens on the cluster
                        await asyncio.sleep(LOOK_S)
            except TimeoutError:
                raise self._not_there(said[0]) from None
            self._is_up = True

    async def _runs(self, said: list[str]) -> bool:
        """Whether it runs now; whatever keeps it from that is begun to be mended. said: what it waits for."""
        pod = await self._api.get(PODS, self._name)
        if pod is None:
            await self._make()
            return False
        if FILES not in pod["metadata"].get("labels", {}):
            raise UnexpectedReply(f"a pod {self._name} is there that is not Berth's", json.dumps(pod["metadata"]))
        if "deletionTimestamp" in pod["metadata"]:
            return False
        if pod_is_over(pod):
            await self._api.delete(PODS, self._name)
            return False
        containers = pod.get("status", {}).get("containerStatuses", [])
        if any("running" in each.get("state", {}) for each in containers):
            return True
        reason, words = pod_waits_for(pod)
        known = WAITING.get(reason)
        said[0] = ": ".join(filter(None, (known.words if known else reason, words)))
        if reason in _IS_NO_START:
            raise self._not_there(said[0])
        return False

    async def _make(self) -> None:
        try:
            await self._api.create(PODS, self._manifest)
        except Refused as refused:
            if not refused.exists:
                raise self._not_there(str(refused)) from None

    def _not_there(self, why: str) -> BackendUnavailable:
        return BackendUnavailable(
            f"the pod through which files of volume {self._claim} are reached does not run: {why}"
        )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except ConnectionError as error:
            self._is_up = False
            raise BackendUnavailable(f"files of volume {self._claim}: {error}") from None
        except Refused as refused:
            self._is_up = False
            raise BackendUnavailable(f"files of volume {self._claim}: {refused}") from None


class _CommandGone(Exception):
    """Nobody reads any more; how the command ended says why."""


async def _give_piece(to: Stream, piece: bytearray) -> None:
    await _write(to, b"%d\n" % len(piece))
    await _write(to, bytes(piece))


async def _write(to: Stream, content: bytes) -> None:
    try:
        await to.write(content)
    except ConnectionError as error:
        raise _CommandGone from error


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
