"""What images are and need, as the server reads them."""

from __future__ import annotations

from berth.records import Raw
from berth.session import Session

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
