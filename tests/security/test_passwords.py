"""Passwords are kept as Argon2id hashes and compared off the event loop."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.security import passwords


@pytest.mark.parametrize("password", ["correct horse", "", "пароль \0 \ud800", "x" * 10_000])
async def test_a_password_matches_its_own_hash_only(password):
    hashed = await passwords.hash(password)
    assert hashed.startswith("$argon2id$")
    assert await passwords.verify(password, hashed)
    assert not await passwords.verify(password + "x", hashed)


@pytest.mark.parametrize("stored", [None, "", "plain", "$argon2id$broken"])
async def test_nobody_logs_in_without_a_real_hash(stored):
    assert not await passwords.verify("", stored)
    assert not await passwords.verify("nobody has this password", stored)


async def test_hashing_leaves_the_event_loop_free():
    hashing = asyncio.create_task(passwords.hash("slow"))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
