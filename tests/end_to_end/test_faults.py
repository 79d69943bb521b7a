"""Faults of a real system: people read what is wrong in the system's own words, nothing is lost, nothing runs twice."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster import Cluster
from testbed.server import running
from tests.end_to_end.wire import TERMINAL, Wire

pytestmark = pytest.mark.testbed

FULL_DIR = "/home/alice/full"
_LEAVE = "pkill -KILL -u alice '^sshd' || true"


@pytest.fixture(scope="module")
def cluster(rough_cluster: Cluster) -> Cluster:
    return rough_cluster


@pytest.fixture(scope="module")
def wire(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    hurry = {"watch_min_s": "1", "watch_max_s": "3", "place_interval_s": "1", "refused_login_pause_s": "2"}
    with running(tmp_path_factory.mktemp("berth"), **hurry) as server:
        wire = Wire(server.url)
        wire.register(cluster.info(), "alder")
        wire.register(cluster.info(), "full", jobWorkingDir=FULL_DIR)
        yield wire


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> str:
    return cluster.info()["demo_image"]["from_nodes"]


# -- before submission ---------------------------------------------------------------------------------------------


def test_a_refused_key_blocks_the_job_in_ssh_s_words_until_it_is_accepted_again(
    cluster: Cluster, wire: Wire, image: str
):
    with locked_out(cluster):
        job = wire.submit("true", image=image, execSystemId="alder")
        blocked = wire.await_state(job["uuid"], {"BLOCKED"})
        assert "the login fails: alice@127.0.0.1:" in blocked["lastMessage"]
        assert "Permission denied" in blocked["lastMessage"]
    assert finished_once(wire, job)


def test_a_changed_host_key_names_both_fingerprints_and_sends_nothing(cluster: Cluster, wire: Wire, image: str):
    pinned = fingerprint(cluster)
    with another_host_key(cluster):
        job = wire.submit("true", image=image, execSystemId="alder")
        blocked = wire.await_state(job["uuid"], {"BLOCKED"})
        assert f"pinned is {pinned}, the host shows {fingerprint(cluster)}" in blocked["lastMessage"]
        assert "alice" not in cluster.sh("login", "cat /var/log/sshd.log"), "no key was offered to a stranger"
    assert finished_once(wire, job)


def test_a_key_of_another_user_is_refused_at_registration_in_ssh_s_words(cluster: Cluster, wire: Wire):
    stranger = Path(cluster.info()["ssh"]["users"]["bob"]["key"]).read_text()
    answer = wire.http.post(
        "/v3/systems/credential/alder/user/admin", json={"loginUser": "alice", "privateKey": stranger}
    )
    assert answer.status_code == 400
    assert "alice@127.0.0.1:" in answer.json()["message"]
    assert "Permission denied" in answer.json()["message"]


@pytest.mark.parametrize("limit", ["nr_inodes=1", "size=4k"])
def test_a_full_file_system_blocks_the_job_in_its_own_words_until_there_is_room(
    cluster: Cluster, wire: Wire, image: str, limit: str
):
    with full_file_system(cluster, limit):
        job = wire.submit("true", image=image, execSystemId="full")
        blocked = wire.await_state(job["uuid"], {"BLOCKED"})
        assert "No space left on device" in blocked["lastMessage"]
    assert finished_once(wire, job)


def test_without_slurmctld_a_submission_waits_and_says_so(cluster: Cluster, wire: Wire, image: str):
    with stopped(cluster, "slurmctld"):
        job = wire.submit("true", image=image, execSystemId="alder")
        waiting = await_words(wire, job, "slurm")
        assert waiting["status"] in {"BLOCKED", "SUBMITTING_JOB"}
    assert finished_once(wire, job)


# -- after submission ----------------------------------------------------------------------------------------------


def test_without_slurmctld_a_queued_job_stays_queued_and_says_since_when(cluster: Cluster, wire: Wire, image: str):
    later = {"schedulerOptions": [{"name": "later", "arg": "--begin=now+10", "inputMode": "INCLUDE_BY_DEFAULT"}]}
    job = wire.submit("true", image=image, execSystemId="alder", parameterSet=later)
    wire.await_state(job["uuid"], {"QUEUED"})
    with stopped(cluster, "slurmctld"):
        waiting = await_words(wire, job, "not reachable since", timeout_s=90)
        assert waiting["status"] == "QUEUED"
        assert "squeue" in waiting["lastMessage"]
    assert finished_once(wire, job)


def test_a_login_node_without_power_costs_no_running_job(cluster: Cluster, wire: Wire, image: str):
    job = wire.submit("sleep 20; echo survived", image=image, execSystemId="alder")
    wire.await_state(job["uuid"], {"RUNNING"})
    with powerless(cluster, "login"):
        waiting = await_words(wire, job, "not reachable since", timeout_s=90)
        assert waiting["status"] == "RUNNING"
    assert finished_once(wire, job)
    assert wire.output(job["uuid"]) == "survived\n"


# -- hostile text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_the_hostile_text_acts_wherever_a_shell_evaluates_it(cluster: Cluster, quote: str):
    cluster.sh("login", f"echo {quote}{hostile('control')}{quote}", user="alice", check=False)
    try:
        assert canaries(cluster) == "/shared/ran.control\n"
    finally:
        cluster.sh("login", "rm -f /shared/ran.control")


def test_hostile_text_reaches_the_job_as_text(cluster: Cluster, wire: Wire, image: str):
    texts = {field: hostile(field) for field in ("name", "description", "argument", "variable", "note")}
    job = wire.submit(
        "ignored",
        image=image,
        execSystemId="alder",
        name=texts["name"][:63],
        description=texts["description"],
        tags=[texts["note"]],
        berth={"command": ["sh", "-c", 'printf "%s\\n" "$1" "$HOSTILE"', "sh", texts["argument"]]},
        parameterSet={"envVariables": [{"key": "HOSTILE", "value": texts["variable"]}]},
    )
    assert wire.finish(job["uuid"])["status"] == "FINISHED"
    assert wire.output(job["uuid"]) == f"{texts['argument']}\n{texts['variable']}\n"
    assert canaries(cluster) == ""


@pytest.mark.parametrize("field", ["queue", "account", "comment", "image", "directory", "stdout"])
def test_hostile_text_in_a_word_for_slurm_or_a_path_is_refused_or_stays_text(
    cluster: Cluster, wire: Wire, image: str, field: str
):
    text = hostile(field)
    changes: dict[str, Any] = {
        "queue": {"execSystemLogicalQueue": text},
        "account": {"parameterSet": {"schedulerOptions": [{"name": "account", "arg": f"--account={text}"}]}},
        "comment": {
            "parameterSet": {"schedulerOptions": [{"name": "comment", "arg": f"--comment {shlex.quote(text)}"}]}
        },
        "image": {"notes": {"berth": {"image": f"{image}{text}", "command": ["true"]}}},
        "directory": {"execSystemOutputDir": f"${{JobWorkingDir}}/{text}/${{JobUUID}}"},
        "stdout": {"parameterSet": {"logConfig": {"stdoutFilename": text}}},
    }[field]
    body = {"name": "hostile", "appId": "berth.image", "appVersion": "1", "execSystemId": "alder"}
    body["notes"] = {"berth": {"image": image, "command": ["true"]}}
    answer = wire.http.post("/v3/jobs/submit", json={**body, **changes})
    assert answer.status_code < 500, answer.text
    if answer.is_success:
        wire.finish(answer.json()["result"]["uuid"])
    assert canaries(cluster) == ""


def hostile(field: str) -> str:
    """Text that makes a canary named after the field wherever a shell evaluates it."""
    canary = f">/shared/ran.{field}"
    return f"$({canary})'$({canary})'\";{canary};\"`{canary}`;*?~$HOME%j\\*"


def canaries(cluster: Cluster) -> str:
    return cluster.sh("login", "ls -d /shared/ran.* 2>/dev/null", check=False)


# -- what is watched -----------------------------------------------------------------------------------------------


def await_words(wire: Wire, job: dict[str, Any], words: str, timeout_s: float = 60) -> dict[str, Any]:
    """The job once its last message holds ``words``."""
    until = time.monotonic() + timeout_s
    while words not in (seen := wire.get(f"/v3/jobs/{job['uuid']}"))["lastMessage"]:
        assert seen["status"] not in TERMINAL, f"ended {seen['status']}: {seen['lastMessage']}"
        assert time.monotonic() < until, f"still {seen['status']}: {seen['lastMessage']}"
        time.sleep(0.2)
    return seen


def finished_once(wire: Wire, job: dict[str, Any]) -> bool:
    """Whether the job ends well and its run started exactly once."""
    ended = wire.finish(job["uuid"])
    assert ended["status"] == "FINISHED", ended["lastMessage"]
    history = wire.get(f"/v3/jobs/{job['uuid']}/history", limit=100)
    return [line["eventDetail"] for line in history].count("RUNNING") == 1


# -- faults --------------------------------------------------------------------------------------------------------


@contextmanager
def locked_out(cluster: Cluster) -> Iterator[None]:
    """alice's key opens nothing, and who was in is out."""
    cluster.sh("login", f"mv ~alice/.ssh/authorized_keys ~alice/.ssh/put_away; {_LEAVE}")
    try:
        yield
    finally:
        cluster.sh("login", "mv ~alice/.ssh/put_away ~alice/.ssh/authorized_keys")


@contextmanager
def another_host_key(cluster: Cluster) -> Iterator[None]:
    """sshd on the login machine shows a new key; its log begins anew. Who was in is out."""
    key = "/etc/ssh/ssh_host_ed25519_key"
    cluster.stop("login", "sshd")
    cluster.sh("login", f"{_LEAVE}; mkdir /root/away; mv {key} {key}.pub /root/away; : > /var/log/sshd.log")
    cluster.sh("login", f"ssh-keygen -q -t ed25519 -N '' -f {key}")
    cluster.start("login", "sshd")
    try:
        yield
    finally:
        cluster.stop("login", "sshd")
        cluster.sh("login", "mv -f /root/away/* /etc/ssh/; rmdir /root/away")
        cluster.start("login", "sshd")


def fingerprint(cluster: Cluster) -> str:
    shown = cluster.sh("login", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key")
    found = re.search(r"SHA256:\S+", shown)
    assert found is not None, shown
    return found[0]


@contextmanager
def full_file_system(cluster: Cluster, limit: str) -> Iterator[None]:
    """Where the system ``full`` keeps its jobs there is no room: for no directory, or for no byte."""
    mount = f"mount -t tmpfs -o uid=2001,{limit} tmpfs {FULL_DIR}"
    cluster.sh("login", f"mkdir -p {FULL_DIR} && chown alice: {FULL_DIR} && {mount}")
    cluster.sh("login", f"head -c 4096 /dev/zero > {FULL_DIR}/fill", check=False)
    try:
        yield
    finally:
        cluster.sh("login", f"umount {FULL_DIR}")


@contextmanager
def stopped(cluster: Cluster, daemon: str) -> Iterator[None]:
    cluster.stop("login", daemon)
    try:
        yield
    finally:
        cluster.start("login", daemon)


@contextmanager
def powerless(cluster: Cluster, machine: str) -> Iterator[None]:
    cluster.crash(machine)
    try:
        yield
    finally:
        cluster.boot(machine)
