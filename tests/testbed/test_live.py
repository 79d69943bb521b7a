"""The testbed itself, live: jobs, containers, limits, and the faults that other suites rely on."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed import Cluster, Spec, TestbedError, network
from testbed.cluster import STATE
from testbed.host import run, wait_until
from testbed.pytest_plugin import free_port, shared_cluster

pytestmark = pytest.mark.testbed


def test_a_job_runs_on_all_nodes_at_once(ssh):
    assert sorted(ssh("srun -N4 hostname").split()) == ["n1", "n2", "n3", "n4"]


def test_each_user_logs_in_with_a_key_of_their_own(ssh):
    assert ssh("id -un").strip() == "alice"
    assert ssh("id -un", host="testbed-bob").strip() == "bob"
    assert ssh("hostname", host="n2").strip() == "n2"


def test_a_batch_job_is_accounted_with_its_end(ssh):
    job = ssh("sbatch --parsable --wait --wrap 'exit 3' || true").strip()
    wait_until(lambda: ssh(f"sacct -X -n -P -j {job} -o state,exitcode").strip() == "FAILED|3:0", "sacct knows the end")


def test_a_job_past_its_memory_ends_out_of_memory(cluster, ssh):
    if cluster.info()["cgroup"] == "none":
        pytest.skip("this host offers no control groups with a memory limit")
    eat = "python3 -c 'bytearray(300 << 20)'"
    job = ssh(f'sbatch --parsable --wait --mem=50 --wrap "{eat}" || true').strip()
    wait_until(lambda: ssh(f"sacct -X -n -P -j {job} -o state").strip() == "OUT_OF_MEMORY", "sacct knows the end")


def test_accounts_qos_features_and_partitions_can_be_asked_for(ssh):
    asked = "--account=teaching --qos=express --constraint=fast --partition=debug"
    shown = ssh(f"srun {asked} sh -c 'scontrol show job $SLURM_JOB_ID'")
    assert {"Account=teaching", "QOS=express", "Features=fast", "Partition=debug"} <= set(shown.split())


def test_an_account_one_does_not_have_is_refused(cluster):
    with pytest.raises(TestbedError, match="Invalid account"):
        cluster.sh("login", "sbatch --account=teaching --wrap true", user="bob")


def test_the_demo_image_runs_from_the_registry_on_every_node(cluster, ssh):
    image = cluster.info()["demo_image"]["reference"]
    hello = ssh(f"srun -N4 env APPTAINER_NOHTTPS=1 apptainer -q run {image}")
    assert sorted(line.split()[2] for line in hello.splitlines()) == ["n1,", "n2,", "n3,", "n4,"]
    shown = ssh(f"APPTAINER_NOHTTPS=1 apptainer -q run --no-eval {image} sh -c 'echo $DEMO_IMAGE $DEMO_ENTRYPOINT'")
    assert shown.strip() == "busybox passed"


def test_the_demo_image_has_the_same_digest_whenever_it_is_made(cluster):
    assert cluster.push_demo_image() == cluster.info()["demo_image"]["digest"]


def test_an_image_has_one_name_on_the_host_and_on_every_machine(cluster):
    address, digest = cluster.info()["registry"]["address"], cluster.info()["demo_image"]["digest"]
    ask = ["curl", "-sf", "-H", "Accept: application/vnd.oci.image.manifest.v1+json"]
    manifest = run([*ask, f"http://{address}/v2/demo/busybox/manifests/1"]).stdout
    assert f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}" == digest
    shown = cluster.sh("n2", f"skopeo inspect --format '{{{{.Digest}}}}' docker://{address}/demo/busybox:1")
    assert shown.strip() == digest


def test_slurmrestd_answers_with_a_token_only(cluster, ssh):
    token = ssh("scontrol token lifespan=60").strip().removeprefix("SLURM_JWT=")
    url = cluster.info()["slurmrestd"]["url"] + "/slurm/v0.0.42/ping"
    status = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url]
    assert run(status).stdout == "401"
    assert run([*status, "-H", "X-SLURM-USER-NAME: alice", "-H", f"X-SLURM-USER-TOKEN: {token}"]).stdout == "200"


def test_folders_are_shared_or_local_as_on_a_real_cluster(cluster):
    cluster.sh("n1", "touch /home/alice/seen /shared/seen /tmp/unseen /scratch/unseen", user="alice")
    assert cluster.sh("n2", "ls /home/alice/seen /shared/seen").split() == ["/home/alice/seen", "/shared/seen"]
    assert cluster.sh("n2", "ls /tmp /scratch | grep unseen", check=False) == ""


def test_a_machine_without_power_comes_back_with_its_disk(cluster, ssh):
    cluster.sh("n2", "echo kept > /scratch/kept")
    cluster.crash("n2")
    assert cluster.status()["n2"] == {}
    with pytest.raises(TestbedError, match="no power"):
        cluster.sh("n2", "true")
    cluster.boot("n2")
    assert cluster.sh("n2", "cat /scratch/kept").strip() == "kept"
    assert ssh("srun -w n2 hostname").strip() == "n2"


def test_a_cut_link_is_silence_and_a_healed_one_goes_on(cluster, ssh):
    config = cluster.info()["ssh"]["config"]
    session = subprocess.Popen(
        ["ssh", "-F", config, "testbed", "read line; echo got $line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    ssh("true")
    cluster.cut("login")
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            ssh("true", timeout_s=2)
    finally:
        cluster.heal("login")
    output, _ = session.communicate("words\n", timeout=30)
    assert output.strip() == "got words"


@pytest.mark.slow
def test_jobs_on_lost_nodes_end_as_node_fail(cluster, ssh):
    jobs = [ssh(f"sbatch --parsable --no-requeue -w {node} --wrap 'sleep 300'").strip() for node in ("n2", "n3")]
    wait_until(lambda: set(ssh("squeue -h -t R -o %i").split()) >= set(jobs), "both jobs run")
    cluster.crash("n2")
    cluster.cut("n3")
    try:
        wanted = ["NODE_FAIL", "NODE_FAIL"]
        wait_until(
            lambda: ssh(f"sacct -X -n -P -j {','.join(jobs)} -o state").split() == wanted,
            "both jobs failed",
            timeout_s=120,
        )
    finally:
        cluster.boot("n2")
        cluster.heal("n3")
    wait_until(lambda: ssh("sinfo -h -p cpu -o %T").split() == ["idle"], "all nodes are idle", timeout_s=60)


def test_a_killed_controller_is_seen_and_started_again(cluster, ssh):
    cluster.kill("login", "slurmctld")
    assert cluster.status()["login"]["slurmctld"] is False
    cluster.start("login", "slurmctld")
    assert cluster.status()["login"]["slurmctld"] is True
    wait_until(lambda: ssh("srun -N4 true && echo ran").strip() == "ran", "jobs run again")


def test_an_unknown_machine_or_daemon_is_refused_by_name(cluster):
    with pytest.raises(TestbedError, match="no machine 'n9'"):
        cluster.crash("n9")
    with pytest.raises(TestbedError, match="no daemon 'slurmd' on login"):
        cluster.stop("login", "slurmd")


def test_a_shaped_link_carries_no_more_than_its_rate(cluster):
    cluster.rate("n4", "80mbit")
    try:
        copy = "head -c 10000000 /dev/zero | ssh -o BatchMode=yes n3 'cat > /dev/null'"
        script = f"start=$(date +%s%N); {copy}; echo $((($(date +%s%N) - start) / 1000000))"
        assert int(cluster.sh("n4", script, user="alice")) >= 950  # 80 Mbit at 80 Mbit/s, less the bucket
    finally:
        cluster.rate("n4", "none")


def test_up_again_repairs_what_has_died(cluster, ssh):
    cluster.kill("n1", "slurmd")
    cluster.crash("n3")
    cluster.up()
    assert all(all(daemons.values()) for daemons in cluster.status().values())
    assert sorted(ssh("srun -w n1,n3 -N2 hostname").split()) == ["n1", "n3"]


def test_the_same_name_with_another_shape_is_refused(cluster):
    with pytest.raises(TestbedError, match="another specification"):
        Cluster(Spec(nodes=2, name=cluster.spec.name, ssh_port=cluster.spec.ssh_port)).up()


def test_the_command_line_tells_a_program_everything(cluster):
    argv = [sys.executable, "-m", "testbed", "info", "--json", "--name", cluster.spec.name]
    assert json.loads(run(argv).stdout) == cluster.info()


def test_a_second_cluster_stands_beside_the_first_with_options_of_its_own(cluster, ssh):
    beside = Cluster(
        Spec(
            nodes=2,
            name=f"{cluster.spec.name}b",
            ssh_port=cluster.spec.ssh_port + 50,
            cgroup="none",
            gpus=2,
            rate="400mbit",
            tmpfs=True,
            dbd=False,
        )
    )
    try:
        beside.up()
        assert beside.sh("login", "srun -N1 --gres=gpu:1 printenv CUDA_VISIBLE_DEVICES", user="bob").strip() == "0"
        assert beside.sh("n1", "stat -f -c %T /scratch").strip() == "tmpfs"
        assert "rate 400Mbit" in beside.sh("n1", "tc qdisc show dev eth0")
        assert sorted(ssh("srun -N4 hostname").split()) == ["n1", "n2", "n3", "n4"]
    finally:
        beside.down()
    assert leftovers(beside.spec.name) == []


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "version"), [("sid", "26.05"), ("bookworm", "22.05")])
def test_the_other_suites_run_limited_and_accounted_jobs(cluster, suite, version):
    other = Cluster(Spec(nodes=2, name=f"{cluster.spec.name}s", suite=suite, ssh_port=free_port()))
    try:
        info = other.up()
        assert info["slurm_version"].startswith(version)
        assert sorted(other.sh("login", "srun -N2 hostname", user="alice").split()) == ["n1", "n2"]
        if info["cgroup"] != "none":
            eat = "python3 -c 'bytearray(300 << 20)'"
            other.sh("login", f'sbatch --wait --mem=50 -J eater --wrap "{eat}" || true', user="alice")
            state = "sacct -X -n -P --name eater -o state"
            wait_until(lambda: other.sh("login", state, user="alice").strip() == "OUT_OF_MEMORY", "sacct knows the end")
        if "apptainer" in info["versions"]:
            run_image = f"APPTAINER_NOHTTPS=1 srun -w n2 apptainer -q run {info['demo_image']['reference']}"
            assert other.sh("login", run_image, user="alice").startswith("hello from n2")
    finally:
        other.down()
    assert leftovers(other.spec.name) == []


def test_a_taken_port_is_named(cluster):
    too_close = Cluster(Spec(nodes=1, name=f"{cluster.spec.name}p", ssh_port=cluster.spec.ssh_port))
    with pytest.raises(TestbedError, match=rf"127\.0\.0\.1:{cluster.spec.ssh_port}: Address already in use"):
        too_close.up()
    too_close.down()
    assert leftovers(too_close.spec.name) == []


def test_a_test_session_that_was_killed_is_cleared_away_by_the_next():
    killed = """
import os, signal
from testbed.pytest_plugin import shared_cluster
with shared_cluster(f"killed {os.getpid()}") as running:
    print(running.spec.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    name = run([sys.executable, "-c", killed], check=False).stdout.strip()
    assert (STATE / name / "info.json").exists()
    with shared_cluster(f"next {os.getpid()}") as running:
        assert running.spec.name != name
        assert leftovers(name) == []
    assert leftovers(running.spec.name) == []


def test_down_leaves_nothing_even_after_up_was_killed(cluster, tmp_path):
    """Kill ``up`` at several moments of its life, then look for whatever could be left."""
    spec = Spec(nodes=2, name=f"{cluster.spec.name}k", ssh_port=free_port())
    argv = [sys.executable, "-m", "testbed", "up", "2", "--name", spec.name, "--ssh-port", str(spec.ssh_port)]
    for reached in ("setup.json", "relay.log", "machines/login/init.pid", "info.json"):
        with (tmp_path / "said").open("w") as said:
            starting = subprocess.Popen(argv, stderr=said)
        while not (STATE / spec.name / reached).exists():
            assert starting.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.02)
        starting.send_signal(signal.SIGKILL)
        starting.wait()
        Cluster(spec).down()
        assert leftovers(spec.name) == []


def leftovers(name: str) -> list[str]:
    """Whatever on this host still carries the cluster's name: namespaces, files, control groups, mounts, processes."""
    found = network.namespaces(name)
    found += [str(path) for path in (STATE / name, STATE / f".{name}.lock") if path.exists()]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/berth-{name}")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if f"/{name}/" in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(process.name) != os.getpid() and any(f"/{name}/" in word for word in words):
            found.append(" ".join(words))
    return found
