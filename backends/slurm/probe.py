"""Looking at a host for the first time: what it is and offers, as a system definition that people review.

``COMMANDS`` is asked in one remote call; ``describe`` turns the answers into a definition and is pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.slurm import cluster, offers
from backends.slurm.remote import Said, ask_commands
from backends.slurm.text import US, oneliners, parse_version
from backends.ssh.connection import SshConnection
from scheduler.model.errors import UnexpectedReply
from scheduler.model.probes import ProbeAsk, ProbeReport
from scheduler.model.systems import AuthnMethod
from scheduler.model.units import parse_walltime_s

EACH_S = 20
"""Longest that one question may take; an answer that is late is a warning, not a failure."""


def _shell(command: str) -> tuple[str, ...]:
    return ("bash", "-c", command)


COMMANDS: Mapping[str, Sequence[str]] = {
    "host": _shell(
        "uname -srm; nproc; sed -n 's/^PRETTY_NAME=//p' /etc/os-release; sed -n 's/^MemTotal: *//p' /proc/meminfo"
    ),
    "directories": (
        "bash",
        "-lc",
        'printf "\\n%s\\n" "HOME=$HOME" "WORK=${WORK:-}" "SCRATCH=${SCRATCH:-}" "PROJECT=${PROJECT:-}"',
    ),
    "file_systems": _shell(
        'bash -lc \'for d in "$HOME" "${WORK:-}" "${SCRATCH:-}" "${PROJECT:-}" /scratch /work /shared; do'
        ' [ -z "$d" ] || [ ! -d "$d" ] || df -PT -k -- "$d" | tail -n 1; done\''
    ),
    "quota": _shell("command -v quota >/dev/null && quota -w -p 2>/dev/null || :"),
    "runtimes": _shell(
        "for r in apptainer singularity podman docker; do"
        ' command -v $r >/dev/null && printf "%s " $r && $r --version 2>/dev/null | head -n 1; done; :'
    ),
    "modules": (
        *("bash", "-lc"),
        "command -v module >/dev/null && module -t avail apptainer singularity 2>&1 | head -n 100; :",
    ),
    "user_namespaces": ("unshare", "--user", "--map-root-user", "true"),
    "mpi": _shell(
        "for m in mpirun mpiexec srun; do command -v $m; done; command -v srun >/dev/null && srun --mpi=list 2>&1; :"
    ),
    "slurm": ("squeue", "--version"),
    "config": ("scontrol", "show", "config"),
    "partitions": offers.PARTITIONS_ARGV,
    "nodes": cluster.SINFO_ARGV,
    "accounts": offers.ACCOUNTS_ARGV,
    "qos": offers.QOS_ARGV,
    "compute_node": (
        *("srun", "--immediate=10", "--time=1", "--nodes=1", "--ntasks=1", "--mem=100M", "--quiet", "--chdir=/tmp"),
        *_shell("for r in apptainer singularity; do command -v $r; done; unshare -Ur true && echo userns"),
    ),
}
"""What is asked, by the name of the fact that it shows."""


async def probe(ask: ProbeAsk) -> ProbeReport:
    """Log in and look. NotAuthorised and BackendUnavailable in ssh's words; what cannot be learnt is a warning."""
    credential = ask.credential
    connection = SshConnection(
        ask.host,
        ask.port,
        credential.login_user,
        private_key=credential.private_key,
        password=credential.password,
        host_key=ask.host_key,
        learn_host_key=ask.host_key is None,
    )
    try:
        said, _ = await ask_commands(connection, COMMANDS.values(), each_s=EACH_S, both=True)
        host_key = connection.seen_host_key or ask.host_key or ""
    finally:
        await connection.aclose()
    definition, warnings = describe(ask, dict(zip(COMMANDS, said, strict=True)))
    evidence = {fact: _shown(argv) for fact, argv in COMMANDS.items()}
    return ProbeReport(definition=definition, host_key=host_key, evidence=evidence, warnings=tuple(warnings))


def _shown(argv: Sequence[str]) -> str:
    command = argv[2] if tuple(argv[:2]) == ("bash", "-c") else shlex.join(argv)
    return command.replace(US, "|")


@dataclass(slots=True)
class _Found:
    said: Mapping[str, Said]
    warnings: list[str] = field(default_factory=list)
    nodes: list[cluster.NodeRow] = field(default_factory=list)

    def read_nodes(self) -> None:
        """Take in what sinfo said."""
        try:
            self.nodes = cluster.parse_sinfo(self.answer("nodes", "sinfo did not answer, so no queue is known"))
        except UnexpectedReply as error:
            self.warnings.append(f"sinfo was not understood: {error}")

    def answer(self, fact: str, missing: str = "") -> str:
        """The answer to a question that succeeded; else nothing, and a warning where one is given."""
        one = self.said[fact]
        if one.exit_status == 0:
            return one.text
        if missing:
            words = one.text.strip().splitlines()
            self.warnings.append(f"{missing} ({words[-1] if words else f'exit status {one.exit_status}'})")
        return ""


def describe(ask: ProbeAsk, said: Mapping[str, Said]) -> tuple[dict[str, Any], list[str]]:
    """A system as ``POST /v3/systems`` takes it, and what could not be learnt."""
    found = _Found(said)
    has_slurm = said["slurm"].exit_status == 0
    login = ask.credential.login_user
    runtimes = _runtimes(found) or _runtimes_to_load(found)
    directories = _directories(found, login)
    definition: dict[str, Any] = {
        "id": ask.system_id or _system_id(ask.host),
        "systemType": "LINUX",
        "host": ask.host,
        "port": ask.port,
        "effectiveUserId": "${apiUserId}",
        "defaultAuthnMethod": str(AuthnMethod.PASSWORD if ask.credential.password else AuthnMethod.PKI_KEYS),
        "canExec": bool(runtimes),
        "rootDir": "/",
        "jobWorkingDir": directories["working"],
        "jobRuntimes": [{"runtimeType": kind, "version": version} for kind, version in runtimes],
        "canRunBatch": False,
    }
    facts: dict[str, Any] = {"host": _lines(found.answer("host")), "fileSystems": list(_file_systems(found))}
    if quota := found.answer("quota").strip():
        facts["quota"] = quota.splitlines()[-20:]
    facts["userNamespaces"] = said["user_namespaces"].exit_status == 0
    facts["mpi"] = _lines(found.answer("mpi"))[:20]
    if has_slurm:
        found.read_nodes()
        definition |= _batch(found) if runtimes else {}
        facts |= _slurm_facts(found)
    _runtime_warnings(found, runtimes, has_slurm)
    definition["notes"] = {"berth": {"facts": facts}}
    return definition, found.warnings


# -- a batch system --------------------------------------------------------------------------------------------------


def _batch(found: _Found) -> dict[str, Any]:
    queues = list(_queues(found))
    default = next((queue["name"] for queue, is_default in queues if is_default), None)
    if not queues:
        found.warnings.append("no partition is visible to this login; ask the site for an account or an allocation")
        return {}
    return {
        "canRunBatch": True,
        "batchScheduler": "SLURM",
        "batchLogicalQueues": [queue for queue, _ in queues],
        "batchDefaultLogicalQueue": default or queues[0][0]["name"],
    }


def _queues(found: _Found) -> Iterator[tuple[dict[str, Any], bool]]:
    """A logical queue for each partition; limits are what the partition says and its largest node has."""
    rows = found.nodes
    partitions = {facts.get("PartitionName"): facts for facts in oneliners(found.answer("partitions"))}
    for name in dict.fromkeys(row.partition for row in rows):
        alike = [row for row in rows if row.partition == name]
        total = sum(row.count for row in alike)
        limits = partitions.get(name, {})
        queue: dict[str, Any] = {
            "name": name,
            "hpcQueueName": name,
            "minNodeCount": max(1, _number(limits.get("MinNodes")) or 1),
            "maxNodeCount": min(total, alike[0].max_nodes or total) or 1,
            "minCoresPerNode": 1,
            "maxCoresPerNode": min(max(row.cores for row in alike), _number(limits.get("MaxCPUsPerNode")) or 1 << 30),
            "minMemoryMB": 0,
            "maxMemoryMB": min(
                max(row.memory_mib for row in alike), _number(limits.get("MaxMemPerNode")) or (1 << 31) - 1
            ),
            "minMinutes": 1,
        }
        if alike[0].max_walltime_s:
            queue["maxMinutes"] = max(1, alike[0].max_walltime_s // 60)
        if not alike[0].up:
            found.warnings.append(f"partition {name} is not up now")
        yield queue, alike[0].is_default


def _slurm_facts(found: _Found) -> dict[str, Any]:
    config = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", found.answer("config", "scontrol show config failed"), re.M))
    facts: dict[str, Any] = {
        "slurmVersion": parse_version(found.said["slurm"].text)[0],
        "clusterName": config.get("ClusterName", ""),
        "maxArraySize": _number(config.get("MaxArraySize")),
        "minJobAgeS": _number(config.get("MinJobAge", "").removesuffix(" sec")),
        "accounting": config.get("AccountingStorageType", "").rpartition("/")[2],
    }
    if facts["accounting"] == "none":
        found.warnings.append(
            "the site keeps no job accounting: what Slurm has forgotten is known from the job's own files only"
        )
    accounts = _table(found.answer("accounts", "sacctmgr did not show the accounts of this login"))
    facts["accounts"] = sorted({row[0] for row in accounts if row[0]})
    facts["qosAllowed"] = sorted({name for row in accounts if len(row) > 2 for name in row[2].split(",") if name})
    facts["qos"] = [
        {"name": row[0], "maxMinutes": _minutes(row[1]), "maxJobsPerUser": _number(row[2])}
        for row in _table(found.answer("qos"))
        if len(row) >= 3
    ]
    rows = found.nodes
    facts["gres"] = sorted({f"gpu:{row.gpu_model or ''}:{row.gpus}".replace("::", ":") for row in rows if row.gpus})
    facts["features"] = sorted({name for row in rows for name in row.features})
    facts["partitionQos"] = {
        one["PartitionName"]: one["QoS"]
        for one in oneliners(found.answer("partitions"))
        if one.get("QoS", "N/A") not in ("N/A", "")
    }
    return facts


# -- host and containers ----------------------------------------------------------------------------------------------

_TAPIS_RUNTIMES = {"apptainer": "SINGULARITY", "singularity": "SINGULARITY", "podman": "DOCKER", "docker": "DOCKER"}


def _runtimes(found: _Found) -> list[tuple[str, str | None]]:
    kinds: dict[str, str | None] = {}
    for line in _lines(found.answer("runtimes")):
        name, _, words = line.partition(" ")
        version = re.search(r"\d+(\.\d+)+\S*", words)
        if name in _TAPIS_RUNTIMES:
            kinds.setdefault(_TAPIS_RUNTIMES[name], version[0].rstrip(",") if version else None)
    return list(kinds.items())


_RUNTIME_MODULE = re.compile(r"(?:[\w.+-]+/)*[\w.+-]*(?:apptainer|singularity)[\w.+-]*(?:/v?(\d[\w.+-]*))?")


def _runtimes_to_load(found: _Found) -> list[tuple[str, str | None]]:
    """Apptainer or Singularity where it is a module, with a warning that says how jobs get it."""
    offered = [line.removesuffix("(default)").rstrip() for line in _lines(found.answer("modules"))]
    named = [match for line in offered if (match := _RUNTIME_MODULE.fullmatch(line))]
    if not named:
        return []
    newest = next((match for match in reversed(named) if "apptainer" in match[0]), named[-1])
    found.warnings.append(
        f"the container runtime is a module here, '{newest[0]}': keep that as a scheduler profile "
        f"(berth systems profiles create NAME --load {newest[0]}) and name it in batchSchedulerProfile"
    )
    return [("SINGULARITY", newest[1])]


def _runtime_warnings(found: _Found, runtimes: Sequence[tuple[str, str | None]], has_slurm: bool) -> None:
    if not runtimes:
        found.warnings.append(
            "no container runtime was found on this host (apptainer, singularity, podman, docker): it can run no jobs; "
            "load or install one, then set canExec and jobRuntimes"
        )
    elif found.said["user_namespaces"].exit_status != 0:
        found.warnings.append("user namespaces are off on this host: containers run only if the runtime is set-uid")
    if not has_slurm:
        return
    node = found.said["compute_node"]
    if node.exit_status != 0 and not node.text.strip().startswith("/"):
        words = node.text.strip().splitlines()
        found.warnings.append(
            f"no compute node could be looked at now ({words[-1] if words else 'no answer in time'}): "
            "that the container runtime works there was not seen"
        )
    elif not re.search(r"^/", node.text, re.M):
        if found.answer("runtimes").strip():
            found.warnings.append("neither apptainer nor singularity is in the PATH of a compute node")
    elif "userns" not in node.text:
        found.warnings.append(
            "user namespaces are off on a compute node: containers run only if the runtime is set-uid"
        )


def _directories(found: _Found, login: str) -> dict[str, str]:
    """The working directory: below $WORK where a site has one, else below $HOME; the login's name as a macro."""
    shown = dict(re.findall(r"^(HOME|WORK|SCRATCH|PROJECT)=(/.*)$", found.answer("directories"), re.M))
    base = shown.get("WORK") or shown.get("HOME")
    if base is None:
        found.warnings.append("the home directory is not known; set jobWorkingDir")
        base = "/tmp"  # noqa: S108 - shown for review, with a warning
    parts = ["${EffectiveUserId}" if part == login else part for part in base.split("/")]
    return {"working": "/".join(parts).rstrip("/") + "/berth"}


def _file_systems(found: _Found) -> Iterator[dict[str, Any]]:
    seen = set()
    for line in _lines(found.answer("file_systems", "the file systems could not be listed")):
        words = line.split(None, 6)
        if len(words) == 7 and words[2].isdigit() and words[6] not in seen:
            seen.add(words[6])
            yield {
                "mount": words[6],
                "type": words[1],
                "sizeMiB": int(words[2]) // 1024,
                "freeMiB": int(words[4]) // 1024,
            }


def _system_id(host: str) -> str:
    return re.sub(r"[^A-Za-z0-9._~-]+", "-", host).strip("-.") or "system"


# -- pieces ----------------------------------------------------------------------------------------------------------


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _table(text: str) -> list[list[str]]:
    return [line.split("|") for line in _lines(text)]


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _minutes(text: str) -> int | None:
    try:
        return parse_walltime_s(text) // 60 if text else None
    except ValueError:
        return None
