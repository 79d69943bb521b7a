"""The parts of a real node as texts and argument lists: registry, containerd, kubelet, and their configurations."""

from __future__ import annotations

import json
from pathlib import Path

from testbed import cgroups
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.namespace import cgroup_of
from testbed.k8s.parts import NODE_ADDRESS
from testbed.k8s.program import Program

NODE = "real-1"
PAUSE = "testbed/pause:1"
"""The image that holds a pod's namespaces."""

PROXY = "kube-proxy"
"""Brings what is sent to Services to their pods; only started by whoever asks for it."""

PROXY_HEALTH = "http://127.0.0.1:10256/healthz"
"""As the node itself reaches it."""

SOCKET = "/run/containerd/containerd.sock"
_PODS = "10.78.0.0/24"
_FIRST_WITHOUT_RUNTIME_CHOICE = (1, 24)
_FIRST_TO_REFUSE_CGROUP_V1 = (1, 35)


def registry_of(plane: ControlPlane) -> str:
    """The registry's address, the same on the host and on the node; plain HTTP."""
    return f"127.0.0.1:{plane.spec.ports['registry']}"


def node_programs(plane: ControlPlane) -> dict[str, Program]:
    """Part -> its program, in the order in which they start. ``machine`` is what the others live in."""
    disk, run = plane.state / "node", plane.state / "run"
    machine = Program(
        "machine",
        (*plane.entering, "unshare", "--mount", "--uts", str(Path(__file__).with_name("node.sh")), NODE, str(disk)),
        run,
    )
    folders = ":".join(str(folder) for folder in plane.binaries.folders)
    variables = {"PATH": f"{folders}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

    def inside(part: str, program: str, *words: str | Path) -> Program:
        argv = (*entering(machine), str(plane.binaries.path(program)), *map(str, words))
        return Program(part, argv, run, variables)

    parts = {
        "machine": machine,
        "registry": inside("registry", "docker-registry", "serve", disk / "registry.yml"),
        "containerd": inside("containerd", "containerd", "--config", disk / "containerd.toml"),
        "kubelet": inside("kubelet", "kubelet", *_kubelet_options(plane, disk)),
    }
    if plane.binaries.has(PROXY):
        parts[PROXY] = inside(PROXY, PROXY, *_proxy_options(plane))
    return parts


def entering(machine: Program) -> tuple[str, ...]:
    """What to put before an argv that must run on the node. Nothing forks, so that a process id stays the program's."""
    return ("nsenter", f"--target={machine.pid or 0}", "--mount", "--uts", "--net", "--")


def node_files(plane: ControlPlane) -> dict[str, str]:
    """Path below the node's disk -> content."""
    disk = plane.state / "node"
    return {
        "registry.yml": _registry_config(disk, registry_of(plane)),
        "containerd.toml": _containerd_config(plane, disk),
        "kubelet.json": json.dumps(_kubelet_config(plane, disk), indent=2) + "\n",
        "cni/10-bridge.conflist": json.dumps(_cni_config(disk), indent=2) + "\n",
        "resolv.conf": "",  # there is no name server, and asking the host's would only cost time-outs
    }


def _kubelet_options(plane: ControlPlane, disk: Path) -> list[str | Path]:
    options: list[str | Path] = [
        *("--config", disk / "kubelet.json", "--kubeconfig", plane.kubeconfig(), "--node-ip", NODE_ADDRESS),
        *("--hostname-override", NODE, "--root-dir", disk / "kubelet", "--cert-dir", disk / "certificates"),
    ]
    if plane.version < _FIRST_WITHOUT_RUNTIME_CHOICE:
        options += ["--container-runtime=remote", "--container-runtime-endpoint", f"unix://{SOCKET}"]
        options += ["--pod-infra-container-image", f"{registry_of(plane)}/{PAUSE}"]
    return options


def _proxy_options(plane: ControlPlane) -> list[str | Path]:
    """Limits of connection tracking belong to the host, and stay as they are."""
    return [
        *("--kubeconfig", plane.kubeconfig(), "--hostname-override", NODE, "--cluster-cidr", _PODS),
        *("--proxy-mode", "iptables", "--iptables-min-sync-period", "100ms"),
        *("--metrics-bind-address", "127.0.0.1:10249"),
        *("--conntrack-max-per-core", "0", "--conntrack-min", "0"),
        *("--conntrack-tcp-timeout-established", "0s", "--conntrack-tcp-timeout-close-wait", "0s"),
    ]


def _kubelet_config(plane: ControlPlane, disk: Path) -> dict[str, object]:
    """A lab inside a namespace: whoever reaches the kubelet may use it."""
    config: dict[str, object] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.path_of(cgroup_of(plane.spec.name), 'node')}",
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "makeIPTablesUtilChains": False,
        "resolvConf": str(disk / "resolv.conf"),
        "readOnlyPort": 0,
    }
    if plane.version >= _FIRST_WITHOUT_RUNTIME_CHOICE:
        config["containerRuntimeEndpoint"] = f"unix://{SOCKET}"
    if plane.version >= _FIRST_TO_REFUSE_CGROUP_V1:
        config["failCgroupV1"] = False
    return config


def _containerd_config(plane: ControlPlane, disk: Path) -> str:
    registry, cri = registry_of(plane), 'plugins."io.containerd.grpc.v1.cri"'
    unused = ", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in ("aufs", "btrfs", "devmapper", "zfs"))
    return f"""version = 2
root = "{disk}/containerd"
state = "/run/containerd"
disabled_plugins = [{unused}]
[grpc]
  address = "{SOCKET}"
[{cri}]
  sandbox_image = "{registry}/{PAUSE}"
  # Hosts that are containers themselves may raise nobody's claim to memory, and mostly have no AppArmor.
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
[{cri}.cni]
  bin_dir = "{plane.binaries.path("bridge").parent}"
  conf_dir = "{disk}/cni"
[{cri}.containerd]
  default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
  BinaryName = "{plane.binaries.path("runc")}"
[{cri}.registry.mirrors."{registry}"]
  endpoint = ["http://{registry}"]
"""


def _cni_config(disk: Path) -> dict[str, object]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": _PODS}]], "dataDir": str(disk / "addresses")}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}


def _registry_config(disk: Path, address: str) -> str:
    return f"""version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {disk}/registry}}, delete: {{enabled: true}}}}
http: {{addr: "{address}"}}
"""
