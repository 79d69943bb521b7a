"""A sealed secret opens with its key in its place, and nowhere else."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.security.secrets import (
    SecretBox,
    SecretsUnreadable,
    load_or_create_key,
    new_key,
    parse_key,
    read_key,
    write_key,
)

OLD, NEW = bytes(32), bytes(range(32))


@given(secret=st.text(), context=st.text())
def test_what_was_sealed_opens_as_it_was(secret, context):
    box = SecretBox(NEW)
    assert box.decrypt(box.encrypt(secret, context), context) == secret


def test_the_same_secret_is_never_sealed_twice_alike():
    box = SecretBox(NEW)
    assert box.encrypt("s", "c") != box.encrypt("s", "c")


@pytest.mark.parametrize(
    ("sealed", "context", "message"),
    [
        (SecretBox(NEW).encrypt("s", "here"), "there", "moved from another row"),
        (SecretBox(OLD).encrypt("s", "here"), "here", "not the key given"),
        (SecretBox(NEW).encrypt("s", "here")[:-4] + "AAAA", "here", "damaged"),
        (SecretBox(NEW).encrypt("s", "here").rpartition(".")[0] + ".????", "here", "damaged"),
        (SecretBox(NEW).encrypt("s", "here").rpartition(".")[0] + ".", "here", "damaged"),
        ("b9.x.y", "here", "unknown form"),
        ("", "here", "unknown form"),
    ],
    ids=["moved", "other-key", "damaged", "not-base64", "cut", "other-version", "empty"],  # seals differ in each run
)
def test_a_secret_that_does_not_open_says_what_to_check(sealed, context, message):
    with pytest.raises(SecretsUnreadable, match=message):
        SecretBox(NEW).decrypt(sealed, context)


def test_a_retired_key_still_opens_but_seals_no_more():
    sealed = SecretBox(OLD).encrypt("s", "c")
    box = SecretBox(NEW, retired=[OLD])
    assert box.decrypt(sealed, "c") == "s"
    assert not box.is_current(sealed)
    assert box.is_current(box.encrypt("s", "c"))
    assert SecretBox(NEW).decrypt(box.encrypt("s", "c"), "c") == "s"


@pytest.mark.parametrize("key", [b"", b"short", bytes(33)])
def test_a_key_of_another_size_is_refused(key):
    with pytest.raises(ValueError, match="32 bytes"):
        SecretBox(key)


def test_a_key_file_is_made_once_and_for_its_owner_only(tmp_path):
    path = tmp_path / "home" / "secrets.key"
    previous = os.umask(0)
    try:
        key = load_or_create_key(path)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_key(path) == key
    assert [entry.name for entry in path.parent.iterdir()] == ["secrets.key"]


def test_a_key_file_is_never_overwritten(tmp_path):
    path = tmp_path / "secrets.key"
    write_key(path, NEW)
    with pytest.raises(FileExistsError):
        write_key(path, OLD)
    assert read_key(path) == NEW
    assert [entry.name for entry in tmp_path.iterdir()] == ["secrets.key"]


def test_a_key_file_that_others_may_read_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "secrets.key"
    write_key(path, NEW)
    path.chmod(0o640)
    with pytest.raises(PermissionError, match="chmod 600"):
        load_or_create_key(path)


@pytest.mark.parametrize("text", ["", "nonsense!", "c2hvcnQ=", "é" * 44])
def test_what_is_no_key_is_refused_with_the_way_to_make_one(text):
    with pytest.raises(ValueError, match="openssl rand -base64 32"):
        parse_key(text)


def test_new_keys_differ():
    assert new_key() != new_key()
