"""Logins for registries: from Docker's ``config.json``, from credential helpers, or handed in for a tenant.

No secret is in a repr, an error, a log or an argv: helpers are asked over standard input.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from images.reference import DOCKER_HUB
from scheduler.model.errors import SpecInvalid

HELPER_TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 64 * 1024

HUB_KEY = "https://index.docker.io/v1/"
"""What Docker calls its own registry in ``config.json`` and before helpers."""

_HUB_NAMES = frozenset({"index.docker.io", "registry-1.docker.io", DOCKER_HUB})
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TOKEN_USER = "<token>"  # noqa: S105 - the word by which helpers mark an identity token
_NOT_FOUND = "credentials not found"


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password or access token; or, without a user, an identity token that buys access tokens."""

    username: str
    secret: str = field(repr=False)

    @property
    def is_identity_token(self) -> bool:
        return not self.username

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()


Logins = Callable[[str, str], Awaitable[Login | None]]
"""The login for a registry's host and a repository there; None: go without."""


async def no_logins(host: str, repository: str) -> Login | None:
    """Everybody's view: public images only."""
    return None


def first_of(*sources: Logins) -> Logins:
    """The first login that any of the sources has: a tenant's own before the operator's, for example."""

    async def find(host: str, repository: str) -> Login | None:
        for source in sources:
            if (login := await source(host, repository)) is not None:
                return login
        return None

    return find


def docker_config(path: Path, timeout_s: float = HELPER_TIMEOUT_S) -> Logins:
    """The logins in a Docker or Podman config file, read anew each time it is asked; none when there is no file.

    SpecInvalid names the file when it cannot be understood, or the helper when it fails. Format: ``config.json`` of
    the Docker command (``auths``, ``credHelpers``, ``credsStore``); keys of ``auths`` may name a repository's parents.
    """

    async def find(host: str, repository: str) -> Login | None:
        config = _read(path)
        helper = _helper_for(config, host)
        if helper and (login := await ask_helper(helper, HUB_KEY if host == DOCKER_HUB else host, timeout_s)):
            return login
        return _inline(config, host, repository, path)

    return find


async def ask_helper(helper: str, server: str, timeout_s: float = HELPER_TIMEOUT_S) -> Login | None:
    """What ``docker-credential-<helper> get`` says of a server; None when it knows none.

    It runs without a shell and without Berth's own environment variables; its standard error, which may hold anything,
    is not shown. SpecInvalid says how it failed.
    """
    if not _HELPER.fullmatch(helper):
        raise SpecInvalid.of(
            "credHelpers", f"'{helper[:64]!r}' is not the name of a helper", "write its name, not a path"
        )
    program = f"docker-credential-{helper}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BERTH_")}
    # A file and no pipe: a helper that answers without reading breaks nothing then.
    with os.fdopen(os.memfd_create("stdin"), "w+b") as asked:
        asked.write(server.encode())
        asked.seek(0)
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                "get",
                stdin=asked,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise _failed(program, f"cannot be started ({error.strerror})") from None
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _answer(process)
    except TimeoutError:
        raise _failed(program, f"gave no answer in {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if len(answer) > MAX_ANSWER_BYTES:
        raise _failed(program, f"answered more than {MAX_ANSWER_BYTES} bytes")
    if process.returncode:
        if _NOT_FOUND in answer.decode(errors="replace"):
            return None
        raise _failed(program, f"failed for {server} with exit code {process.returncode}")
    return _helper_login(answer, program)


async def _answer(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    answer = bytearray()
    while len(answer) <= MAX_ANSWER_BYTES and (piece := await process.stdout.read(MAX_ANSWER_BYTES)):
        answer += piece
    if len(answer) <= MAX_ANSWER_BYTES:
        await process.wait()
    return bytes(answer)


def _helper_login(answer: bytes, program: str) -> Login | None:
    try:
        value = json.loads(answer)
        username, secret = value["Username"], value["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        value = username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise _failed(program, "answered something that is not a login")
    if not secret:
        return None
    return Login("" if username == _TOKEN_USER else username, secret)


def _failed(program: str, why: str) -> SpecInvalid:
    return SpecInvalid.of("credHelpers", f"{program} {why}", "run it by hand to see why, or store a login instead")


# -- the file --------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unreadable(path, error.strerror or "it cannot be read") from None
    except (ValueError, RecursionError):
        raise _unreadable(path, "it is not JSON") from None  # without the text, which holds secrets
    if not isinstance(value, dict):
        raise _unreadable(path, "it is not a JSON object")
    return value


def _unreadable(path: Path, why: str) -> SpecInvalid:
    return SpecInvalid.of(str(path), f"is no registry configuration: {why}", "correct it, or log in again")


def _helper_for(config: Mapping[str, Any], host: str) -> str:
    """The helper that keeps a host's login: its own, else the one for all; "" when logins are in the file."""
    helpers = config.get("credHelpers")
    own = {_key(name): helper for name, helper in helpers.items()} if isinstance(helpers, dict) else {}
    return str(own.get(host) or config.get("credsStore") or "")


def _inline(config: Mapping[str, Any], host: str, repository: str, path: Path) -> Login | None:
    """The login that stands in the file: for the repository, the nearest of its parents, or the host."""
    auths = config.get("auths")
    if not isinstance(auths, dict):
        return None
    known = {_key(name): entry for name, entry in auths.items() if isinstance(entry, dict)}
    parts = repository.split("/")
    names = ["/".join([host, *parts[:length]]) for length in range(len(parts), -1, -1)]
    return next((login for name in names if name in known and (login := _login(known[name], path))), None)


def _key(name: str) -> str:
    """A key of ``auths`` as ``host[:port][/parent...]``, without what old clients wrote around it."""
    bare = re.sub(r"^https?://|/v[12]/?$|/$", "", re.sub(r"/$", "", name))
    host, slash, rest = bare.partition("/")
    host = DOCKER_HUB if host.lower() in _HUB_NAMES else host.lower()
    return host + slash + rest


def _login(entry: Mapping[str, Any], path: Path) -> Login | None:
    if token := entry.get("identitytoken"):
        return Login("", str(token))
    if auth := entry.get("auth"):
        try:
            username, colon, secret = base64.b64decode(str(auth), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise _unreadable(path, "an 'auth' in it is not user:password in base64")
        return Login(username, secret.rstrip("\0"))
    if entry.get("username") and entry.get("password"):
        return Login(str(entry["username"]), str(entry["password"]))
    return None
