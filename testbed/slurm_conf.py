"""The text of every configuration file in a cluster, as a pure function of its specification."""

from testbed.network import address_of
from testbed.spec import Spec

CPUS_PER_NODE = 4
MEMORY_MIB_PER_NODE = 4000

PARTITIONS = ("cpu", "debug")
QOS = ("normal", "express")
# The first account is a user's default; `teaching` holds at most 4 CPUs at a time.
ACCOUNTS = {"alice": ("lab", "teaching"), "bob": ("lab",)}
ACCOUNTING = (
    "add cluster {cluster}",
    "add qos express Priority=1000 MaxWall=00:10:00 MaxSubmitJobsPerUser=20 MaxTRESPerUser=cpu=8",
    "add account lab Description=lab Organization=testbed",
    "add account teaching Description=teaching Organization=testbed GrpTRES=cpu=4",
    "add user root,alice,bob account=lab DefaultAccount=lab",
    "add user alice account=teaching",
    "modify user where name=root,alice,bob set qos=normal,express defaultqos=normal",
)


def files(spec: Spec, cgroup_mode: str) -> dict[str, str]:
    """Path inside a machine -> content, without the keys."""
    texts = {
        "/etc/hosts": _hosts(spec),
        "/etc/resolv.conf": "# machines know each other by /etc/hosts alone; apptainer insists on this file\n",
        "/etc/registry-port": f"{spec.registry_port}\n",
        "/etc/slurm/slurm.conf": slurm_conf(spec, cgroup_mode),
        "/etc/slurm/cgroup.conf": cgroup_conf(spec, cgroup_mode),
        "/etc/docker/registry/config.yml": _REGISTRY,
        "/etc/containers/registries.conf": "".join(
            f'[[registry]]\nlocation = "{address}"\ninsecure = true\n'
            for address in ("login:5000", f"127.0.0.1:{spec.registry_port}")
        ),
    }
    if spec.gpus:
        texts["/etc/slurm/gres.conf"] = "".join(f"Name=gpu File=/dev/nvidia{gpu}\n" for gpu in range(spec.gpus))
    if spec.dbd:
        texts["/etc/slurm/slurmdbd.conf"] = _SLURMDBD
        texts["/etc/slurm/database.sql"] = _DATABASE
    return texts


def slurm_conf(spec: Spec, cgroup_mode: str) -> str:
    limited = cgroup_mode != "none"
    lines = [
        f"ClusterName={spec.name}",
        _FIXED.strip(),
        f"ProctrackType=proctrack/{'cgroup' if limited else 'linuxproc'}",
        f"TaskPlugin=task/{'cgroup' if limited else 'none'}",
    ]
    if spec.dbd:
        lines += [_ACCOUNTING.strip()]
    if spec.gpus:
        lines += ["GresTypes=gpu"]
    lines += [_node(spec, name) for name in spec.compute_nodes]
    nodes = ",".join(spec.compute_nodes)
    lines += [
        f"PartitionName=cpu Nodes={nodes} Default=YES MaxTime=1-00:00:00 DefaultTime=10:00 DefMemPerCPU=100 State=UP",
        "PartitionName=debug Nodes=n1 MaxTime=10:00 DefaultTime=1:00 DefMemPerCPU=100 PriorityTier=10 State=UP",
    ]
    return "\n".join(lines) + "\n"


def cgroup_conf(spec: Spec, mode: str) -> str:
    if mode == "none":
        return "CgroupPlugin=disabled\n" if spec.suite != "bookworm" else "CgroupAutomount=no\n"
    lines = [f"CgroupPlugin=cgroup/{mode}", "ConstrainRAMSpace=yes"]
    if mode == "v2":  # no systemd to ask for a scope: slurmd makes its own folders
        lines += ["IgnoreSystemd=yes", "EnableControllers=yes"]
    return "\n".join(lines) + "\n"


def _node(spec: Spec, name: str) -> str:
    features = " Feature=fast" if name == "n1" else ""
    gres = f" Gres=gpu:{spec.gpus}" if spec.gpus else ""
    return (
        f"NodeName={name} NodeAddr={address_of(name)} CPUs={CPUS_PER_NODE} Sockets=1 CoresPerSocket={CPUS_PER_NODE}"
        f" ThreadsPerCore=1 RealMemory={MEMORY_MIB_PER_NODE}{features}{gres} State=UNKNOWN"
    )


def _hosts(spec: Spec) -> str:
    return "127.0.0.1 localhost\n" + "".join(f"{address_of(name)} {name}\n" for name in spec.machines)


_FIXED = """
SlurmctldHost=login
SlurmUser=slurm
AuthType=auth/munge
CredType=cred/munge
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key=/etc/slurm/jwt.key
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld-own.pid
SlurmdPidFile=/run/slurmd-own.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,bf_continue,default_queue_depth=1000,batch_sched_delay=0,sched_min_interval=100000,bf_max_job_test=2000
PriorityType=priority/multifactor
PriorityWeightQOS=1000
# The declared CPUs and memory win over the real ones.
SlurmdParameters=config_overrides
# A node that lost its power comes back by itself.
ReturnToService=2
MaxJobCount=50000
MaxArraySize=20001
MinJobAge=300
# With 15 s and the default message time-outs one dead node made slurmctld mark idle healthy ones down too.
MessageTimeout=5
TCPTimeout=2
SlurmdTimeout=30
SlurmctldTimeout=30
KillWait=5
JobCompType=jobcomp/filetxt
JobCompLoc=/var/log/slurm/jobcomp.log
"""

_ACCOUNTING = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=login
AccountingStorageEnforce=associations,limits,qos
AccountingStoreFlags=job_comment,job_env,job_script
"""

_SLURMDBD = """
AuthType=auth/munge
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key=/etc/slurm/jwt.key
DbdHost=login
SlurmUser=slurm
PidFile=/run/slurmdbd-own.pid
LogFile=/var/log/slurm/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""

_DATABASE = """
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO slurm@localhost;
"""

_REGISTRY = """
version: 0.1
log:
  level: warn
storage:
  filesystem:
    rootdirectory: /var/lib/docker-registry
  delete:
    enabled: true
http:
  addr: 0.0.0.0:5000
"""
