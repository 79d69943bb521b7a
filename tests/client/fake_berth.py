"""A Berth server small enough to read: real HTTP on an ephemeral port, answers in the wire's form, jobs that move on
each time they are looked at. Faults are put in by tests: statuses to answer with, streams to cut."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

LIFE = ("PENDING", "STAGING_JOB", "QUEUED", "RUNNING", "RUNNING", "ARCHIVING", "FINISHED")
NOW = "2026-11-20T10:00:0{}.000000Z"


class FakeBerth:
    """The state of the server, open to tests: what it holds, what it was sent, and which faults come next."""

    def __init__(self) -> None:
        self.users = {"alice": "secret", "admin": "root"}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.systems: dict[str, dict[str, Any]] = {"cluster": definition("cluster")}
        self.apps: dict[str, dict[str, Any]] = {}
        self.credentials: dict[tuple[str, str], dict[str, Any]] = {}
        self.outputs: dict[str, bytes] = {"tapisjob.out": b"hello\n", "results/table.csv": b"a,b\n1,2\n"}
        self.listing: list[dict[str, Any]] | None = None
        self.log = {"stdout": "one\ntwo\u2028still two\nthree\n", "stderr": "careful\n"}
        self.life: tuple[str, ...] = LIFE
        self.messages: dict[str, str] = {}
        self.ending = "NORMAL_COMPLETION"
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.faults: deque[int] = deque()
        self.cut_streams = 0
        self.token_life_s = 4 * 3600.0
        self.refusal: dict[str, Any] | None = None
        self._keys: dict[str, Any] = {}
        self._refreshes: set[str] = set()
        self._valid: set[str] = set()

    def revoke(self) -> None:
        """Every access token given so far stops holding; refresh tokens stay good."""
        self._valid.clear()

    # -- tokens --------------------------------------------------------------------------------------------------

    def token(self, user: str) -> str:
        claims = {"tapis/username": user, "sub": f"{user}@dev", "exp": time.time() + self.token_life_s, "jti": _id()}
        parts = ({"alg": "RS256"}, claims)
        head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        token = f"{head}.{body}.signature"
        self._valid.add(token)
        return token

    async def tokens(self, request: Request) -> Response:
        body = await request.json()
        if body["grant_type"] == "password":
            if self.users.get(body["username"]) != body["password"]:
                return failure(400, "the user name or the password is wrong")
            user = body["username"]
        else:
            user, _, _ = body["refresh_token"].partition(":")
            if body["refresh_token"] not in self._refreshes:
                return failure(401, "the refresh token was used already")
            self._refreshes.discard(body["refresh_token"])
        refresh = f"{user}:{_id()}"
        self._refreshes.add(refresh)
        access = {"access_token": self.token(user), "expires_in": int(self.token_life_s), "expires_at": "later"}
        return success({"access_token": access, "refresh_token": {"refresh_token": refresh}}, status=201)

    # -- jobs ----------------------------------------------------------------------------------------------------

    def add_job(self, request: dict[str, Any], owner: str = "alice") -> dict[str, Any]:
        number = len(self.jobs) + 1
        job = {
            "id": number,
            "uuid": f"{uuid.uuid4()}-007",
            "name": request["name"],
            "owner": owner,
            "status": self.life[0],
            "condition": None,
            "lastMessage": "",
            "created": NOW.format(0),
            "appId": request.get("appId", "berth.image"),
            "execSystemId": request.get("execSystemId") or "cluster",
            "execSystemLogicalQueue": request.get("execSystemLogicalQueue") or "normal",
            "notes": json.dumps(request.get("notes", {})),
            "nodeCount": request.get("nodeCount", 1),
            "coresPerNode": request.get("coresPerNode", 1),
            "memoryMB": request.get("memoryMB", 100),
            "maxMinutes": request.get("maxMinutes", 10),
            "remoteStarted": None,
        }
        self.jobs[job["uuid"]] = {**job, "asked": request, "step": 0}
        return job

    async def submit(self, request: Request) -> Response:
        if self.refusal is not None:
            return failure(400, "JOBS_NO_MATCHING_SYSTEM no system can run this job", **self.refusal)
        return success(self.add_job(await request.json(), request.state.user))

    async def submit_batch(self, request: Request) -> Response:
        made = [self.add_job(each, request.state.user) for each in (await request.json())["jobs"]]
        return success({"jobs": [{name: job[name] for name in ("uuid", "status", "execSystemId")} for job in made]})

    async def job(self, request: Request) -> Response:
        job = self._job(request)
        if job is None:
            return failure(404, "job was not found")
        shown = {name: value for name, value in job.items() if name not in ("asked", "step")}
        self._advance(job)
        return success(shown)

    def _advance(self, job: dict[str, Any]) -> None:
        if job["status"] in ("FINISHED", "FAILED", "CANCELLED"):
            return
        job["step"] += 1
        job["status"] = self.life[min(job["step"], len(self.life) - 1)]
        job["lastMessage"] = self.messages.get(job["status"], "")
        if job["status"] == "RUNNING":
            job["remoteSubmitted"], job["remoteStarted"] = NOW.format(1), NOW.format(4)
        if job["status"] in ("FINISHED", "FAILED"):
            job["condition"], job["ended"], job["remoteEnded"] = self.ending, NOW.format(9), NOW.format(8)

    async def job_list(self, request: Request) -> Response:
        everyone = request.query_params.get("listType") == "ALL_JOBS"
        jobs = [job for job in self.jobs.values() if everyone or job["owner"] == request.state.user][::-1]
        return _page(request, jobs)

    async def job_search(self, request: Request) -> Response:
        wanted = request.query_params.get("id.eq")
        return success([job for job in self.jobs.values() if str(job["id"]) == wanted])

    async def history(self, request: Request) -> Response:
        job = self._job(request)
        events = [
            {
                "event": "JOB_NEW_STATUS",
                "created": NOW.format(step),
                "eventDetail": status,
                "description": status.lower(),
            }
            for step, status in enumerate(self.life)
        ]
        return _page(request, events) if job else failure(404, "job was not found")

    async def cancel(self, request: Request) -> Response:
        job = self._job(request)
        if job is None:
            return failure(404, "job was not found")
        job["status"], job["condition"] = "CANCELLED", "CANCELLED_BY_USER"
        return success({"message": "the job is cancelled"})

    async def resubmit(self, request: Request) -> Response:
        job = self._job(request)
        return success(self.add_job(job["asked"], job["owner"])) if job else failure(404, "job was not found")

    async def why(self, request: Request) -> Response:
        return success(EXPLANATION)

    async def logs(self, request: Request) -> Response:
        stream = ".".join(filter(None, map(request.query_params.get, ("stream", "task"))))
        if request.headers.get("accept") != "text/event-stream":
            offset = int(request.query_params.get("offset", 0))
            data = self.log[stream].encode()[offset : offset + 8].decode(errors="replace")
            after = offset + len(data.encode())
            done = after >= len(self.log[stream].encode())
            return success({"data": data, "offset": offset, "nextOffset": after, "complete": done})
        begin = int(request.headers.get("last-event-id", 0))
        cut, self.cut_streams = self.cut_streams > 0, max(0, self.cut_streams - 1)
        return StreamingResponse(self._events(stream, begin, cut), media_type="text/event-stream")

    async def _events(self, stream: str, begin: int, cut: bool) -> AsyncIterator[str]:
        yield ": welcome\n\n"
        offset = begin
        for line in re.findall(r"[^\n]*\n", self.log[stream].encode()[begin:].decode()):
            offset += len(line.encode())
            data = json.dumps({"data": line, "offset": offset - len(line.encode())}, ensure_ascii=False)
            yield f"id: {offset}\ndata: {data}\n\n"
            if cut:
                return
        yield f"event: end\ndata: {json.dumps({'status': self.life[-1], 'condition': self.ending})}\n\n"

    async def output_list(self, request: Request) -> Response:
        if self.listing is not None:
            return _page(request, self.listing)
        folder = request.path_params["path"].strip("/")
        below = [name for name in self.outputs if name.startswith(f"{folder}/" if folder else "")]
        rest = [name[len(folder) + 1 if folder else 0 :] for name in below]
        entries = {name.split("/")[0]: ("dir" if "/" in name else "file") for name in rest}
        if not entries:
            return failure(404, "no such directory")
        return _page(request, [self._entry(folder, name, kind) for name, kind in entries.items()])

    def _entry(self, folder: str, name: str, kind: str) -> dict[str, Any]:
        path = f"{folder}/{name}" if folder else name
        return {"name": name, "type": kind, "size": len(self.outputs.get(path, b"")), "lastModified": NOW.format(8)}

    async def output_download(self, request: Request) -> Response:
        content = self.outputs.get(request.path_params["path"])
        if content is None:
            return failure(404, "no such file")
        return Response(content, media_type="application/octet-stream")

    def _job(self, request: Request) -> dict[str, Any] | None:
        return self.jobs.get(request.path_params["uuid"])

    # -- systems, apps, users ------------------------------------------------------------------------------------

    async def system_list(self, request: Request) -> Response:
        return _page(request, list(self.systems.values()))

    async def system(self, request: Request) -> Response:
        found = self.systems.get(request.path_params["id"])
        return success(found) if found else failure(404, f"system '{request.path_params['id']}' was not found")

    async def create_system(self, request: Request) -> Response:
        body = await request.json()
        if body["id"] in self.systems:
            return failure(409, f"system '{body['id']}' already exists")
        self.systems[body["id"]] = body
        return success({"url": f"/v3/systems/{body['id']}"}, status=201)

    async def change_system(self, request: Request) -> Response:
        system = self.systems.get(request.path_params["id"])
        if system is None:
            return failure(404, "system was not found")
        what = request.path_params["what"]
        if what == "delete":
            del self.systems[request.path_params["id"]]
        else:
            system["enabled"] = what == "enable"
        return success({"changes": 1})

    async def match(self, request: Request) -> Response:
        return success(list(self.systems.values()))

    async def probe(self, request: Request) -> Response:
        body = await request.json()
        if body.get("privateKey") is None and body.get("password") != "hunter2":
            return failure(400, f"{body['loginUser']}@{body['host']}: Permission denied (publickey)")
        found = {**definition(body.get("systemId") or "probed"), "host": body["host"], "port": body["port"]}
        evidence = {"Slurm version": "sinfo --version: slurm 24.11.4"}
        warnings = ["no quota could be read"]
        return success({"definition": found, "hostKey": "SHA256:abc", "evidence": evidence, "warnings": warnings})

    async def credential(self, request: Request) -> Response:
        key = (request.path_params["id"], request.path_params["user"])
        if request.method == "DELETE":
            self.credentials.pop(key, None)
            return success({})
        if request.url.path.endswith("/check"):
            told = {"warnings": ["it may not list events"]}
            return (
                success(told) if key in self.credentials else failure(404, f"{key[1]} has no credential for {key[0]}")
            )
        body = await request.json()
        self.credentials[key] = body
        if not body.keys() & {"privateKey", "password", "accessToken"}:
            return success({"publicKey": "ssh-ed25519 AAAA berth", "message": "add it to ~/.ssh/authorized_keys"}, 201)
        return success({}, 201)

    async def app_list(self, request: Request) -> Response:
        return _page(request, list(self.apps.values()))

    async def app(self, request: Request) -> Response:
        found = self.apps.get(request.path_params["id"])
        return success(found) if found else failure(404, "app was not found")

    async def create_app(self, request: Request) -> Response:
        body = await request.json()
        self.apps[body["id"]] = body
        return success({"url": "/v3/apps"}, status=201)

    async def delete_app(self, request: Request) -> Response:
        return (
            success({"changes": 1}) if self.apps.pop(request.path_params["id"], None) else failure(404, "no such app")
        )

    async def profiles(self, request: Request) -> Response:
        if request.method == "GET":
            return _page(request, [{"username": user, "email": f"{user}@example.org"} for user in self.users], "offset")
        body = await request.json()
        made = body.get("password") or "made-up"
        self.users[body["username"]] = made
        return success({"username": body["username"], **({} if "password" in body else {"password": made})}, 201)

    async def profile(self, request: Request) -> Response:
        user = request.path_params["user"]
        if user not in self.users:
            return failure(404, f"user '{user}' was not found")
        if request.method == "DELETE":
            del self.users[user]
        if request.method == "POST":
            self.users[user] = (await request.json())["password"]
        return success({"username": user, "email": f"{user}@example.org"})

    async def tenants(self, request: Request) -> Response:
        return success([{"tenant_id": "dev", "site_id": "here"}])

    # -- the edge ------------------------------------------------------------------------------------------------

    def app_asgi(self) -> Any:
        """The server as an ASGI application: tokens, keys and faults before the routes."""
        inner = Starlette(routes=self._routes())

        async def edge(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await inner(scope, receive, send)
                return
            request = Request(scope, receive)
            raw = await request.body()
            again: list[Any] = [{"type": "http.request", "body": raw, "more_body": False}]

            async def receive_again() -> Any:
                return again.pop() if again else await receive()

            await self._guarded(request, raw, inner)(scope, receive_again, send)

        return edge

    def _guarded(self, request: Request, raw: bytes, inner: Any) -> Any:
        self.requests.append(
            (request.method, request.url.path, dict(request.headers), json.loads(raw) if raw else None)
        )
        if self.faults:
            status = self.faults.popleft()
            return failure(status, f"the server has a fault of {status}")
        public = request.url.path in ("/v3/tenants", "/v3/oauth2/tokens")
        token = request.headers.get("x-tapis-token", "")
        if not public and token not in self._valid:
            return failure(401, "the token is missing or no longer holds")
        if not public:
            body = token.split(".")[1]
            request.state.user = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["tapis/username"]
        key = request.headers.get("idempotency-key")
        if key and key in self._keys:
            return self._keys[key]
        return _Remembering(inner, self._keys, key)

    def _routes(self) -> list[Route]:
        jobs, systems, apps, profiles = "/v3/jobs", "/v3/systems", "/v3/apps", "/v3/oauth2/profiles"
        return [
            Route("/v3/tenants", self.tenants),
            Route("/v3/oauth2/tokens", self.tokens, methods=["POST"]),
            Route(profiles, self.profiles, methods=["GET", "POST"]),
            Route(profiles + "/{user}", self.profile, methods=["GET", "DELETE"]),
            Route(profiles + "/{user}/password", self.profile, methods=["POST"]),
            Route(jobs + "/submit", self.submit, methods=["POST"]),
            Route(jobs + "/submit/batch", self.submit_batch, methods=["POST"]),
            Route("/v3/placement/plan", self.why, methods=["POST"]),
            Route(jobs + "/list", self.job_list),
            Route(jobs + "/search", self.job_search),
            Route(jobs + "/{uuid}", self.job),
            Route(jobs + "/{uuid}/history", self.history),
            Route(jobs + "/{uuid}/why", self.why),
            Route(jobs + "/{uuid}/logs", self.logs),
            Route(jobs + "/{uuid}/cancel", self.cancel, methods=["POST"]),
            Route(jobs + "/{uuid}/resubmit", self.resubmit, methods=["POST"]),
            Route(jobs + "/{uuid}/output/list/{path:path}", self.output_list),
            Route(jobs + "/{uuid}/output/download/{path:path}", self.output_download),
            Route(systems, self.system_list),
            Route(systems, self.create_system, methods=["POST"]),
            Route(systems + "/probe", self.probe, methods=["POST"]),
            Route(systems + "/match/constraints", self.match, methods=["POST"]),
            Route(systems + "/credential/{id}/user/{user}", self.credential, methods=["POST", "DELETE"]),
            Route(systems + "/credential/{id}/user/{user}/check", self.credential, methods=["POST"]),
            Route(systems + "/{id}", self.system),
            Route(systems + "/{id}/{what}", self.change_system, methods=["POST"]),
            Route(apps, self.app_list),
            Route(apps, self.create_app, methods=["POST"]),
            Route(apps + "/{id}", self.app),
            Route(apps + "/{id}/delete", self.delete_app, methods=["POST"]),
        ]


class _Remembering:
    """Answers a request, and gives the same bytes again to the next request with the same key."""

    def __init__(self, inner: Any, keys: dict[str, Any], key: str | None) -> None:
        self.inner, self.keys, self.key = inner, keys, key

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        sent: list[Any] = []

        async def keep(message: Any) -> None:
            sent.append(message)
            await send(message)

        await self.inner(scope, receive, keep if self.key else send)
        if self.key:
            self.keys[self.key] = _Replay(sent)


class _Replay:
    def __init__(self, messages: list[Any]) -> None:
        self.messages = messages

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for message in self.messages:
            await send(message)


EXPLANATION: dict[str, Any] = {
    "sentence": "cluster/normal: the result is expected in 2 minutes.",
    "winner": {
        "systemId": "cluster",
        "queue": "normal",
        "totalP50": 120.0,
        "totalP90": 300.0,
        "wait": {"p50": 60.0, "p90": 200.0, "source": "history"},
        "staging": {"p50": 5.0, "p90": 9.0, "source": ""},
        "run": {"p50": 55.0, "p90": 90.0, "source": "asked"},
        "archive": {"p50": 5.0, "p90": 10.0, "source": ""},
        "notes": [],
    },
    "losers": [
        {
            "systemId": "slow",
            "queue": "long",
            "totalP50": 7200.0,
            "totalP90": 9000.0,
            "wait": {"p50": 6600.0, "p90": 8000.0, "source": "history"},
            "run": {"p50": 600.0, "p90": 1000.0, "source": "asked"},
        }
    ],
    "rejections": [
        {
            "systemId": "small",
            "queue": None,
            "reason": "MEMORY",
            "asked": "64 GiB",
            "limit": "8 GiB",
            "sentence": "'small' allows 8 GiB of memory (64 GiB asked)",
        }
    ],
    "advice": ["Asking for 30 minutes instead of 2 hours would start it 10 minutes sooner."],
    "provenOptimal": True,
    "state": "QUEUED",
    "lastMessage": "",
    "siteReason": "Priority",
    "siteReasonInWords": "jobs of higher priority wait before it, so many that the line must be broken where it ends",
    "siteReasonDecidedBy": "jobs that run or wait before it",
    "copies": [{"number": 2, "systemId": "slow", "queue": "long", "state": "QUEUED", "kind": "HEDGE"}],
}


def definition(system_id: str) -> dict[str, Any]:
    """A system as a probe would find it."""
    return {
        "id": system_id,
        "systemType": "LINUX",
        "host": "login.example.org",
        "port": 22,
        "owner": "alice",
        "canExec": True,
        "enabled": True,
        "batchScheduler": "SLURM",
        "batchLogicalQueues": [{"name": "normal", "hpcQueueName": "batch", "maxNodeCount": 4, "maxMinutes": 120}],
        "jobRuntimes": [{"runtimeType": "SINGULARITY"}],
        "hasCredentials": True,
        "notes": {},
    }


def success(result: Any, status: int = 200, **metadata: Any) -> JSONResponse:
    return _envelope(status, "success", "ok", result, metadata)


def failure(status: int, message: str, **problem: Any) -> JSONResponse:
    return _envelope(status, "error", message, None, {"problem": {"status": status, "detail": message, **problem}})


def _envelope(status: int, verdict: str, message: str, result: Any, metadata: dict[str, Any]) -> JSONResponse:
    content = {"status": verdict, "message": message, "version": "1", "result": result, "metadata": metadata}
    return JSONResponse(content, status)


def _page(request: Request, items: list[Any], skip_by: str = "skip") -> JSONResponse:
    skip, limit = (int(request.query_params.get(name, default)) for name, default in ((skip_by, 0), ("limit", 100)))
    return success(items[skip : skip + limit])


def _id() -> str:
    return uuid.uuid4().hex


@contextmanager
def serving(fake: FakeBerth) -> Iterator[str]:
    """The URL of a server on an ephemeral port of the loopback interface."""
    config = uvicorn.Config(fake.app_asgi(), host="127.0.0.1", port=0, log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
