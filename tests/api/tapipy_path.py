"""The main path by an unmodified tapipy: log in, profile, system, app, job, follow, outputs. Run by its own Python.

Everything comes from the environment, so that the same script runs against systems in memory and a real cluster:
BASE_URL, BERTH_USER, PASSWORD; EXEC_SYSTEM_ID to use a system that is there, else EXEC_HOST, EXEC_PORT, EXEC_ROOT,
EXEC_WORKDIR, EXEC_QUEUE and SYSTEM_NOTES (JSON) for one that is made; PRIVATE_KEY_FILE for a credential that is
registered and checked; APP_IMAGE, APP_RUNTIME, JOB_TYPE; EXPECT for a text that the job's output must hold;
JOB_TIMEOUT_S. Prints one line a step; the exit status is 0 only when every step held.
"""

import json
import os
import sys
import time
import uuid
from pathlib import Path

import tapipy
from tapipy import errors
from tapipy.tapis import Tapis

BASE_URL = os.environ["BASE_URL"]
USER = os.environ["BERTH_USER"]
PASSWORD = os.environ["PASSWORD"]
SYSTEM_ID = os.environ.get("EXEC_SYSTEM_ID")
EXPECT = os.environ.get("EXPECT", "")
TIMEOUT_S = float(os.environ.get("JOB_TIMEOUT_S", "120"))
JOB_TYPE = os.environ.get("JOB_TYPE", "BATCH")
RUN = uuid.uuid4().hex[:8]
ENDED = {"FINISHED", "FAILED", "CANCELLED"}


def step(name, condition, shown=""):
    print(f"{'ok  ' if condition else 'FAIL'} {name} {shown}", flush=True)
    if not condition:
        sys.exit(1)


def log_in():
    client = Tapis(base_url=BASE_URL, username=USER, password=PASSWORD)
    step("the client finds its tenant by its base URL", bool(client.tenant_id), client.tenant_id)
    client.get_tokens()
    step("get_tokens gives a token that it can read", client.access_token is not None)
    client.validate_token(client.access_token.access_token)
    step("the token verifies with the tenant's public key", True)
    try:
        Tapis(base_url=BASE_URL, username=USER, password="wrong").get_tokens()
    except errors.BadRequestError as refused:
        step("a wrong password is refused in words", "Invalid username/password" in refused.message)
    else:
        step("a wrong password is refused", False)
    return client


def system(client):
    if SYSTEM_ID:
        return SYSTEM_ID
    queue = {
        "name": "q1",
        "hpcQueueName": os.environ.get("EXEC_QUEUE", "normal"),
        "maxJobs": 50,
        "maxJobsPerUser": 10,
        "minNodeCount": 1,
        "maxNodeCount": 2,
        "minCoresPerNode": 1,
        "maxCoresPerNode": 4,
        "minMemoryMB": 1,
        "maxMemoryMB": 8192,
        "minMinutes": 1,
        "maxMinutes": 60,
    }
    made = client.systems.createSystem(
        id=f"path-{RUN}",
        systemType="LINUX",
        host=os.environ.get("EXEC_HOST", "127.0.0.1"),
        port=int(os.environ.get("EXEC_PORT", "22")),
        effectiveUserId="${apiUserId}",
        defaultAuthnMethod="PKI_KEYS",
        rootDir=os.environ.get("EXEC_ROOT", "/"),
        canExec=True,
        canRunBatch=True,
        jobRuntimes=[{"runtimeType": "SINGULARITY"}],
        jobWorkingDir=os.environ.get("EXEC_WORKDIR", "work"),
        batchScheduler="SLURM",
        batchLogicalQueues=[queue],
        batchDefaultLogicalQueue="q1",
        tags=["path"],
        notes={"run": RUN, **json.loads(os.environ.get("SYSTEM_NOTES", "{}"))},
    )
    step("createSystem answers a url", made.url.endswith(f"/v3/systems/path-{RUN}"), made.url)
    return f"path-{RUN}"


def credential(client, system_id):
    key_file = os.environ.get("PRIVATE_KEY_FILE")
    if key_file:
        private_key = Path(key_file).read_text()
        client.systems.createUserCredential(systemId=system_id, userName=USER, privateKey=private_key)
    else:
        made = client.systems.createUserCredential(systemId=system_id, userName=USER, loginUser=USER)
        step("a key pair is made on demand", made.publicKey.startswith("ssh-ed25519 "))
    checked = client.systems.checkUserCredential(systemId=system_id, userName=USER)
    step("the credential is checked by a real login", bool(checked.message), checked.message)


def look(client, system_id):
    got = client.systems.getSystem(systemId=system_id)
    step("getSystem resolves the user", got.effectiveUserId == USER and got.isDynamicEffectiveUser is True)
    listed = client.systems.getSystems(
        search=f"(id.eq.{system_id})~(enabled.eq.true)", listType="ALL", select="id,host"
    )
    step("getSystems searches and selects", [each.id for each in listed] == [system_id])
    step("an empty list is a list", client.systems.getSystems(search=f"id.eq.none{RUN}") == [])


def app(client, system_id):
    made = client.apps.createAppVersion(
        id=f"path-{RUN}",
        version="1.0",
        runtime=os.environ.get("APP_RUNTIME", "SINGULARITY"),
        containerImage=os.environ.get("APP_IMAGE", "docker://registry.test/hello:0.1"),
        jobType=JOB_TYPE,
        jobAttributes={
            "execSystemId": system_id,
            "maxMinutes": 5,
            "parameterSet": {
                "appArgs": [{"name": "message", "arg": f"hello {RUN}", "inputMode": "INCLUDE_BY_DEFAULT"}],
                "envVariables": [{"key": "GREETING", "value": "hi"}],
            },
        },
    )
    step("createAppVersion answers a url", made.url.endswith(f"/v3/apps/path-{RUN}/1.0"), made.url)
    step("getAppLatestVersion finds it", client.apps.getAppLatestVersion(appId=f"path-{RUN}").version == "1.0")


def run(client):
    job = client.jobs.submitJob(name=f"path-{RUN}", appId=f"path-{RUN}", appVersion="1.0", notes={"run": RUN})
    step("submitJob resolves the directories", bool(job.execSystemOutputDir) and isinstance(job.parameterSet, str))
    waits_until, status = time.time() + TIMEOUT_S, None
    while time.time() < waits_until and status not in ENDED:
        status = client.jobs.getJobStatus(jobUuid=job.uuid).status
        time.sleep(0.2)
    ended = client.jobs.getJob(jobUuid=job.uuid)
    step("the job FINISHED", status == "FINISHED", f"{status}: {ended.lastMessage}")
    history = client.jobs.getJobHistory(jobUuid=job.uuid)
    step("its history begins with PENDING", history[0].eventDetail == "PENDING", str(len(history)))
    listed = client.jobs.getJobList(limit=10, orderBy="created(desc)")
    step("getJobList shows it first", listed[0].uuid == job.uuid)
    found = client.jobs.getJobSearchList(limit=5, _tapis_query_parameters={"name.eq": f"path-{RUN}"})
    step("getJobSearchList finds it by name", [each.uuid for each in found] == [job.uuid])
    return job.uuid


def outputs(client, job_uuid):
    names = {each.name for each in client.jobs.getJobOutputList(jobUuid=job_uuid, outputPath="/")}
    step("getJobOutputList names the log", "tapisjob.out" in names, str(sorted(names)))
    data = client.jobs.getJobOutputDownload(jobUuid=job_uuid, outputPath="tapisjob.out")
    step("getJobOutputDownload gives its bytes", isinstance(data, bytes) and EXPECT.encode() in data, repr(data[:80]))


def again(client, job_uuid):
    step("getResubmitRequestJson", client.jobs.getResubmitRequestJson(jobUuid=job_uuid).appId == f"path-{RUN}")
    second = client.jobs.resubmitJob(jobUuid=job_uuid)
    step("resubmitJob makes another job", second.uuid != job_uuid)
    step("cancelJob says what came of it", bool(client.jobs.cancelJob(jobUuid=second.uuid).message))
    anywhere = client.jobs.submitJob(
        name=f"any-{RUN}",
        appId=f"path-{RUN}",
        appVersion="1.0",
        dynamicExecSystem=True,
        execSystemConstraints=["canRunBatch = true AND", "batchScheduler = 'SLURM'"],
    )
    step("submitJob may leave the choice of the system", bool(anywhere.execSystemId), anywhere.execSystemId)
    client.jobs.cancelJob(jobUuid=anywhere.uuid)
    matching = client.systems.matchConstraints(match=["canRunBatch = true"])
    step("matchConstraints answers systems", anywhere.execSystemId in [each.id for each in matching])


def scheduler_profiles(client):
    name = f"profile-{RUN}"
    loads = [{"moduleLoadCommand": "module load", "modulesToLoad": ["apptainer"]}]
    client.systems.createSchedulerProfile(name=name, moduleLoads=loads, hiddenOptions=["MEM"])
    got = client.systems.getSchedulerProfile(name=name)
    said = got.moduleLoads[0].moduleLoadCommand, got.moduleLoads[0].modulesToLoad, got.hiddenOptions
    step("getSchedulerProfile", said == ("module load", ["apptainer"], ["MEM"]), said)
    listed = [each.name for each in client.systems.getSchedulerProfiles()]
    step("getSchedulerProfiles", name in listed, listed)
    step("deleteSchedulerProfile", client.systems.deleteSchedulerProfile(name=name).changes == 1)


def clean_up(client, system_id):
    step("deleteApp", client.apps.deleteApp(appId=f"path-{RUN}").changes == 1)
    if not SYSTEM_ID:
        step("deleteSystem", client.systems.deleteSystem(systemId=system_id).changes == 1)


def main():
    print("tapipy", getattr(tapipy, "__version__", "?"))
    client = log_in()
    profile = client.authenticator.get_profile(username=USER)
    step("get_profile", profile.username == USER and bool(profile.email))
    system_id = system(client)
    if not SYSTEM_ID or os.environ.get("PRIVATE_KEY_FILE"):
        credential(client, system_id)
    look(client, system_id)
    app(client, system_id)
    job_uuid = run(client)
    outputs(client, job_uuid)
    again(client, job_uuid)
    scheduler_profiles(client)
    clean_up(client, system_id)


if __name__ == "__main__":
    main()
