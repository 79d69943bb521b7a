"""What the owner of a system says of images there is read whole, or each wrong key is named."""

from __future__ import annotations

from typing import Any

import pytest

from images.policy import policy_of
from images.staging import Policy
from images.store import Scope
from scheduler.model.errors import SpecInvalid
from scheduler.model.systems import System


def system(user: str = "${apiUserId}", **berth: Any) -> System:
    return System(
        tenant="t",
        id="s",
        uuid="u",
        owner="o",
        host="h",
        effective_user_id=user,
        notes={"berth": berth} if berth else {},
    )


def policy(user: str = "${apiUserId}", **images: Any) -> Any:
    return policy_of(system(user, images=images))


def fields_of(user: str = "${apiUserId}", **images: Any) -> list[str]:
    with pytest.raises(SpecInvalid) as refusal:
        policy(user, **images)
    return [problem.field for problem in refusal.value.problems]


def test_without_a_word_nothing_is_brought():
    assert policy_of(system()) is None
    assert policy_of(system(allowCopies=True)) is None


def test_a_store_is_enough():
    said = policy(store="/scratch/images")
    assert said.store.root == "/scratch/images"
    assert said.store.scope is Scope.USER
    assert (said.delivery, said.local_dir, said.wait_s) == (Policy.SHARED, "/tmp", 1800)
    assert (said.may_relay, said.may_probe, said.is_strict) == (True, True, False)
    assert str(said.platform) == "linux/amd64"


def test_every_key_is_read():
    said = policy(
        "proj",
        store="/scratch/images",
        scope="project",
        quotaBytes=2**40,
        quotaInodes=1000,
        delivery="auto",
        localDir="/local",
        linkBytesPerS=1.25e8,
        sharedBytesPerS=10**9,
        relay=False,
        waitS=60,
        strict=True,
        probe=False,
        facts={"gpu": {"architecture": "arm64", "kernel": [5, 14]}},
    )
    assert (said.store.scope, said.store.quota_bytes, said.store.quota_inodes) == (Scope.PROJECT, 2**40, 1000)
    assert (said.delivery, said.local_dir) == (Policy.AUTO, "/local")
    assert (said.link_bytes_per_s, said.shared_bytes_per_s) == (1.25e8, 1e9)
    assert (said.may_relay, said.wait_s, said.is_strict, said.may_probe) == (False, 60, True, False)
    assert (said.facts["gpu"].node_class, said.facts["gpu"].kernel) == ("gpu", (5, 14))
    assert str(said.platform) == "linux/arm64"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("store", "scratch"),
        ("store", "/"),
        ("store", "/a/../b"),
        ("store", "/a\nb"),
        ("store", 7),
        ("scope", "all"),
        ("quotaBytes", 0),
        ("quotaBytes", True),
        ("quotaBytes", 1e12),
        ("quotaInodes", "many"),
        ("delivery", "fast"),
        ("localDir", "tmp"),
        ("linkBytesPerS", 0),
        ("sharedBytesPerS", "1 GB"),
        ("relay", "yes"),
        ("waitS", 0),
        ("waitS", 10**9),
        ("strict", 1),
        ("probe", "no"),
        ("facts", []),
        ("facts", {"gpu": 1}),
        ("colour", "red"),
    ],
)
def test_a_wrong_value_is_refused_under_its_key(key, value):
    assert fields_of(**{"store": "/scratch", key: value}) == [f"notes.berth.images.{key}"]


def test_all_that_is_wrong_is_said_at_once():
    assert fields_of(scope="x", waitS=-1) == [
        "notes.berth.images.scope",
        "notes.berth.images.store",
        "notes.berth.images.waitS",
    ]


def test_a_fact_that_nobody_knows_is_refused_under_its_class():
    [field] = fields_of(store="/s", facts={"gpu": {"colour": "red"}})
    assert field == "notes.berth.images.facts.gpu.colour"


def test_what_is_no_object_is_refused():
    with pytest.raises(SpecInvalid, match=r"notes\.berth\.images: is not an object"):
        policy_of(system(images="/scratch"))


def test_a_project_store_wants_one_account():
    assert fields_of(store="/s", scope="project") == ["notes.berth.images.scope"]
    assert policy("proj", store="/s", scope="project").store.scope is Scope.PROJECT
