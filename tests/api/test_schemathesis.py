"""Whatever the OpenAPI document allows (and what it forbids) is answered without a 5xx."""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
from pathlib import Path

import pytest

from tests.api.test_tapipy import served
from tests.api.world import World

LONG_S = 300


async def attack(world: World, tmp_path: Path, *, known: bool, seconds: int, examples: int, seed: int) -> None:
    """One run of schemathesis against the served world; its seed is printed, so that it can be repeated.

    known: address things that exist, so that bodies and queries reach beyond "not found".
    """
    print(f"schemathesis --seed {seed}")
    job_uuid = (await world.submit())["uuid"]
    await world.finish(job_uuid, b"hello\n")
    there = {"systemId": "alder", "appId": "hello", "appVersion": "0.1", "userName": "ada", "jobUuid": job_uuid}
    lines = [f'"path.{name}" = "{value}"' for name, value in there.items()] if known else []
    (tmp_path / "schemathesis.toml").write_text("\n".join(["[parameters]", *lines, ""]))
    async with served(world) as base_url:
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{base_url}/v3/openapi.json",
            "--checks=not_a_server_error",
            "--phases=examples,coverage,fuzzing",
            "--suppress-health-check=all",
            "--continue-on-failure",
            f"--max-time={seconds}",
            f"--max-examples={examples}",
            f"--seed={seed}",
            f"--header=X-Tapis-Token: {world.token('admin')}",
            "--request-timeout=20",
            "--no-color",
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), seconds * 3 + 120)
        finally:
            if process.returncode is None:
                process.kill()
    text = output.decode()
    failures = text[max(0, text.find("= FAILURES =")) :]
    assert process.returncode == 0, failures[:4000] + text[-2000:]
    selected = re.search(r"Selected: (\d+)/\1\s+Tested: \1\b", text)
    assert selected, f"not every operation was tried:\n{text[-2000:]}"


@pytest.mark.parametrize("known", [False, True], ids=["strange names", "known names"])
async def test_no_request_of_the_document_meets_a_server_error(world: World, tmp_path: Path, known: bool):
    await attack(world, tmp_path, known=known, seconds=90, examples=4, seed=int(os.environ.get("SEED", "20260301")))


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True], ids=["strange names", "known names"])
async def test_no_request_of_the_document_meets_a_server_error_for_long(world: World, tmp_path: Path, known: bool):
    seed = int(os.environ.get("SEED", random.randrange(2**31)))
    await attack(world, tmp_path, known=known, seconds=LONG_S, examples=500, seed=seed)
