"""What images are and need as the server reads them, and logins for registries."""

from __future__ import annotations

from collections.abc import Sequence

from berth.records import Raw
from berth.session import Session, segment

READ_S = 120.0
"""How long an answer may take for which the server asks a registry."""

UNPACK_S = 1800.0
"""How long an answer may take for which the server fetches and unpacks an image."""


class Images:
    """Everything about images; reach it as ``client.images``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def inspect(self, reference: str, *, platform: str | None = None, deep: bool = False) -> Raw:
        """What an image is and needs on a platform (``linux/amd64`` when not said), each need with its evidence.

        deep: the server fetches it and looks at its files, where its operator allows that.
        """
        params = {"reference": reference}
        if platform is not None:
            params["platform"] = platform
        if deep:
            params["deep"] = "true"
        timeout_s = UNPACK_S if deep else READ_S
        return dict(self._session.call("GET", "/v3/images/inspect", params=params, timeout_s=timeout_s)["result"])

    # -- registries ----------------------------------------------------------------------------------------------

    def logins(self) -> Sequence[Raw]:
        """The registries that the user is logged in to, without the secrets."""
        return list(self._session.get("/v3/images/logins"))

    def login(self, registry: str, username: str, password: str, *, check: bool = True) -> Raw:
        """Store the user's login for a registry. check: the server asks the registry first."""
        params = None if check else {"skipCredentialCheck": "true"}
        body = {"username": username, "password": password}
        path = f"/v3/images/logins/{segment(registry)}"
        return dict(self._session.call("PUT", path, params=params, body=body, timeout_s=READ_S)["result"])

    def logout(self, registry: str) -> None:
        """Forget the user's login for a registry."""
        self._session.call("DELETE", f"/v3/images/logins/{segment(registry)}")
