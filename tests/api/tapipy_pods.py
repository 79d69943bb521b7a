"""Pods by an unmodified tapipy, from the first login to the last deletion. Run by its own Python.

BASE_URL, BERTH_USER and PASSWORD come from the environment. Prints one line a step; the exit status is 0 only when
every step held.
"""

import io
import os
import sys

from tapipy import errors
from tapipy.tapis import Tapis


def step(name, condition, shown=""):
    print(f"{'ok  ' if condition else 'FAIL'} {name} {shown}", flush=True)
    if not condition:
        sys.exit(1)


def refused(kind, call, name, **kwargs):
    try:
        call(**kwargs)
    except kind as error:
        step(name, bool(error.message), error.message)
    else:
        step(name, False)


def quickstart(t):
    """As it is published: a template by its old name, which newer releases drop on the way."""
    pod = t.pods.create_pod(pod_id="docpod", pod_template="template/neo4j", description="A graph")
    step("create_pod", pod.pod_id == "docpod" and pod.template.startswith("neo4j:latest@"), pod.template)
    step("a pod says its url", pod.networking.default.url == "docpod.pods.localhost", pod.url)
    step("get_pod", t.pods.get_pod(pod_id="docpod").status == "REQUESTED")
    logs = t.pods.get_pod_logs(pod_id="docpod")
    step("get_pod_logs", logs.logs == "" and "created by" in logs.action_logs[0], logs.action_logs[0])
    credentials = t.pods.get_pod_credentials(pod_id="docpod")
    step("get_pod_credentials", credentials.user_username == "docpod" and len(credentials.user_password) == 30)


def life(t):
    step("list_pods", [pod.pod_id for pod in t.pods.list_pods()] == ["docpod"])
    changed = t.pods.update_pod(pod_id="docpod", description="Ours", environment_variables={"A": "1"})
    step("update_pod", changed.description == "Ours" and changed.environment_variables.A == "1")
    step("get_derived_pod", t.pods.get_derived_pod(pod_id="docpod").image == "neo4j:5")
    given = t.pods.set_pod_permission(pod_id="docpod", user="bob", level="READ")
    step("set_pod_permission", given.permissions == ["ada:ADMIN", "bob:READ"])
    step("get_pod_permissions", len(t.pods.get_pod_permissions(pod_id="docpod").permissions) == 2)
    left = t.pods.delete_pod_permission(pod_id="docpod", user="bob")
    step("delete_pod_permission", left.permissions == ["ada:ADMIN"])
    step("stop_pod", t.pods.stop_pod(pod_id="docpod").status_requested == "OFF")
    restarted = t.pods.restart_pod(pod_id="docpod", grab_latest_template_tag=True)
    step("restart_pod", restarted.status_requested == "RESTART")
    refused(errors.BaseTapyException, t.pods.start_pod, "start_pod is refused in words", pod_id="docpod")
    refused(
        errors.BaseTapyException,
        t.pods.exec_pod_commands,
        "exec_pod_commands is refused while nothing runs",
        pod_id="docpod",
        commands=["ls"],
    )
    refused(errors.NotFoundError, t.pods.get_pod, "a pod that is not there", pod_id="nothing")
    refused(errors.BadRequestError, t.pods.create_pod, "a pod that cannot be meant", pod_id="No", template="neo4j")


def templates(t):
    step("list_templates", "neo4j" in [template.template_id for template in t.pods.list_templates()])
    step("add_template", t.pods.add_template(template_id="mine", description="d", metatags=["a"]).metatags == ["a"])
    definition = {"template": "redis", "resources": {"mem_limit": 512}}
    tag = t.pods.add_template_tag(template_id="mine", pod_definition=definition, commit_message="first", tag="v1")
    step("add_template_tag", tag.tag_timestamp.startswith("v1@"), tag.tag_timestamp)
    step("get_template_tag", t.pods.get_template_tag(template_id="mine", tag_id="v1")[0].commit_message == "first")
    step("list_template_tags", len(t.pods.list_template_tags(template_id="mine", full=True)) == 1)
    step("list_templates_and_tags", len(t.pods.list_templates_and_tags(full=False)) > 1)
    step("update_template", t.pods.update_template(template_id="mine", description="e").description == "e")
    kept = t.pods.save_pod_as_template_tag(pod_id_net="docpod", template_id="mine", commit_message="m", tag="v2")
    step("save_pod_as_template_tag", kept.tag == "v2")
    text = t.pods.delete_template(template_id="mine")
    step("delete_template", text == "template 'mine' deleted", text)
    step("get_images", t.pods.get_images() == [])


def volumes(t):
    step("create_volume", t.pods.create_volume(volume_id="data", size_limit=2).status == "AVAILABLE")
    text = t.pods.upload_to_volume(volume_id="data", path="a/b.txt", file=io.BytesIO(b"hello"))
    step("upload_to_volume", "5 bytes" in text, text)
    step("list_volume_files", [file.path for file in t.pods.list_volume_files(volume_id="data")] == ["a/b.txt"])
    step("get_volume_contents", t.pods.get_volume_contents(volume_id="data", path="a/b.txt") == b"hello")
    step("list_volumes", len(t.pods.list_volumes()) == 1)
    mounts = {"data": {"type": "tapisvolume", "mount_path": "/data"}}
    pod = t.pods.create_pod(pod_id="redispod", template="redis", volume_mounts=mounts, status_requested="OFF")
    step("a pod with a volume", pod.status == "STOPPED")
    snapshot = t.pods.create_snapshot(snapshot_id="snap", source_volume_id="data", source_volume_path="/a")
    step("create_snapshot", snapshot.status == "REQUESTED")
    step("list_snapshot_files", t.pods.list_snapshot_files(snapshot_id="snap") == [])
    for name, done in (
        ("delete_pod", t.pods.delete_pod(pod_id="redispod")),
        ("delete_snapshot", t.pods.delete_snapshot(snapshot_id="snap")),
        ("delete_volume", t.pods.delete_volume(volume_id="data")),
    ):
        step(name, isinstance(done, str) and "deleted" in done, done)


client = Tapis(base_url=os.environ["BASE_URL"], username=os.environ["BERTH_USER"], password=os.environ["PASSWORD"])
client.get_tokens()
quickstart(client)
if hasattr(client.pods, "list_pods"):
    life(client)
    templates(client)
    volumes(client)
    step("ensure_jupyter_pod", client.pods.ensure_jupyter_pod().pod_id == "jupyterada")
else:
    step("get_pods", [pod.pod_id for pod in client.pods.get_pods()] == ["docpod"])
deleted = client.pods.delete_pod(pod_id="docpod")
step("the end", "being deleted" in deleted, deleted)
