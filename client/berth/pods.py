"""Pods: long-lived containers with addresses, their volumes and templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from berth.errors import InvalidInput, TimedOut
from berth.records import Raw
from berth.session import Session, segment

AT_REST = frozenset({"STOPPED", "COMPLETE", "ERROR"})
"""Statuses that a pod leaves only when somebody wants something of it."""

LOOK_S = 1.0
"""Between two looks at a pod that is waited for."""

WORK_S = 300.0
"""How long an answer may take for which something happens inside a pod, or a file is sent."""


class Pods:
    """Everything about pods; reach it as ``client.pods``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self) -> Sequence[Raw]:
        """The pods that the user may see."""
        return [*self._session.get("/v3/pods")]

    def get(self, pod_id: str) -> Raw:
        """One pod."""
        return dict(self._session.get(_pod(pod_id)))

    def create(self, body: Mapping[str, Any]) -> Raw:
        """A new pod, in the words of the Pods API: ``pod_id``, and ``image`` or ``template``."""
        return dict(self._session.create("/v3/pods", body))

    def remove(self, pod_id: str) -> None:
        """End and forget a pod."""
        self._session.call("DELETE", _pod(pod_id))

    def start(self, pod_id: str) -> Raw:
        """Want a pod that is at rest."""
        return dict(self._session.get(f"{_pod(pod_id)}/start"))

    def stop(self, pod_id: str) -> Raw:
        """Want a pod no more; it stays, to be started again."""
        return dict(self._session.get(f"{_pod(pod_id)}/stop"))

    def restart(self, pod_id: str, *, newest_template: bool = False) -> Raw:
        """Stop a pod and start it again. newest_template: with the newest tag of its template."""
        params = {"grab_latest_template_tag": "true"} if newest_template else {}
        return dict(self._session.get(f"{_pod(pod_id)}/restart", **params))

    def logs(self, pod_id: str) -> Raw:
        """``logs``, the newest 10 MB of what it wrote, and ``action_logs``, what Berth did with it."""
        return dict(self._session.get(f"{_pod(pod_id)}/logs"))

    def credentials(self, pod_id: str) -> Raw:
        """``user_username`` and ``user_password`` of the software inside."""
        return dict(self._session.get(f"{_pod(pod_id)}/credentials"))

    def execute(self, pod_id: str, command: Sequence[str], *, timeout_s: float) -> Raw:
        """Run a command inside a pod: ``stdout``, ``stderr``, ``exit_code``; that is None, and ``message`` says why,
        where it did not come to its end."""
        whole_s = max(1, round(timeout_s))
        body = {
            "commands": [[*command]],
            "command_timeout": whole_s,
            "total_timeout": whole_s,
            "fail_on_non_success": False,
        }
        done = self._session.post(f"{_pod(pod_id)}/exec", body, timeout_s=timeout_s + WORK_S)
        return dict(done["results"][0])

    def wait(
        self,
        pod_id: str,
        wanted: frozenset[str] = frozenset({"AVAILABLE"}),
        *,
        timeout_s: float | None = None,
        on_change: Callable[[Raw], None] = lambda pod: None,
    ) -> Raw:
        """The pod once it has one of these statuses, or rests. TimedOut when that takes longer than ``timeout_s``.

        on_change is told the pod as it is at every look.
        """
        session = self._session
        ends_s = None if timeout_s is None else session.now() + timeout_s
        while True:
            pod = self.get(pod_id)
            on_change(pod)
            if pod["status"] in wanted | AT_REST:
                return pod
            if ends_s is not None and session.now() >= ends_s:
                why = f" ({pod['status_message']})" if pod.get("status_message") else ""
                raise TimedOut(
                    f"{pod_id} is {pod['status']} after the time given{why}", f"see berth pods show {pod_id}"
                )
            session.sleep(LOOK_S)

    # -- templates -----------------------------------------------------------------------------------------------

    def templates(self) -> Sequence[Raw]:
        """The templates that the user may see."""
        return [*self._session.get("/v3/pods/templates")]

    def template_tags(self, template_id: str) -> Sequence[Raw]:
        """The tags of a template, each with the definition that it stands for."""
        return [*self._session.get(f"/v3/pods/templates/{segment(template_id)}/tags")]

    # -- volumes -------------------------------------------------------------------------------------------------

    def volumes(self) -> Sequence[Raw]:
        """The volumes that the user may see."""
        return [*self._session.get("/v3/pods/volumes")]

    def create_volume(self, volume_id: str, *, size_mb: int = 1024, description: str = "") -> Raw:
        """A new volume."""
        body = {"volume_id": volume_id, "size_limit": size_mb, "description": description}
        return dict(self._session.create("/v3/pods/volumes", body))

    def remove_volume(self, volume_id: str) -> None:
        """Delete a volume and what is on it."""
        self._session.call("DELETE", _volume(volume_id))

    def volume_files(self, volume_id: str) -> Sequence[Raw]:
        """What lies on a volume."""
        return [*self._session.get(f"{_volume(volume_id)}/list")]


def _pod(pod_id: str) -> str:
    return f"/v3/pods/{_checked(pod_id, 'pod')}"


def _volume(volume_id: str) -> str:
    return f"/v3/pods/volumes/{_checked(volume_id, 'volume')}"


def _checked(name: str, kind: str) -> str:
    """A name for a path; an empty one would ask for all."""
    if not name.strip("./ "):
        raise InvalidInput(f"no {kind} is named")
    return segment(name)
