"""What commands read: files, standard input, and secrets that no command line should show."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from berth.errors import InvalidInput, UsageError

_KEY_BYTES = 64 * 1024


def read_text(path: str) -> tuple[str, str]:
    """The text of a file, or of standard input for ``-``; and its name for messages."""
    if path == "-":
        return sys.stdin.read(), "standard input"
    try:
        return Path(path).read_text("utf-8"), path
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is no UTF-8 text") from None


def read_definition(path: str) -> dict[str, Any]:
    """The one mapping in a YAML or JSON file, or in standard input."""
    from berth.documents import read_one

    return read_one(*read_text(path))


def password(
    *, from_stdin: bool, prompt: str, variable: str = "BERTH_PASSWORD", confirm: bool = False, whole: bool = False
) -> str:
    """A password from standard input, the environment, or the person at the terminal; in this order.

    whole: it may have several lines, as keys of cloud accounts do, and ends with standard input.
    UsageError when there is no terminal to ask at: commands in scripts never wait for an answer.
    """
    if from_stdin:
        text = (sys.stdin.read() if whole else sys.stdin.readline()).rstrip("\r\n")
    elif variable in os.environ:
        text = os.environ[variable]
    elif sys.stdin.isatty():
        import getpass

        text = getpass.getpass(f"{prompt}: ")
        if confirm and getpass.getpass("The same again: ") != text:
            raise UsageError("the two passwords differ")
    else:
        raise UsageError("there is no terminal to ask for a password", f"give --password-stdin or set {variable}")
    if not text:
        raise UsageError("the password is empty")
    return text


def private_key(path: str) -> str:
    """The text of a private key file. InvalidInput for what a server could not use."""
    expanded = str(Path(path).expanduser())
    text, _ = read_text(expanded)
    if len(text) > _KEY_BYTES or "PRIVATE KEY-----" not in text:
        public = text.startswith(("ssh-", "ecdsa-", "sk-"))
        fix = f"name the private key, {expanded.removesuffix('.pub')}" if public else "name a file made by ssh-keygen"
        raise InvalidInput(f"{path} is {'a public key' if public else 'no private key'}", fix)
    if _is_encrypted(text):
        raise InvalidInput(
            f"{path} is protected by a passphrase, which the server could not ask for",
            "use a key of its own (ssh-keygen -t ed25519 -N '' -f berth_key) or berth systems credential --generate",
        )
    return text if text.endswith("\n") else text + "\n"


def _is_encrypted(key: str) -> bool:
    """Whether a PEM or OpenSSH private key needs a passphrase."""
    if "ENCRYPTED" in key:
        return True
    if "BEGIN OPENSSH PRIVATE KEY" not in key:
        return False
    import base64

    body = "".join(line for line in key.splitlines() if not line.startswith("-----"))
    try:
        blob = base64.b64decode(body)
    except ValueError:
        return False
    header = b"openssh-key-v1\0"
    cipher_length = int.from_bytes(blob[len(header) : len(header) + 4], "big")
    return blob[len(header) + 4 : len(header) + 4 + cipher_length] != b"none"
