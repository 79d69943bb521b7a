"""The Quickstart of the Tapis Pods documentation by an unmodified tapipy, run by its own Python.

The calls are those of the page; only the server's URL, the user and the password are others. From the environment:
BASE_URL, BERTH_USER, PASSWORD. Prints one line a step, and last the address of the pod; 0 only when every step held.
"""

import os
import sys
import time

from tapipy.tapis import Tapis

PATIENCE_S = 120


def step(name, condition, shown=""):
    print(f"{'ok  ' if condition else 'FAIL'} {name} {shown}", flush=True)
    if not condition:
        sys.exit(1)


def await_status(t, *wanted):
    until = time.time() + PATIENCE_S
    while (pod := t.pods.get_pod(pod_id="docpod")).status not in wanted:
        step(f"the pod comes to {wanted[0]}", time.time() < until and pod.status != "ERROR", f"it is {pod.status}")
        time.sleep(0.5)
    return pod


# -- the page --------------------------------------------------------------------------------------------------------

t = Tapis(base_url=os.environ["BASE_URL"], username=os.environ["BERTH_USER"], password=os.environ["PASSWORD"])
t.get_tokens()
step("the user is who logged in", t.authenticator.get_profile(username=os.environ["BERTH_USER"]).username)

made = t.pods.create_pod(pod_id="docpod", pod_template="template/neo4j", description="My example pod!")
step("the pod is made", (made.pod_id, made.description) == ("docpod", "My example pod!"), made.status)

pod = t.pods.get_pod(pod_id="docpod")
step("the pod is shown", pod.pod_id == "docpod" and pod.status_requested == "ON", pod.status)

pod = await_status(t, "AVAILABLE")
step("the pod has an address", pod.networking.default.url.startswith("docpod.pods."), pod.networking.default.url)

logs = t.pods.get_pod_logs(pod_id="docpod")
step("its log is read", "Bolt enabled" in logs.logs, logs.logs[-200:])
step("its actions are told", len(logs.action_logs) > 0, str(logs.action_logs))

# -- what a reader of the page does next -----------------------------------------------------------------------------

known = t.pods.get_pod_credentials(pod_id="docpod")
step("it has credentials", known.user_username == "docpod" and len(known.user_password) == 30)
until = time.time() + PATIENCE_S
while "user docpod was made" not in (shown := t.pods.get_pod_logs(pod_id="docpod").logs):
    step("the user is made inside", time.time() < until, shown[-200:])
    time.sleep(0.5)
listed = getattr(t.pods, "list_pods", None) or t.pods.get_pods
step("it is listed", [one.pod_id for one in listed()] == ["docpod"])
print("address", pod.networking.default.url, flush=True)

if os.environ.get("STAY"):
    sys.exit(0)
t.pods.stop_pod(pod_id="docpod")
await_status(t, "STOPPED")
t.pods.start_pod(pod_id="docpod")
await_status(t, "AVAILABLE")
t.pods.delete_pod(pod_id="docpod")
until = time.time() + PATIENCE_S
while listed():
    step("the pod goes", time.time() < until)
    time.sleep(0.5)
step("the pod is gone", True)
