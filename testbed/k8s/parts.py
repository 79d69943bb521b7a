"""The parts of a control plane as one table: how each is started, and how one sees that it answers."""

from __future__ import annotations

import sys
from pathlib import Path

from testbed.k8s.binaries import Binaries
from testbed.k8s.program import Program
from testbed.k8s.spec import Spec

NODE_ADDRESS = "10.77.1.1"
"""Of the real node, in the network namespace that it shares with its control plane."""

FAKE_NODES = "fake-nodes"
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
"""In the order in which they start."""

HEALTH = {
    "etcd": "http://127.0.0.1:{port}/health",
    "kube-apiserver": "https://127.0.0.1:{port}/readyz",
    "kube-controller-manager": "https://127.0.0.1:{port}/healthz",
    "kube-scheduler": "https://127.0.0.1:{port}/healthz",
}
"""What answers with status 200 once the part works."""

_SOURCE = Path(__file__).parents[2]
_LAST_WITH_INSECURE_PORTS = (1, 22)


def programs(spec: Spec, state: Path, binaries: Binaries, before: tuple[str, ...] = ()) -> dict[str, Program]:
    """Part -> its program. before: what goes before each argv, to enter a network namespace."""
    ports, keys = spec.ports, state / "credentials"
    etcd, peers = (f"http://127.0.0.1:{ports[part]}" for part in ("etcd", "etcd-peers"))
    serving = ["--tls-cert-file", keys / "tls.crt", "--tls-private-key-file", keys / "tls.key"]
    client = ["--kubeconfig", keys / "admin.kubeconfig", "--leader-elect=false", "--bind-address=127.0.0.1"]
    # With the usual limits 200 jobs of one pod each take a minute instead of 4 s.
    client += ["--kube-api-qps=500", "--kube-api-burst=1000", *serving]
    if binaries.version <= _LAST_WITH_INSECURE_PORTS:
        client += ["--port=0"]  # the default is a port without TLS on every address of the host
    accounts = keys / "accounts.key"
    argvs: dict[str, list[str | Path]] = {
        "etcd": [
            *("--data-dir", state / "etcd", "--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"default={peers}", "--logger=zap", "--log-level=warn"),
        ],
        "kube-apiserver": [
            *("--etcd-servers", etcd, "--secure-port", str(ports["kube-apiserver"]), *serving),
            *("--cert-dir", state / "certificates", "--service-cluster-ip-range=10.96.0.0/16"),
            *("--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file", accounts),
            *("--service-account-signing-key-file", accounts, "--authorization-mode=RBAC"),
            *("--token-auth-file", keys / "tokens.csv", "--endpoint-reconciler-type=none", "--allow-privileged=true"),
            *("--kubelet-preferred-address-types=InternalIP", *_api_addresses(spec)),
        ],
        "kube-controller-manager": [
            *(*client, "--secure-port", str(ports["kube-controller-manager"])),
            *("--service-account-private-key-file", accounts, "--cert-dir", state / "certificates"),
        ],
        "kube-scheduler": [
            *(*client, "--secure-port", str(ports["kube-scheduler"]), "--cert-dir", state / "certificates"),
        ],
    }
    started = {
        part: Program(part, (*before, str(binaries.path(part)), *map(str, argvs[part])), state / "run")
        for part in PARTS
    }
    if spec.nodes:
        argv = (sys.executable, "-m", "testbed.k8s.fake_nodes", str(state))
        started[FAKE_NODES] = Program(FAKE_NODES, argv, state / "run", {"PYTHONPATH": str(_SOURCE)})
    return started


def _api_addresses(spec: Spec) -> list[str]:
    """Where the API server listens: for the host alone, or for all in its namespace, pods among them."""
    if spec.apart:
        return ["--bind-address=0.0.0.0", "--advertise-address", NODE_ADDRESS]
    return ["--bind-address=127.0.0.1"]
