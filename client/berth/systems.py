"""The systems of a server, and how users are known to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from berth.paging import pages
from berth.records import ProbeReport, Raw
from berth.session import Session, segment

LOGIN_S = 180.0
"""How long an answer may take for which the server itself logs in somewhere and looks around."""


RECORD_S = 300.0
"""How long an answer may take for which the server reads a large file."""


_PROFILES = "/v3/systems/schedulerProfile"


class Systems:
    """Everything about systems; reach it as ``client.systems``. Definitions are as Tapis writes a System."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self, *, whole: bool = False) -> Iterator[Raw]:
        """The systems that the user may see. whole: with every attribute."""
        select = "allAttributes" if whole else "summaryAttributes"
        return pages(self._session, "/v3/systems", listType="ALL", select=select, orderBy="id(asc)")

    def get(self, system_id: str) -> Raw:
        """The whole definition."""
        return dict(self._session.get(f"/v3/systems/{segment(system_id)}"))

    def create(self, definition: Raw) -> None:
        """Add a system."""
        self._session.create("/v3/systems", definition)

    def patch(self, system_id: str, changes: Raw) -> None:
        """Change some attributes."""
        self._session.call("PATCH", f"/v3/systems/{segment(system_id)}", body=changes)

    def delete(self, system_id: str) -> None:
        """Remove a system; its jobs keep their records."""
        self._session.post(f"/v3/systems/{segment(system_id)}/delete")

    def enable(self, system_id: str) -> None:
        """Let jobs be placed on it."""
        self._session.post(f"/v3/systems/{segment(system_id)}/enable")

    def disable(self, system_id: str) -> None:
        """Place no more jobs on it."""
        self._session.post(f"/v3/systems/{segment(system_id)}/disable")

    def match(self, constraints: Sequence[str]) -> Sequence[Raw]:
        """The systems on which all constraints hold, best first. The pieces are joined with blanks."""
        return list(self._session.post("/v3/systems/match/constraints", {"match": list(constraints)}))

    def probe(
        self,
        host: str,
        login_user: str,
        *,
        port: int = 22,
        private_key: str | None = None,
        password: str | None = None,
        system_id: str | None = None,
    ) -> ProbeReport:
        """Let the server log in to a host and look around; nothing is stored."""
        ask = {
            "host": host,
            "port": port,
            "loginUser": login_user,
            "privateKey": private_key,
            "password": password,
            "systemId": system_id,
        }
        given = {name: value for name, value in ask.items() if value is not None}
        return ProbeReport.of(self._session.post("/v3/systems/probe", given, timeout_s=LOGIN_S))

    def learn_past_jobs(
        self, system_id: str, text: str, form: str, *, queue: str | None = None, time_zone: str | None = None
    ) -> Raw:
        """Let the server learn from a site's own records how long jobs waited. form: SACCT or SWF; queue: of jobs whose
        partition the text does not name; time_zone: of instants that are not Unix time."""
        given = {"format": form, "text": text, "queue": queue, "timeZone": time_zone}
        body = {name: value for name, value in given.items() if value is not None}
        return dict(self._session.post(f"/v3/systems/{segment(system_id)}/pastJobs", body, timeout_s=RECORD_S))

    def node_facts(self, system_id: str) -> list[Raw]:
        """What the nodes can do, by class, each fact with what showed it."""
        return list(self._session.get(f"/v3/systems/{segment(system_id)}/nodeFacts"))

    def look_at_nodes(self, system_id: str) -> None:
        """Let small jobs look at the nodes again, soon."""
        self._session.post(f"/v3/systems/{segment(system_id)}/nodeFacts")

    def strays(self, system_id: str) -> list[Raw]:
        """Runs there that no job and no pod waits for."""
        return list(self._session.get(f"/v3/systems/{segment(system_id)}/strays"))

    # -- scheduler profiles --------------------------------------------------------------------------------------

    def profiles(self) -> list[Raw]:
        """What sites want of their jobs, by name: modules to load, options to leave out."""
        return list(self._session.get(_PROFILES))

    def profile(self, name: str) -> Raw:
        """One of them."""
        return dict(self._session.get(f"{_PROFILES}/{segment(name)}"))

    def create_profile(self, definition: Raw) -> None:
        """Keep a profile; it cannot be changed later."""
        self._session.create(_PROFILES, definition)

    def remove_profile(self, name: str) -> None:
        """Forget one; systems and jobs that took it go on with what it said."""
        self._session.call("DELETE", f"{_PROFILES}/{segment(name)}")

    # -- credentials ---------------------------------------------------------------------------------------------

    def credential(self, system_id: str, user: str) -> Raw:
        """How the user is known to the system, without the secrets."""
        return dict(self._session.get(_credential(system_id, user)))

    def put_credential(self, system_id: str, user: str, credential: Mapping[str, Any], *, check: bool = True) -> Raw:
        """Store a credential: ``loginUser``, ``privateKey``, ``publicKey``, ``password``. Without key and password the
        server makes a key pair and answers its public half. check: the server logs in with it first."""
        params = None if check else {"skipCredentialCheck": "true"}
        path = _credential(system_id, user)
        return self._session.create(path, dict(credential), params=params, timeout_s=LOGIN_S) or {}

    def check_credential(self, system_id: str, user: str) -> Raw:
        """Log in for real; an error carries ssh's own words."""
        return self._session.post(f"{_credential(system_id, user)}/check", timeout_s=LOGIN_S) or {}

    def remove_credential(self, system_id: str, user: str) -> None:
        """Forget the credential, and the host key that was seen with it."""
        self._session.call("DELETE", _credential(system_id, user))


def _credential(system_id: str, user: str) -> str:
    return f"/v3/systems/credential/{segment(system_id)}/user/{segment(user)}"
