"""docs/api.md and docs/pods.md: every example is sent, and what it shows of the answer is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.api.world import World

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = re.compile(r"```http\n(?P<request>.*?)```\s*```json\n(?P<answer>.*?)```", re.DOTALL)


def differences(shown: Any, got: Any, where: str = "answer") -> list[str]:
    """Where the answer is not what the document shows; ``...`` stands for anything."""
    if shown == "...":
        return []
    if isinstance(shown, dict) and isinstance(got, dict):
        missing = [f"{where}.{name} is missing" for name in shown.keys() - got.keys()]
        return missing + [d for n in shown.keys() & got.keys() for d in differences(shown[n], got[n], f"{where}.{n}")]
    if isinstance(shown, list) and isinstance(got, list) and len(shown) <= len(got):
        return [d for at, each in enumerate(shown) for d in differences(each, got[at], f"{where}[{at}]")]
    return [] if shown == got else [f"{where} is {got!r}, shown {shown!r}"]


def filled(text: str, names: dict[str, str]) -> str:
    return re.sub(r"\$([A-Z]+)\b", lambda match: names.get(match[1], match[0]), text)


@pytest.mark.parametrize("document", ["api.md", "pods.md"])
async def test_every_example_does_what_it_shows(world: World, document: str):
    text = (DOCS / document).read_text()
    examples = list(EXAMPLE.finditer(text))
    finished = (await world.submit())["uuid"]
    await world.finish(finished, b"hello\n")
    names = {"FINISHED": finished}
    wrong = []
    for example in examples:
        head, _, body = filled(example["request"], names).partition("\n\n")
        first, *lines = head.strip().splitlines()
        method, path = first.split(" ", 1)
        headers = dict(line.split(": ", 1) for line in lines)
        user = headers.pop("As", "ada")
        response = await world.call(
            method, path, json.loads(body) if body.strip() else None, user=user, headers=headers
        )
        answer = response.json()
        if path == "/v3/jobs/submit" and response.is_success:
            names.setdefault("JOB", answer["result"]["uuid"])
        shown = json.loads(filled(example["answer"], names))
        wrong += [f"{first}: {difference}" for difference in differences(shown, answer)]
    assert not wrong, "\n".join(wrong)
    assert len(examples) == text.count("```http"), "an example shows no answer"
