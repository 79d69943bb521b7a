"""The files of one cluster: a layer of configuration over the root file system, keys, and the shared folders."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from testbed.host import run
from testbed.spec import Spec

# Who owns which file, and its mode; all others are root's and readable.
_OWNED = {
    "/etc/munge/munge.key": ("munge", 0o400),
    "/etc/slurm/jwt.key": ("slurm", 0o600),
    "/etc/slurm/slurmdbd.conf": ("slurm", 0o600),
}


def write_common_layer(layer: Path, rootfs: Path, texts: Mapping[str, str]) -> None:
    """Write what is the same on every machine of a cluster, with fresh munge and JWT keys."""
    contents = {path: text.encode() for path, text in texts.items()}
    contents |= {"/etc/munge/munge.key": os.urandom(128), "/etc/slurm/jwt.key": os.urandom(32)}
    layer.mkdir(mode=0o755)
    for path, content in contents.items():
        target = layer / path.lstrip("/")
        _make_like(target.parent, layer, rootfs)
        target.write_bytes(content)
        user, mode = _OWNED.get(path, ("root", 0o644))
        target.chmod(mode)
        os.chown(target, *_owner(rootfs, user))


def write_machine_keys(state: Path, spec: Spec) -> None:
    """Give each machine its own ssh host key, and write what a client needs to trust exactly these."""
    ssh = state / "ssh"
    ssh.mkdir(mode=0o755)
    public = {}
    for machine in spec.machines:
        key = state / "machines" / machine / "root/etc/ssh/ssh_host_ed25519_key"
        key.parent.mkdir(parents=True, mode=0o755)
        public[machine] = _generate_key(key, machine)
    doors = {port: machine for port, (machine, inner) in spec.doors.items() if inner == 22}
    outside = "".join(f"[127.0.0.1]:{port} {public[machine]}\n" for port, machine in doors.items())
    (ssh / "known_hosts").write_text(outside)
    (state / "common/etc/ssh").mkdir(exist_ok=True)
    inside = "".join(f"{machine} {key}\n" for machine, key in public.items())
    (state / "common/etc/ssh/ssh_known_hosts").write_text(inside)
    (ssh / "config").write_text(_client_config(ssh, doors))


def write_shared_folder(state: Path, users: Mapping[str, int]) -> None:
    """/home with a key pair per user (which also opens the way from machine to machine), and /shared for all."""
    shared = state / "shared"
    (shared / "home").mkdir(parents=True)
    (shared / "shared").mkdir()
    (shared / "shared").chmod(0o1777)
    for user, uid in users.items():
        public = _generate_key(state / "ssh" / user, f"{user}@testbed")
        home = shared / "home" / user
        (home / ".ssh").mkdir(parents=True)
        (home / ".ssh/authorized_keys").write_text(f"{public}\n")
        shutil.copy(state / "ssh" / user, home / ".ssh/id_ed25519")
        home.chmod(0o700)
        for path in (home, home / ".ssh", *(home / ".ssh").iterdir()):
            os.chown(path, uid, uid)


def _generate_key(path: Path, comment: str) -> str:
    """A new key pair; returns the public key without its comment."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path])
    return " ".join(path.with_name(f"{path.name}.pub").read_text().split()[:2])


def _client_config(ssh: Path, doors: Mapping[int, str]) -> str:
    """Host ``testbed`` is alice on login; ``testbed-bob`` is bob there; ``n1`` is alice on n1."""
    logins = [("testbed", "alice", port) for port, machine in doors.items() if machine == "login"]
    logins += [("testbed-bob", "bob", port) for port, machine in doors.items() if machine == "login"]
    logins += [(machine, "alice", port) for port, machine in doors.items() if machine != "login"]
    return "".join(
        f"Host {alias}\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n"
        f"  IdentityFile {ssh / user}\n  IdentitiesOnly yes\n  LogLevel ERROR\n"
        f"  UserKnownHostsFile {ssh / 'known_hosts'}\n  StrictHostKeyChecking yes\n"
        for alias, user, port in logins
    )


def _make_like(folder: Path, layer: Path, rootfs: Path) -> None:
    """Create a folder of the layer with owner and mode as below: in an overlay the upper folder's attributes win."""
    if folder.exists():
        return
    _make_like(folder.parent, layer, rootfs)
    folder.mkdir(mode=0o755)
    below = rootfs / folder.relative_to(layer)
    if below.exists():
        shutil.copystat(below, folder)
        os.chown(folder, below.stat().st_uid, below.stat().st_gid)


def _owner(rootfs: Path, user: str) -> tuple[int, int]:
    for line in (rootfs / "etc/passwd").read_text().splitlines():
        name, _, uid, gid, *_ = line.split(":")
        if name == user:
            return int(uid), int(gid)
    raise KeyError(user)
