"""The daemons of a cluster as one table. There is no systemd inside: daemon.sh starts, signals and watches them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Daemon:
    """``command`` stays in the foreground; ``ready`` is a shell line that succeeds once the daemon answers."""

    name: str
    command: str
    ready: str
    user: str = "root"

    @property
    def log(self) -> str:
        """What the daemon says on its terminal; Slurm's daemons keep logs of their own in /var/log/slurm as well."""
        return f"/var/log/{self.name}.log"


DAEMONS: Mapping[str, Daemon] = MappingProxyType(
    {
        daemon.name: daemon
        for daemon in (
            Daemon("munged", "munged --foreground --force", ready="munge -n", user="munge"),
            Daemon("sshd", "/usr/sbin/sshd -D -e", ready="ssh-keyscan -T 1 127.0.0.1 2>/dev/null | grep -q ."),
            Daemon(
                "registry",
                "docker-registry serve /etc/docker/registry/config.yml",
                ready="curl -sf http://127.0.0.1:5000/v2/",
            ),
            # On every machine the registry has the name by which the host knows it: one image name for all.
            Daemon(
                "registrydoor",
                "socat TCP-LISTEN:$(cat /etc/registry-port),bind=127.0.0.1,fork,reuseaddr,backlog=128 TCP:login:5000",
                ready="bash -c 'exec 3<>/dev/tcp/127.0.0.1/'$(cat /etc/registry-port)",
            ),
            Daemon(
                "mariadbd",
                "mariadbd --user=mysql --datadir=/var/lib/mysql --skip-networking --init-file=/etc/slurm/database.sql"
                " --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=64M"
                " --innodb-log-file-size=16M --innodb-undo-tablespaces=0",
                ready="mariadb -N -e 'show databases' | grep -q slurm_acct_db",
            ),
            Daemon("slurmdbd", "slurmdbd -D", ready="sacctmgr -n show cluster"),
            Daemon("slurmctld", "slurmctld -D", ready="scontrol ping | grep -q UP"),
            Daemon(
                "slurmrestd",
                "env SLURM_JWT=daemon slurmrestd -a rest_auth/jwt 0.0.0.0:6820",
                ready="curl -s http://127.0.0.1:6820/",
                user="nobody",  # it refuses to run as root or as Slurm's own user
            ),
            Daemon("slurmd", "slurmd -D", ready="scontrol show slurmd"),
        )
    }
)


def daemons_of(machine: str, dbd: bool) -> tuple[str, ...]:
    """The daemons of a machine in the order in which they must start."""
    if machine != "login":
        return ("munged", "sshd", "registrydoor", "slurmd")
    first = ("munged", "sshd", "registry", "registrydoor")
    # slurmrestd refuses to start where there is no accounting.
    return (*first, "mariadbd", "slurmdbd", "slurmctld", "slurmrestd") if dbd else (*first, "slurmctld")
