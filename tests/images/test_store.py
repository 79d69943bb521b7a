"""Where stores are, who may enter them, and what their answers mean."""

from __future__ import annotations

import io
import json

import pytest

from images.programs.store import VERBS, answer
from images.store import ChunkDamaged, Scope, StoreFull, StorePolicy, StoreRefused, parse_answer, program
from scheduler.model.errors import SpecInvalid, UnexpectedReply
from tests.images.stores import image


def ask(line, body=b""):
    return parse_answer(json.dumps(answer(json.loads(line), io.BytesIO(body))).encode())


def test_each_owner_has_a_store_that_others_cannot_enter():
    users = StorePolicy("/scratch/berth")
    assert users.of("ada").path == "/scratch/berth/user-ada"
    assert json.loads(users.of("ada").request("stats"))["mode"] == 0o700
    assert json.loads(StorePolicy("/s", Scope.PROJECT).of("p1").request("stats"))["mode"] == 0o750


@pytest.mark.parametrize("owner", ["", "..", "a/b", "-x", "a\n", "x" * 65])
def test_an_owner_s_name_cannot_lead_elsewhere(owner):
    with pytest.raises(SpecInvalid, match="owner"):
        StorePolicy("/scratch/berth").of(owner)


@pytest.mark.parametrize(
    "changes", [{"root": "x"}, {"root": "/"}, {"root": "/a/../b"}, {"root": "/a", "low_share": 0.9}]
)
def test_a_policy_that_cannot_be_meant_names_its_field(changes):
    with pytest.raises(SpecInvalid, match="store"):
        StorePolicy(**changes)


def test_requests_and_answers_fit_the_program(tmp_path):
    new, store = image(1), StorePolicy(str(tmp_path / "s"), quota_bytes=len(image(1).content) * 2).of("ada")
    which = {"digest": new.digest, "chunks": new.chunks}
    missing = ask(store.request("begin", **which, quota=store.quota))["missing"]
    damaged = store.request("fill", **which, numbers=missing)
    with pytest.raises(ChunkDamaged, match="send it again"):
        ask(damaged, b"x" * len(new.content))
    ask(damaged, new.stream(missing).read())
    assert ask(store.request("finish", **which))["have"]
    with pytest.raises(StoreFull, match="quota"):
        ask(store.request("begin", digest=image(2, 3).digest, chunks=image(2, 3).chunks, quota=store.quota))
    assert ask(store.collect(["job"]))["trashed"] == []
    assert ask(store.collect(None))["bytes"] > 0


def test_an_answer_that_is_none_is_reported_with_its_text():
    for raw in (b"bash: python3: not found", b"[]", b""):
        with pytest.raises(UnexpectedReply) as found:
            parse_answer(raw)
        assert found.value.raw == raw.decode()
    with pytest.raises(StoreRefused, match="must be a directory"):
        parse_answer(b'{"error": "unsafe", "why": "/x must be a directory of this login"}')


def test_the_program_is_sent_as_it_is():
    assert all(f"def {verb}(".encode() in program() for verb in VERBS)
