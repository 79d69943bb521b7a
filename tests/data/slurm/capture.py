"""Capture what a cluster answers to the commands of ``backends.slurm``, one file per command.

    python -m tests.data.slurm.capture SSH_CONFIG tests/data/slurm/trixie-24.11.5 JOB_ID...

Each file begins with the command that made it, after ``# ``; ``\\x1f`` stands for the separator there.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from backends.slurm import cluster, offers, probe, sbatch, text
from scheduler.model.runs import Resources

PARTS = ("partitions", "config", "qos", "accounts")
OFFERS = {
    "reservations": offers.RESERVATIONS_ARGV,
    "licences": offers.LICENCES_ARGV,
    "allocations": offers.ALLOCATIONS_ARGV,
}


def main(config: str, folder: Path, ids: list[str]) -> None:
    version = run(config, text.VERSION_ARGV)
    row = text.dialect(text.parse_version(version)[1])
    commands = {
        "version": text.VERSION_ARGV,
        "squeue": text.squeue_argv(),
        "sacct": text.sacct_argv(row, ids),
        "sinfo": cluster.SINFO_ARGV,
        "visible": cluster.SQUEUE_ARGV,
        "starts": sbatch.test_only_argv("cpu", Resources(), ()),
        **OFFERS,
        **{part: probe.COMMANDS[part] for part in PARTS},
    }
    folder.mkdir(exist_ok=True)
    for name, argv in commands.items():
        shown = shlex.join(argv).replace(text.US, "\\x1f")
        (folder / f"{name}.out").write_text(f"# {shown}\n{run(config, argv)}")


def run(config: str, argv) -> str:
    command = f"SLURM_TIME_FORMAT=%s SLURM_BITSTR_LEN=0 {shlex.join(argv)} 2>&1"
    return subprocess.run(["ssh", "-F", config, "testbed", command], check=True, stdout=-1, text=True).stdout


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
