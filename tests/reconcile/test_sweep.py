"""What nobody can ask for any more is forgotten; what somebody may still send stays."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

from scheduler.model.users import RefreshGrant
from scheduler.reconcile.loop import Bell
from scheduler.reconcile.reconciler import Reconciler
from scheduler.reconcile.sweep import Sweep
from scheduler.settings import Settings
from scheduler.store.keys import RefreshStore
from scheduler.store.requests import IdempotencyStore
from tests.contract.subjects import eventually
from tests.reconcile.world import START, World


async def test_answers_are_kept_for_a_day_and_refresh_tokens_until_they_expire(world: World):
    sweep = Sweep(world.ports())
    async with world.database.transaction() as db:
        for hour in (0, 1):
            await IdempotencyStore(db).put("dev", "ann", "POST /", str(hour), "hash", {}, START + timedelta(hours=hour))
        for days in (1, 2):
            await RefreshStore(db).add(grant(expires_at=START + timedelta(days=days)))

    async def known() -> list[bool]:
        async with world.database.transaction() as db:
            answers = [await IdempotencyStore(db).get("dev", "ann", "POST /", key) for key in ("0", "1")]
        return [answer is not None for answer in answers]

    await sweep.tick()
    assert await known() == [True, True]
    world.later(24 * 3600 + 1)
    await sweep.tick()
    assert await known() == [False, True]
    async with world.database.transaction() as db:
        assert await RefreshStore(db).sweep(START + timedelta(days=9)) == 1, "one token was left to sweep"


def grant(expires_at: datetime) -> RefreshGrant:
    return RefreshGrant(
        jti=str(expires_at),
        family="family",
        tenant="dev",
        username="ann",
        count=1,
        issued_at=START,
        expires_at=expires_at,
    )


async def test_a_running_process_sweeps(world: World, tmp_path: Path):
    async with world.database.transaction() as db:
        await IdempotencyStore(db).put("dev", "ann", "POST /", "old", "hash", {}, START - timedelta(days=2))
    stop = asyncio.Event()
    running = asyncio.create_task(Reconciler(world.ports(), Settings(home=tmp_path), Bell()).run(stop))

    async def swept() -> bool:
        async with world.database.transaction() as db:
            return await IdempotencyStore(db).get("dev", "ann", "POST /", "old") is None

    try:
        await eventually(swept, "the old answer is gone")
    finally:
        stop.set()
        await running


def test_all_that_runs_beside_a_loop_ends_with_the_process(world: World, tmp_path: Path):
    reconciler = Reconciler(world.ports(), Settings(home=tmp_path), Bell())
    beside = {name for name, loop in vars(reconciler).items() if getattr(loop, "crew", None) is not None}
    ended = {name for name in beside if getattr(reconciler, name).crew in reconciler.crews}
    assert ended == beside >= {"deliver", "copies", "submit"}
