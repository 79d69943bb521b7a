"""One private Ethernet per cluster: a bridge in a switch namespace, a veth pair to each machine, nothing on the host.

All clusters use the same addresses, since none of them can see another. The switch itself has an address: the relay
connects from there, so traffic from outside crosses the login machine's own link and is cut and shaped with it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from testbed.host import run
from testbed.spec import check_rate

SWITCH = "switch"
SWITCH_ADDRESS = "10.77.0.254"
_NETNS_FOLDER = Path("/run/netns")


def address_of(machine: str) -> str:
    """The fixed IPv4 address of a machine: 10.77.0.10 for login, .11 for n1 and so on."""
    return f"10.77.0.{10 + (0 if machine == 'login' else int(machine[1:]))}"


def netns_of(cluster: str, machine: str) -> str:
    return f"berth-{cluster}-{machine}"


def netns_path(cluster: str, machine: str) -> Path:
    return _NETNS_FOLDER / netns_of(cluster, machine)


def create_switch(cluster: str) -> None:
    switch = netns_of(cluster, SWITCH)
    run(["ip", "netns", "add", switch])
    # A fixed hardware address: a bridge otherwise takes its lowest port's, and changes it when that port goes.
    _in(switch, ["link add br0 address 02:77:00:00:00:fe type bridge forward_delay 0 stp_state 0",
                 f"addr add {SWITCH_ADDRESS}/24 dev br0", "link set lo up", "link set br0 up"])  # fmt: skip


def plug_in(cluster: str, machine: str) -> None:
    """Give a machine its network namespace and its cable to the switch."""
    switch, own = netns_of(cluster, SWITCH), netns_of(cluster, machine)
    run(["ip", "netns", "add", own])
    _in(switch, [f"link add {machine} type veth peer name eth0 netns {own}",
                 f"link set {machine} master br0", f"link set {machine} up"])  # fmt: skip
    _in(own, ["link set lo up", f"addr add {address_of(machine)}/24 dev eth0", "link set eth0 up"])


def unplug(cluster: str, machine: str) -> None:
    """Remove a machine's cable and its network namespace; with the latter alone the cable would go some time later."""
    run(["ip", "-netns", netns_of(cluster, SWITCH), "link", "del", machine], check=False)
    run(["ip", "netns", "del", netns_of(cluster, machine)], check=False)


def set_link(cluster: str, machine: str, up: bool) -> None:
    """Cut or heal the cable between a machine and the switch; packets on it are lost, nobody is told."""
    _in(netns_of(cluster, SWITCH), [f"link set {machine} {'up' if up else 'down'}"])


def set_rate(cluster: str, machine: str, rate: str) -> None:
    """Limit the cable to ``rate`` (tc's words: 200mbit) each way, or lift the limit with ``none``.

    A token bucket on both ends; netem, which could also delay and lose, is missing from many kernels.
    """
    check_rate(rate)
    for netns, device in ((netns_of(cluster, SWITCH), machine), (netns_of(cluster, machine), "eth0")):
        tc = ["tc", "-netns", netns, "qdisc"]
        run([*tc, "del", "dev", device, "root"], check=False)
        if rate != "none":
            run([*tc, "add", "dev", device, "root", "tbf", "rate", rate, "burst", "256kb", "latency", "100ms"])


def namespaces(cluster: str) -> list[str]:
    """Every network namespace of a cluster that is there, also after a half-finished start."""
    if not _NETNS_FOLDER.is_dir():
        return []
    return sorted(entry.name for entry in _NETNS_FOLDER.iterdir() if entry.name.startswith(f"berth-{cluster}-"))


def processes_in(netns_names: Iterable[str]) -> list[int]:
    """Host process ids of all that live in these network namespaces: the testbed's one sure way to know its own."""
    return [int(pid) for name in netns_names for pid in run(["ip", "netns", "pids", name], check=False).stdout.split()]


def _in(netns: str, commands: Sequence[str]) -> None:
    run(["ip", "-netns", netns, "-batch", "-"], stdin="".join(f"{command}\n" for command in commands))
