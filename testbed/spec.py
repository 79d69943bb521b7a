"""What a cluster is asked to be."""

import re
from dataclasses import dataclass

from testbed.host import TestbedError

SUITE_NAMES = ("trixie", "sid", "bookworm")
CGROUP_CHOICES = ("auto", "none")
USERS = {"alice": 2001, "bob": 2002}


def check_rate(rate: str) -> None:
    """Raise TestbedError unless this is a link's speed as tc writes it, or ``none``."""
    if rate != "none" and not re.fullmatch(r"[1-9][0-9]{0,5}(kbit|mbit|gbit)", rate):
        raise TestbedError(f"rate {rate!r}: write it like 200mbit, or none")


@dataclass(frozen=True)
class Spec:
    """One cluster: a login machine and ``nodes`` compute machines n1..nN, each link limited to ``rate`` (as for tc).

    packages: of Debian, on all machines beside the usual ones.
    """

    nodes: int = 4
    name: str = "berth"
    suite: str = "trixie"
    cgroup: str = "auto"
    gpus: int = 0
    rate: str = "none"
    tmpfs: bool = False
    dbd: bool = True
    ssh_port: int = 12022
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # The name ends up in paths, in Slurm's ClusterName and in names of namespaces, where '-' separates.
        if not re.fullmatch(r"[a-z][a-z0-9]{0,15}", self.name):
            raise TestbedError(f"name {self.name!r}: use 1 to 16 lower-case letters and digits, a letter first")
        if not 1 <= self.nodes <= 100:
            raise TestbedError(f"{self.nodes} nodes: choose 1 to 100")
        if self.suite not in SUITE_NAMES:
            raise TestbedError(f"suite {self.suite!r}: choose one of {', '.join(SUITE_NAMES)}")
        if self.cgroup not in CGROUP_CHOICES:
            raise TestbedError(f"cgroup {self.cgroup!r}: choose one of {', '.join(CGROUP_CHOICES)}")
        if not 0 <= self.gpus <= 16:
            raise TestbedError(f"{self.gpus} gpus: choose 0 to 16")
        check_rate(self.rate)
        object.__setattr__(self, "packages", tuple(self.packages))  # a list, where the specification was read again
        for package in self.packages:
            if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]{1,80}", package):
                raise TestbedError(f"package {package!r}: write its name as Debian does")
        if not 1024 <= self.ssh_port <= 65000:
            raise TestbedError(f"ssh port {self.ssh_port}: choose 1024 to 65000 (the ports after it are used too)")

    @property
    def compute_nodes(self) -> tuple[str, ...]:
        return tuple(f"n{i}" for i in range(1, self.nodes + 1))

    @property
    def machines(self) -> tuple[str, ...]:
        return ("login", *self.compute_nodes)

    @property
    def restd_port(self) -> int:
        return self.ssh_port + 1

    @property
    def registry_port(self) -> int:
        return self.ssh_port + 2

    @property
    def doors(self) -> dict[int, tuple[str, int]]:
        """Port on the host's 127.0.0.1 -> machine and port inside."""
        doors = {self.ssh_port: ("login", 22), self.restd_port: ("login", 6820), self.registry_port: ("login", 5000)}
        return doors | {self.ssh_port + 10 + i: (name, 22) for i, name in enumerate(self.compute_nodes, start=1)}
