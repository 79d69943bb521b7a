"""What a program needs to know to use a cluster: the content of ``info --json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.oci import DEMO_REFERENCE
from testbed.slurm_conf import ACCOUNTS, PARTITIONS, QOS
from testbed.spec import USERS, Spec


def describe(
    spec: Spec, state: Path, cgroup_mode: str, versions: Mapping[str, str], demo_digest: str
) -> dict[str, Any]:
    """The whole description; all addresses are on the host's 127.0.0.1 unless they say otherwise."""
    registry = f"127.0.0.1:{spec.registry_port}"
    ssh = state / "ssh"
    host_keys = dict(line.split(" ", 1) for line in (ssh / "known_hosts").read_text().splitlines())

    def door(port: int) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": port, "host_key": host_keys[f"[127.0.0.1]:{port}"]}

    return {
        "name": spec.name,
        "suite": spec.suite,
        "slurm_version": versions["slurmctld"].split("-")[0],
        "versions": dict(versions),  # of the main Debian packages inside
        "cgroup": cgroup_mode,  # v1, v2, or none: memory limits are not enforced
        "nodes": list(spec.compute_nodes),
        "ssh": door(spec.ssh_port)
        | {
            "users": {user: {"key": str(ssh / user), "home": f"/home/{user}"} for user in USERS},
            "known_hosts": str(ssh / "known_hosts"),
            "config": str(ssh / "config"),  # for ssh -F: hosts testbed (alice), testbed-bob, n1, n2, ...
        },
        "node_ssh": {name: door(port) for port, (name, inner) in spec.doors.items() if inner == 22 and name != "login"},
        "slurmrestd": {"url": f"http://127.0.0.1:{spec.restd_port}"} if spec.dbd else None,
        # `address` is the same registry on the host and on every machine; `from_nodes` is its name inside.
        "registry": {"address": registry, "from_nodes": "login:5000", "plain_http": True},
        "demo_image": {
            "reference": f"docker://{registry}/{DEMO_REFERENCE}",
            "from_nodes": f"docker://login:5000/{DEMO_REFERENCE}",
            "digest": demo_digest,
        },
        "partitions": list(PARTITIONS),
        "accounts": {user: list(accounts) for user, accounts in ACCOUNTS.items()} if spec.dbd else {},
        "qos": list(QOS) if spec.dbd else [],
        "state_dir": str(state),
    }
