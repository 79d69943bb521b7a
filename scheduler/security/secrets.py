"""Secrets at rest: one key of 32 bytes, AES-256-GCM, each secret bound to the place where it lies."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash

KEY_BYTES = 32
NONCE_BYTES = 12
VERSION = "b1"


class SecretsUnreadable(Exception):
    """A sealed secret does not open: another key, another place, or damage. The text says what to check."""


class SecretBox:
    """Encrypts with ``key``; decrypts with it or with any of the ``retired`` keys.

    A sealed text reads ``b1.<key id>.<base64 of nonce and ciphertext>``.
    """

    def __init__(self, key: bytes, retired: Sequence[bytes] = ()) -> None:
        self._key_id = _key_id(key)
        self._ciphers = {_key_id(each): AESGCM(each) for each in (*retired, key)}

    def encrypt(self, secret: str, context: str) -> str:
        """``secret`` sealed; it opens only with the same ``context``."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[self._key_id].encrypt(nonce, secret.encode(), context.encode())
        return f"{VERSION}.{self._key_id}.{b64encode(nonce + sealed).decode()}"

    def decrypt(self, sealed: str, context: str) -> str:
        """The secret; SecretsUnreadable when it does not open here."""
        version, _, rest = sealed.partition(".")
        key_id, _, body = rest.partition(".")
        if version != VERSION:
            raise SecretsUnreadable(
                f"a secret was written in the unknown form {version[:8]!r}; this Berth is too old for it"
            )
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SecretsUnreadable(f"a secret was encrypted with key {key_id[:16]!r}, which is not the key given")
        try:
            raw = b64decode(body, validate=True)
            return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], context.encode()).decode()
        except (InvalidTag, NotBase64, ValueError):
            raise SecretsUnreadable("a secret is damaged, or was moved from another row") from None

    def is_current(self, sealed: str) -> bool:
        """Whether ``sealed`` was encrypted with the present key, not a retired one."""
        return sealed.startswith(f"{VERSION}.{self._key_id}.")


def new_key() -> bytes:
    """A fresh key."""
    return os.urandom(KEY_BYTES)


def load_or_create_key(path: Path) -> bytes:
    """The key in a file, made with mode 0600 when there is no file.

    PermissionError when others may read the file; ValueError when it does not hold a key.
    """
    try:
        return read_key(path)
    except FileNotFoundError:
        write_key(path, new_key())
        return read_key(path)


def box_at(path: Path) -> SecretBox:
    """The box of a key file (made when missing), which also opens what an interrupted rotation has sealed already."""
    key, coming = load_or_create_key(path), _coming(path)
    return SecretBox(key, retired=[read_key(coming)] if coming.exists() else [])


async def rotate(path: Path, reseal: Callable[[SecretBox], Awaitable[None]]) -> None:
    """Put a new key in the place of the one in a file. Killed at any moment, it may be run again.

    reseal: seals every secret anew with the box it is given, in one transaction. The process that serves must be
    stopped, or started again afterwards.
    """
    old, coming = read_key(path), _coming(path)
    await reseal(SecretBox(load_or_create_key(coming), retired=[old]))
    coming.replace(path)


def _coming(path: Path) -> Path:
    """Where the next key waits until everything is sealed with it."""
    return path.with_name(f"{path.name}.next")


def read_key(path: Path) -> bytes:
    """The key in a file that only its owner may read; errors as ``load_or_create_key``, FileNotFoundError for none."""
    mode = path.stat().st_mode
    if mode & 0o077:
        raise PermissionError(f"{path} may be read by others (mode {mode & 0o777:o}); run: chmod 600 {path}")
    return parse_key(path.read_text(encoding="ascii", errors="replace"))


def parse_key(text: str) -> bytes:
    """A key as ``write_key`` and the environment write it: base64 of 32 bytes. ValueError otherwise."""
    try:
        key = b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"a secrets key is {KEY_BYTES} bytes in base64; make one with: openssl rand -base64 {KEY_BYTES}"
        )
    return key


def write_key(path: Path, key: bytes) -> None:
    """Write a key whole or not at all, readable by its owner only; FileExistsError rather than losing a key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(b64encode(key) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    finally:
        draft.unlink()


def _key_id(key: bytes) -> str:
    """A name for a key that gives nothing of it away."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a secrets key is {KEY_BYTES} bytes, not {len(key)}")
    digest = Hash(SHA256())
    digest.update(b"berth secrets key\0" + key)
    return digest.finalize()[:6].hex()
