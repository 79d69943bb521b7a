"""The peer of the submission benchmark: FastAPI that commits two rows and answers, with nothing else in the way."""

from __future__ import annotations

import uuid
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI, Request

from scheduler.store.database import Database


def create(url: str) -> FastAPI:
    """An application whose ``POST /`` inserts a job and its first event in one durable transaction."""
    tables = sa.MetaData()
    jobs = sa.Table("bare_jobs", tables, sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.JSON))
    events = sa.Table(
        "bare_events", tables, sa.Column("id", sa.Integer, primary_key=True), sa.Column("job", sa.Integer)
    )
    database = Database(url)
    app = FastAPI()

    @app.post("/")
    async def submit(request: Request) -> dict[str, Any]:
        body = await request.json()
        async with database.transaction() as db:
            made = await db.execute(jobs.insert().values(body=body))
            key = made.inserted_primary_key
            await db.execute(events.insert().values(job=key[0]))
        return {"uuid": str(uuid.uuid4()), "id": key[0]}

    @app.post("/setup")
    async def setup() -> dict[str, str]:
        async with database.transaction() as db:
            await (await db.connection()).run_sync(tables.create_all)
        return {"status": "ready"}

    return app
