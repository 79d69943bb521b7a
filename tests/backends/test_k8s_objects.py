"""What a run becomes on Kubernetes, and what cannot be asked for there."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backends.k8s import objects
from backends.k8s.capacity import PARTITION, quantity, snapshot_of
from backends.k8s.policies import policy
from backends.k8s.site import Access, Site, access_of, site_of
from scheduler.model.errors import NotAuthorised, SpecInvalid, UnexpectedReply
from scheduler.model.ids import marker_for
from scheduler.model.runs import ArraySpec, Mount, Resources, RunSpec, Runtime, SchedulerOption, Share
from scheduler.model.systems import Credential, System

MARKER = marker_for("6f1c1fd4-94a3-4b52-9d4f-2f1d2f0e7c11-007", 2)
DATA = Path(__file__).parent.parent / "data/k8s/v1.36"
RUN = RunSpec(
    job_uuid="6f1c1fd4-94a3-4b52-9d4f-2f1d2f0e7c11-007",
    name="n",
    image="docker://registry.example.org/lab/tool:1.2",
    args=("run", "--all"),
    env={"GREETING": "$(HOME) 'hi'\nthere"},
    resources=Resources(cores_per_node=2, memory_mib=4096, walltime_s=900),
    exec_dir="/work/jobs/1/exec",
    input_dir="/work/jobs/1/in",
    output_dir="/work/jobs/1/out",
)
SITE = Site(volume="berth-files")


def job(site: Site = SITE, **changes: object) -> dict:
    return objects.job(MARKER, replace(RUN, **changes), site, "/work")


def pod(site: Site = SITE, **changes: object) -> dict:
    return job(site, **changes)["spec"]["template"]["spec"]


def main(site: Site = SITE, **changes: object) -> dict:
    return pod(site, **changes)["containers"][0]


def test_the_name_of_the_job_is_the_marker_and_nothing_vanishes_unseen():
    made = job()
    assert made["metadata"]["name"] == MARKER
    assert len(MARKER) <= 63
    assert made["metadata"]["finalizers"] == [objects.KEPT]
    assert made["spec"]["template"]["metadata"]["finalizers"] == [objects.KEPT]
    assert objects.is_ours(made, MARKER)
    assert not objects.is_void(made)


def test_one_pod_is_tried_once_and_ends_at_its_walltime():
    made = job()["spec"]
    assert (made["parallelism"], made["completions"], made["backoffLimit"]) == (1, 1, 0)
    assert made["podReplacementPolicy"] == "Failed"
    assert "activeDeadlineSeconds" not in made, "a Job's clock runs while it waits, a pod's does not"
    assert (pod()["restartPolicy"], pod()["activeDeadlineSeconds"]) == ("Never", 900)


def test_a_void_job_has_the_same_name_and_starts_nothing():
    void = objects.void_job(MARKER)
    assert void["metadata"]["name"] == MARKER
    assert void["spec"]["parallelism"] == 0
    assert objects.is_void(void)


def test_containers_are_nobody_special():
    assert pod()["securityContext"] == {
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert main()["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert pod()["automountServiceAccountToken"] is False


def test_words_of_the_user_are_expanded_by_nobody():
    made = main(args=("echo", "$(PATH)", "$$", "a b; rm -rf /"))
    assert made["args"] == ["echo", "$$(PATH)", "$$$$", "a b; rm -rf /"]
    assert "command" not in made
    assert main(use_entrypoint=False)["command"] == ["run", "--all"]


def test_variables_travel_in_a_secret_and_nowhere_else():
    secret = objects.environment(MARKER, RUN)
    assert secret["stringData"] == {"GREETING": "$(HOME) 'hi'\nthere"}
    assert main()["envFrom"] == [{"secretRef": {"name": MARKER}}]
    assert "there" not in json.dumps(job())
    assert objects.environment(MARKER, replace(RUN, env={})) is None
    assert "envFrom" not in main(env={})


def test_directories_lie_on_the_volume_or_go_with_the_pod():
    on_volume = {mount["mountPath"]: mount["subPath"] for mount in main()["volumeMounts"]}
    assert on_volume["/TapisOutput"] == "jobs/1/out"
    assert pod()["volumes"] == [{"name": "work", "persistentVolumeClaim": {"claimName": "berth-files"}}]
    assert pod(Site())["volumes"] == [{"name": "work", "emptyDir": {}}]
    more = main(mounts=(Mount(source="/work/data", target="/data", read_only=True),))["volumeMounts"][-1]
    assert more == {"name": "work", "mountPath": "/data", "subPath": "data", "readOnly": True}


def test_a_claim_of_the_cluster_is_mounted_itself_with_a_shared_volume_or_without():
    data = Mount(source="", target="/data", claim="archive")
    part = Mount(source="a/b", target="/part", claim="archive", read_only=True)
    for site in (SITE, Site()):
        made = pod(site, mounts=(data, part))
        *_, volume = made["volumes"]
        assert volume["persistentVolumeClaim"] == {"claimName": "archive"}
        mounts = made["containers"][0]["volumeMounts"][-2:]
        assert mounts == [
            {"name": volume["name"], "mountPath": "/data", "subPath": "", "readOnly": False},
            {"name": volume["name"], "mountPath": "/part", "subPath": "a/b", "readOnly": True},
        ]


def test_no_part_of_a_volume_is_mounted_where_a_link_in_it_could_lead_to_files_of_others():
    part = Mount(source="/work/pod-volumes/dev/v/x", target="/x", root="/work/pod-volumes/dev/v")
    with pytest.raises(SpecInvalid, match="link"):
        job(mounts=(part,))
    copies = replace(part, is_kept=True)
    assert main(mounts=(copies,))["volumeMounts"][-1]["subPath"] == "pod-volumes/dev/v/x", "Berth alone writes those"
    assert main(mounts=(replace(part, source=part.root),))["volumeMounts"][-1]["subPath"] == "pod-volumes/dev/v"


def test_resources_are_asked_for_and_are_the_limit_but_those_of_pods():
    made = main(resources=Resources(cores_per_node=3, memory_mib=512, gpus_per_node=2, gpu_model="A100"))
    assert made["resources"]["limits"] == {"cpu": "3", "memory": "512Mi", "nvidia.com/gpu": "2"}
    assert made["resources"]["requests"] == made["resources"]["limits"]
    share = Share(request_millicores=250, limit_millicores=2000, request_memory_mib=256, limit_memory_mib=3072)
    made = main(share=share, resources=Resources(gpus_per_node=1))
    assert made["resources"]["requests"] == {"cpu": "250m", "memory": "256Mi", "nvidia.com/gpu": "1"}
    assert made["resources"]["limits"] == {"cpu": "2000m", "memory": "3072Mi", "nvidia.com/gpu": "1"}
    gpu = pod(resources=Resources(gpus_per_node=1, gpu_model="A100"))
    assert gpu["nodeSelector"] == {"nvidia.com/gpu.product": "A100"}


def test_tasks_of_an_array_are_numbered_and_fail_alone():
    made = job(array=ArraySpec((0, 1, 2, 3), limit=2))["spec"]
    assert (made["completions"], made["parallelism"], made["completionMode"]) == (4, 2, "Indexed")
    assert made["backoffLimitPerIndex"] == 0
    assert "backoffLimit" not in made


def test_several_nodes_are_as_many_pods_apart():
    asked = Resources(nodes=3)
    made = job(resources=asked)["spec"]
    assert (made["completions"], made["parallelism"], made["completionMode"]) == (3, 3, "Indexed")
    term = pod(resources=asked)["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert term["topologyKey"] == "kubernetes.io/hostname"


def test_low_ports_are_opened_to_a_user_where_nodes_let_pods_ask_for_it():
    asked = objects.job(MARKER, replace(RUN, ports=(80,)), SITE, "/work", opens_low_ports=True)
    assert asked["spec"]["template"]["spec"]["securityContext"]["sysctls"][0]["value"] == "0"
    assert "sysctls" not in pod(ports=(80,))["securityContext"]


def test_where_a_queue_admits_jobs_they_begin_suspended():
    made = job(Site(queue="lab"))
    assert made["spec"]["suspend"] is True
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "lab"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image": "/images/tool.sif"}, "image"),
        ({"image": "library://lab/tool"}, "image"),
        ({"image": "docker://-rm"}, "image"),
        ({"runtime": Runtime.NONE}, "image"),
        ({"args": (), "use_entrypoint": False}, "appArgs"),
        ({"args": ("a\0b",)}, "appArgs"),
        ({"container_args": ("--privileged",)}, "containerArgs"),
        ({"scheduler_options": (SchedulerOption("--qos", "x"),)}, "schedulerOptions"),
        ({"is_mpi": True}, "isMpi"),
        ({"cmd_prefix": "nice"}, "cmdPrefix"),
        ({"gate_s": 60}, "notes.berth.hedge"),
        ({"array": ArraySpec((0, 1)), "resources": Resources(nodes=2)}, "nodeCount"),
        ({"mounts": (Mount(source="/etc", target="/x"),)}, "mounts"),
        ({"mounts": (Mount(source="/work/../etc", target="/x"),)}, "mounts"),
        ({"output_dir": "/elsewhere"}, "mounts"),
    ],
)
def test_what_kubernetes_cannot_do_is_refused_by_the_name_of_the_field(changes, field):
    with pytest.raises(SpecInvalid) as raised:
        job(**changes)
    assert [problem.field for problem in raised.value.problems] == [field]


@pytest.mark.parametrize("env", [{"A-B": "1"}, {"A": "x\0y"}, {"1A": "x"}])
def test_a_variable_that_no_container_could_have_is_refused(env):
    with pytest.raises(SpecInvalid, match="envVariables"):
        objects.environment(MARKER, replace(RUN, env=env))


# -- what the notes of a system say ------------------------------------------------------------------------------------


def system(notes: object, **changes: object) -> System:
    berth = {"backend": "k8s", **({} if notes is None else {"k8s": notes})}
    return System(tenant="t", id="kube", uuid="u", owner="o", host="api.example.org", notes={"berth": berth}, **changes)


def test_notes_say_where_jobs_run_and_nothing_is_needed():
    assert site_of(system(None)) == Site()
    site = site_of(
        system({"namespace": "lab", "volume": "files", "runAsUser": 2000, "nodeSelector": {"pool": "batch"}})
    )
    assert (site.namespace, site.volume, site.run_as, dict(site.node_selector)) == (
        "lab",
        "files",
        2000,
        {"pool": "batch"},
    )


@pytest.mark.parametrize(
    ("notes", "field"),
    [
        ([], "notes.berth.k8s"),
        ({"namespce": "x"}, "notes.berth.k8s.namespce"),
        ({"namespace": "../kube-system"}, "notes.berth.k8s.namespace"),
        ({"runAsUser": 0}, "notes.berth.k8s.runAsUser"),
        ({"runAsUser": True}, "notes.berth.k8s.runAsUser"),
        ({"nodeSelector": {"a b": "c"}}, "notes.berth.k8s.nodeSelector.a b"),
        ({"caCert": "/etc/ssl/cert.pem"}, "notes.berth.k8s.caCert"),
        ({"helperImage": "-x"}, "notes.berth.k8s.helperImage"),
        ({"imagePullSecrets": "one"}, "notes.berth.k8s.imagePullSecrets"),
        ({"nodePorts": "yes"}, "notes.berth.k8s.nodePorts"),
        ({"ingress": "pods.example.org"}, "notes.berth.k8s.ingress"),
        ({"ingress": {"className": "nginx"}}, "notes.berth.k8s.ingress"),
        ({"ingress": {"domain": "pods.example.org", "annotations": {}}}, "notes.berth.k8s.ingress"),
        ({"ingress": {"domain": "Pods Example"}}, "notes.berth.k8s.ingress.domain"),
        ({"ingress": {"domain": "a." * 120 + "org"}}, "notes.berth.k8s.ingress.domain"),
        ({"ingress": {"domain": "pods.example.org", "tlsSecret": "../x"}}, "notes.berth.k8s.ingress.tlsSecret"),
        ({"admitNetworks": ["everyone"]}, "notes.berth.k8s.admitNetworks"),
        ({"gateway": {"domain": "pods.example.org"}}, "notes.berth.k8s.gateway"),
        ({"gateway": {"domain": "pods.example.org", "name": None}}, "notes.berth.k8s.gateway.name"),
        ({"gateway": {"domain": "pods.example.org", "name": "a/b"}}, "notes.berth.k8s.gateway.name"),
        ({"gateway": {"domain": "pods.example.org", "name": "a", "hostnames": []}}, "notes.berth.k8s.gateway"),
        ({"admitNamespaces": "ingress-nginx"}, "notes.berth.k8s.admitNamespaces"),
    ],
)
def test_notes_that_cannot_be_meant_are_refused_by_the_name_of_the_field(notes, field):
    with pytest.raises(SpecInvalid) as raised:
        site_of(system(notes))
    assert [problem.field for problem in raised.value.problems] == [field]


def test_a_login_is_a_bearer_token_over_tls_and_is_never_shown():
    blank = Credential(tenant="t", system_id="kube", user="ann", login_user="ann")
    access = access_of(system(None, port=6443), replace(blank, password="s3cret"))
    assert access == Access("https://api.example.org:6443", "s3cret", None)
    assert "s3cret" not in repr(access)
    with pytest.raises(NotAuthorised, match="accessToken"):
        access_of(system(None), replace(blank, private_key="k"))


# -- what a cluster offers ---------------------------------------------------------------------------------------------


def node(name: str, *, cpu: str = "8", memory: str = "16Gi", gpus: int = 0, **changes: object) -> dict:
    offer = {"cpu": cpu, "memory": memory, **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    ready = [{"type": "Ready", "status": changes.get("ready", "True")}]
    return {
        "metadata": {"name": name, "labels": changes.get("labels", {})},
        "spec": {"taints": changes.get("taints", [])},
        "status": {"allocatable": offer, "conditions": ready},
    }


def taken(on: str | None, cpu: str, owner: str = "Job") -> dict:
    about = {"name": "p", "uid": "u", "namespace": "x", "ownerReferences": [{"kind": owner, "uid": "o"}]}
    about["creationTimestamp"] = "2026-11-22T00:41:10Z"
    spec = {"containers": [{"resources": {"requests": {"cpu": cpu}}}], **({"nodeName": on} if on else {})}
    return {"metadata": about, "spec": spec, "status": {"phase": "Running" if on else "Pending"}}


NOW = datetime(2026, 11, 22, tzinfo=UTC)


def test_nodes_that_are_alike_are_one_kind_and_what_is_taken_is_taken_off():
    nodes = [node("a"), node("b"), node("c"), node("g", gpus=4), node("gone", ready="Unknown")]
    pods = [taken("a", "1500m"), taken("b", "100m", owner="DaemonSet"), taken(None, "2")]
    seen = snapshot_of(NOW, "v1.36.2", (1, 36), nodes, pods, Site())
    plain, gpu = seen.nodes
    assert (plain.cores, plain.memory_mib, plain.total, plain.down, plain.free) == (8, 16_384, 4, 1, 2)
    assert plain.free_cores == 6 + 7 + 8
    assert (gpu.gpus, gpu.free) == (4, 1)
    assert [(one.running, one.cores) for one in seen.jobs] == [(True, 1), (False, 2)]
    assert seen.partitions[0].name == PARTITION


def test_nodes_that_are_tainted_or_not_selected_take_nothing():
    closed = node("a", taints=[{"key": "x", "effect": "NoSchedule"}])
    seen = snapshot_of(NOW, "v1.36.2", (1, 36), [closed, node("b")], [], Site(node_selector={"pool": "batch"}))
    assert seen.nodes == ()
    assert not seen.partitions[0].up
    assert snapshot_of(NOW, "v1.36.2", (1, 36), [closed], [], Site()).nodes[0].down == 1


@pytest.mark.parametrize(("number", "most_nodes"), [((1, 36), None), ((1, 28), None), ((1, 21), 1)])
def test_placement_is_told_what_a_server_is_too_old_for(number, most_nodes):
    seen = snapshot_of(NOW, f"v{number[0]}.{number[1]}.0", number, [node("a")], [], Site())
    assert seen.partitions[0].max_nodes == most_nodes


def test_a_recorded_list_of_nodes_is_read():
    nodes = json.loads((DATA / "nodes.list.json").read_text())["items"]
    (kind,) = snapshot_of(NOW, "v1.36.2", (1, 36), nodes, [], Site()).nodes
    assert (kind.total, kind.free) == (2, 2)


def test_amounts_are_read_as_kubernetes_writes_them():
    assert [quantity(text) for text in ("2", "500m", "1Ki", "1k", "1e3", "0")] == [2, 0.5, 1024, 1000, 1000, 0]
    with pytest.raises(UnexpectedReply):
        quantity("lots")


def test_the_policy_of_a_site_denies_what_its_notes_name_and_always_the_metadata():
    site = site_of(system({"denyEgress": ["10.0.0.0/8", "fd12::/16"]}))
    ways = policy(site)["spec"]["egress"][1]["to"]
    assert [way["ipBlock"]["except"] for way in ways] == [
        ["169.254.169.254/32", "10.0.0.0/8"],
        ["fd00:ec2::254/128", "fd12::/16"],
    ]
    assert [way["ipBlock"]["cidr"] for way in policy(Site(denied=("0.0.0.0/0",)))["spec"]["egress"][1]["to"]] == [
        "::/0"
    ]


@pytest.mark.parametrize("notes", [{"denyEgress": "10.0.0.0/8"}, {"denyEgress": ["10.1.0.0/8"]}, {"networkPolicy": 1}])
def test_networks_that_cannot_be_meant_are_refused(notes):
    with pytest.raises(SpecInvalid, match=next(iter(notes))):
        site_of(system(notes))
