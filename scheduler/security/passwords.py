"""Passwords: Argon2id, off the event loop. Used as ``passwords.hash(...)`` and ``passwords.verify(...)``."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError

_THREADS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="passwords")
"""Hashing costs 64 MiB and tens of milliseconds of a core by design: a storm of logins must not take them all."""


async def hash(password: str) -> str:
    """An Argon2id hash, with its parameters and salt in it."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _hash, password)


async def verify(password: str, password_hash: str | None) -> bool:
    """Whether the password is the one that was hashed; None (no such user) takes as long as a wrong password."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _matches, password, password_hash)


def _hash(password: str) -> str:
    return _hasher().hash(password.encode("utf-8", "surrogatepass"))


def _matches(password: str, password_hash: str | None) -> bool:
    try:
        same = _hasher().verify(password.encode("utf-8", "surrogatepass"), password_hash or _nobodys())
    except UnknownHashError:
        return False
    return same and bool(password_hash)


@cache
def _hasher() -> PasswordHash:
    return PasswordHash.recommended()


@cache
def _nobodys() -> str:
    """A hash to compare with when there is no user, so that names cannot be told by time."""
    return _hash("nobody has this password")
