"""A toy Slurm for tests: sbatch, squeue, sacct, scancel and sinfo over a directory, with jobs as real processes.

``python3 toy_slurm.py DIRECTORY TOOL ARGUMENT...``

It answers as Slurm does for the options that Berth uses, and misbehaves when a file in its directory says so:
``sbatch.hangs``, ``sbatch.loses`` (takes the job, then says that the socket timed out), ``sbatch.refuses`` (holds the
message), ``down`` (nobody answers), ``sacct.down``, ``no.accounting``, ``queue.forgets`` (squeue shows nothing),
``queue.holds`` (nothing starts), ``word.<id>`` (the state it claims for a job).
"""

import fcntl
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
NO_CONTROLLER = "Unable to contact slurm controller (connect failure)"


def flag(name: str) -> bool:
    return (HOME / name).exists()


def options(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    said, rest = {}, []
    for word in argv:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            said[name[2:]] = value
        else:
            rest.append(word)
    return said, rest


def fields_of(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.name != "log" and file.suffix != ".new"}


def state_of(job: dict[str, str]) -> tuple[str, str]:
    """State and ExitCode of a job: its process tells."""
    word = HOME / f"word.{job['id']}"
    if word.exists():
        return word.read_text(), "0:0"
    if "cancelled" in job:
        return "CANCELLED", "0:15"
    if "code" in job:
        code = int(job["code"])
        return ("COMPLETED", "0:0") if code == 0 else ("FAILED", f"{code}:0")
    return "RUNNING", "0:0"


def jobs() -> list[dict[str, str]]:
    return [
        fields_of(folder) | {"id": folder.name}
        for folder in sorted((HOME / "jobs").iterdir(), key=lambda f: int(f.name))
    ]


def named(said: dict[str, str]) -> list[dict[str, str]]:
    found = [job for job in jobs() if "name" not in said or job["name"] == said["name"]]
    return [job for job in found if "jobs" not in said or job["id"] in said["jobs"].split(",")]


def sbatch(said: dict[str, str], rest: list[str]) -> int:
    if flag("down"):
        print(f"sbatch: error: Batch job submission failed: {NO_CONTROLLER}", file=sys.stderr)
        return 1
    if flag("sbatch.hangs"):
        time.sleep(100)
    if flag("sbatch.refuses") and said["job-name"] in (HOME / "sbatch.refuses").read_text().split():
        print(
            "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
            file=sys.stderr,
        )
        return 1
    with (HOME / "next").open("r+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        number = int(counter.read())
        counter.seek(0)
        counter.write(str(number + 1))
    folder = HOME / "jobs" / str(number)
    new = HOME / f"new.{number}"
    new.mkdir()
    (new / "name").write_text(said["job-name"])
    (new / "submitted").write_text(str(int(time.time())))
    new.rename(folder)
    held = 'while [ -e "$5" ]; do sleep 0.02; done; '
    run = held + 'sh "$1" >>"$2" 2>>"$3"; echo $? >"$4/code.new"; date +%s >"$4/ended"; mv "$4/code.new" "$4/code"'
    process = subprocess.Popen(
        ["sh", "-c", run, "job", rest[0], said["output"], said["error"], str(folder), str(HOME / "queue.holds")],
        env={**os.environ, "SLURM_JOB_ID": str(number)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=said["chdir"],
        start_new_session=True,
    )
    (folder / "pid.new").write_text(str(process.pid))
    (folder / "pid.new").rename(folder / "pid")
    if flag("sbatch.loses"):
        print("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", file=sys.stderr)
        return 1
    print(number)
    return 0


def squeue(said: dict[str, str], rest: list[str]) -> int:
    if "version" in said:
        print("slurm-wlm 24.11.5")
        return 0
    if flag("down"):
        print(f"slurm_load_jobs error: {NO_CONTROLLER}", file=sys.stderr)
        return 1
    if flag("queue.forgets"):
        return 0
    for job in named(said):
        state, _ = state_of(job)
        columns = {
            "%F": job["id"], "%K": "N/A", "%j": job["name"], "%T": state, "%r": "None", "%V": job["submitted"],
            "%S": job["submitted"], "%e": job.get("ended", "").strip() or "N/A", "%N": "toy1", "%P": "cpu", "%D": "1",
            "%C": "1", "%l": "10:00", "%Q": "1", "%u": pwd.getpwuid(os.getuid()).pw_name,
        }  # fmt: skip
        print(re.sub("%[a-zA-Z]", lambda match, row=columns: row[match[0]], said["format"]))
    return 0


def sacct(said: dict[str, str], rest: list[str]) -> int:
    if flag("no.accounting"):
        print("Slurm accounting storage is disabled", file=sys.stderr)
        return 1
    if flag("sacct.down"):
        print("sacct: error: Problem talking to the database: Connection refused", file=sys.stderr)
        return 1
    for job in named(said):
        state, code = state_of(job)
        columns = {
            "JobID": job["id"], "JobName": job["name"], "State": state, "ExitCode": code, "Submit": job["submitted"],
            "Start": job["submitted"], "End": job.get("ended", "").strip() or "Unknown", "NodeList": "toy1",
            "MaxRSS": "", "Restarts": "0",
        }  # fmt: skip
        print(said["delimiter"].join(columns[name] for name in said["format"].split(",")))
    return 0


def scancel(said: dict[str, str], rest: list[str]) -> int:
    if flag("down"):
        print(f"scancel: error: slurm_kill_job2 error: {NO_CONTROLLER}", file=sys.stderr)
        return 1
    folder = HOME / "jobs" / rest[0]
    if not folder.exists() or state_of(job := fields_of(folder) | {"id": rest[0]})[0] != "RUNNING":
        print(f"scancel: error: Kill job error on job id {rest[0]}: Invalid job id specified", file=sys.stderr)
        return 1
    if job["name"] == said["name"]:
        (folder / "ended").write_text(str(int(time.time())))
        (folder / "cancelled").touch()
        os.killpg(int(job["pid"]), signal.SIGTERM)
    return 0


def sinfo(said: dict[str, str], rest: list[str]) -> int:
    if flag("down"):
        print(f"slurm_load_partitions: {NO_CONTROLLER}", file=sys.stderr)
        return 1
    columns = {
        "%R": "cpu", "%P": "cpu*", "%a": "up", "%l": "1-00:00:00", "%L": "10:00", "%s": "1-infinite", "%c": "4",
        "%m": "4000", "%G": "(null)", "%f": "(null)", "%D": "2", "%T": "idle", "%C": "0/8/0/8",
    }  # fmt: skip
    print(re.sub("%[a-zA-Z]", lambda match: columns[match[0]], said["format"]))
    return 0


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[2]](*options(sys.argv[3:])))
