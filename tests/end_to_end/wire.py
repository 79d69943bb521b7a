"""Berth's HTTP API as a test speaks it: plain requests, no client of ours."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from testbed.server import ADMIN_PASSWORD

TERMINAL = {"FINISHED", "FAILED", "CANCELLED"}


class Wire:
    """The API as one user. Methods give ``result``; an answer that is no success raises with the server's message."""

    def __init__(self, url: str, username: str = "admin", password: str = ADMIN_PASSWORD) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)
        answer = self.post("/v3/oauth2/tokens", {"username": username, "password": password, "grant_type": "password"})
        self.http.headers["X-Tapis-Token"] = answer["access_token"]["access_token"]

    def get(self, path: str, **query: Any) -> Any:
        return self._result(self.http.get(path, params=query))

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, key: str = "", **query: Any) -> Any:
        """key: the request's Idempotency-Key, so that it may be sent again."""
        headers = {"Idempotency-Key": key} if key else {}
        return self._result(self.http.post(path, json=body or {}, params=query, headers=headers))

    @staticmethod
    def _result(answer: httpx.Response) -> Any:
        assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
        return answer.json()["result"]

    def register(
        self,
        cluster: Mapping[str, Any],
        system_id: str,
        user: str = "alice",
        plain_http: Sequence[str] = ("login:5000",),
        keeps_pods: bool = False,
        **more: Any,
    ) -> None:
        """Probe a testbed's cluster, create it as a system, and store the user's key."""
        ssh = cluster["ssh"]
        key = Path(ssh["users"][user]["key"]).read_text()
        found = self.post(
            "/v3/systems/probe",
            {"host": ssh["host"], "port": ssh["port"], "loginUser": user, "privateKey": key, "systemId": system_id},
        )
        definition = {**found["definition"], "id": system_id, **more}
        berth = {**definition.get("notes", {}).get("berth", {}), "plainHttpRegistries": [*plain_http]}
        berth |= {"pods": True} if keeps_pods else {}
        definition["notes"] = {**definition.get("notes", {}), "berth": berth}
        self.post("/v3/systems", definition)
        self.post(f"/v3/systems/credential/{system_id}/user/admin", {"loginUser": user, "privateKey": key})

    def submit(self, script: str, *, image: str, **more: Any) -> dict[str, Any]:
        """Submit a job that runs ``script`` by the image's shell."""
        berth = {"image": image, "command": ["sh", "-c", script], **more.pop("berth", {})}
        body = {"name": "test", "appId": "berth.image", "appVersion": "1", "notes": {"berth": berth}, **more}
        return self.post("/v3/jobs/submit", body)

    def await_state(self, uuid: str, states: set[str], timeout_s: float = 90) -> dict[str, Any]:
        """The job once it is in one of the states; says where it hangs when it does not come."""
        until = time.monotonic() + timeout_s
        while (job := self.get(f"/v3/jobs/{uuid}"))["status"] not in states:
            assert job["status"] not in TERMINAL, f"{uuid} ended {job['status']}: {job['lastMessage']}"
            assert time.monotonic() < until, f"{uuid} is still {job['status']}: {job['lastMessage']}"
            time.sleep(0.2)
        return job

    def finish(self, uuid: str, timeout_s: float = 90) -> dict[str, Any]:
        """The job once it has ended, however."""
        return self.await_state(uuid, TERMINAL, timeout_s)

    def output(self, uuid: str, name: str = "tapisjob.out") -> str:
        answer = self.http.get(f"/v3/jobs/{uuid}/output/download/{name}")
        assert answer.is_success, answer.text
        return answer.text
