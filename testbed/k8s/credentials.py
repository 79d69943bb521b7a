"""Who may speak to a control plane: its certificate, its tokens, and the kubeconfigs that hold both."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from testbed.host import TestbedError, run

ADMIN = "admin"
_NAMES = ("DNS:localhost", "DNS:kubernetes.default.svc", "IP:127.0.0.1", "IP:10.96.0.1")


def write_credentials(folder: Path, url: str, users: Sequence[str], addresses: Sequence[str] = ()) -> None:
    """Make keys, tokens and kubeconfigs in ``folder`` (created, for its owner alone).

    addresses: of the server, beside 127.0.0.1.
    """
    folder.mkdir(mode=0o700)
    names = ",".join((*_NAMES, *(f"IP:{address}" for address in addresses)))
    # It must not write any more when we are killed and our folder is cleared away.
    openssl = ["setpriv", "--pdeathsig", "KILL", "openssl"]
    request = [*openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=testbed"]
    files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    run([*request, "-addext", f"subjectAltName={names}", *files])
    run([*openssl, "genrsa", "-out", folder / "accounts.key", "2048"])
    tokens = {user: secrets.token_urlsafe(24) for user in (ADMIN, *users)}
    groups = {ADMIN: "system:masters"}
    lines = [f'{token},{user},{user},"{groups.get(user, "")}"\n' for user, token in tokens.items()]
    (folder / "tokens.csv").write_text("".join(lines))
    certificate = (folder / "tls.crt").read_bytes()
    for user, token in tokens.items():
        kubeconfig_of(folder, user, must_exist=False).write_text(_kubeconfig(url, certificate, user, token))


def kubeconfig_of(folder: Path, user: str, *, must_exist: bool = True) -> Path:
    """The kubeconfig of a user; TestbedError when there is no such user."""
    path = folder / f"{user}.kubeconfig"
    if must_exist and not path.exists():
        known = sorted(found.stem for found in folder.glob("*.kubeconfig"))
        raise TestbedError(f"no user {user!r}; there are {', '.join(known)}")
    return path


def token_of(folder: Path, user: str) -> str:
    """The bearer token of a user."""
    content = json.loads(kubeconfig_of(folder, user).read_text())
    return str(content["users"][0]["user"]["token"])


def _kubeconfig(url: str, certificate: bytes, user: str, token: str) -> str:
    """As JSON, which is YAML too."""
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(certificate).decode()}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user, "namespace": "default"}}],
        "current-context": "testbed",
    }
    return json.dumps(content, indent=2) + "\n"
