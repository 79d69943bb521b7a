"""What images are and need as the server reads them, and logins for registries."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from berth.errors import InvalidInput, NotFound, TimedOut
from berth.paging import pages
from berth.records import Raw
from berth.session import Session, segment

READ_S = 120.0
"""How long an answer may take for which the server asks a registry."""

UNPACK_S = 1800.0
"""How long an answer may take for which the server fetches and unpacks an image."""

PIECE_BYTES = 2**20

LOOK_S = 1.0
"""Between two looks at an image that is waited for."""

SETTLED = frozenset({"PRESENT", "FAILED"})


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

    def why(
        self,
        reference: str,
        *,
        system: str | None = None,
        nodes: int = 1,
        mpi: bool = False,
        gpus: bool | None = None,
    ) -> Raw:
        """Where an image runs and where not, by class of nodes, each finding with its evidence."""
        params = {"reference": reference, "systemId": system, "nodes": nodes, "mpi": mpi, "gpus": gpus}
        return dict(self._session.call("GET", "/v3/images/why", params=params, timeout_s=READ_S)["result"])

    # -- copies on systems ---------------------------------------------------------------------------------------

    def list(self, *, system: str | None = None, state: str | None = None) -> Iterator[Raw]:
        """The images on systems that the user's jobs would use, or on their way there; and all on own systems."""
        conditions = [f"({name}.eq.{value})" for name, value in (("systemId", system), ("state", state)) if value]
        return pages(
            self._session,
            "/v3/images",
            search="~".join(conditions) or None,
            select="allAttributes",
            orderBy="systemId(asc),reference(asc)",
        )

    def get(self, image_id: int) -> Raw:
        """One of them, with the jobs that use it."""
        return dict(self._session.get(f"/v3/images/{image_id}"))

    def stage(self, reference: str, systems: Sequence[str]) -> Sequence[Raw]:
        """Have an image brought to systems; what is there stays, what failed is tried again."""
        body = {"reference": reference, "systemIds": [*systems]}
        return [*self._session.create("/v3/images/stage", body, timeout_s=READ_S)]

    def wait(
        self,
        image_ids: Sequence[int],
        *,
        timeout_s: float | None = None,
        on_change: Callable[[Raw], None] = lambda copy: None,
    ) -> Sequence[Raw]:
        """The images once each of them is PRESENT or FAILED. TimedOut when that takes longer than ``timeout_s``.

        on_change is told each image as it is at every look.
        """
        session, found = self._session, dict[int, Raw]()
        ends_s = None if timeout_s is None else session.now() + timeout_s
        while True:
            for image_id in image_ids:
                if found.get(image_id, {}).get("state") not in SETTLED:
                    found[image_id] = self.get(image_id)
                    on_change(found[image_id])
            if all(copy["state"] in SETTLED for copy in found.values()):
                return [found[image_id] for image_id in image_ids]
            if ends_s is not None and session.now() >= ends_s:
                raise TimedOut("the image is not there in the time given", "it goes on: berth images ls")
            session.sleep(LOOK_S)

    def pin(self, image_id: int) -> Raw:
        """Keep it though no job uses it."""
        return dict(self._session.post(f"/v3/images/{image_id}/pin", timeout_s=READ_S))

    def unpin(self, image_id: int) -> Raw:
        """Let it go when nobody uses it and room is needed."""
        return dict(self._session.post(f"/v3/images/{image_id}/unpin", timeout_s=READ_S))

    def remove(self, image_id: int) -> None:
        """Let it go now, where no job may still read it."""
        self._session.call("DELETE", f"/v3/images/{image_id}", timeout_s=READ_S)

    def collect(self, system_id: str) -> Raw:
        """Make room in the user's store on a system."""
        return dict(self._session.post("/v3/images/gc", {"systemId": system_id}, timeout_s=READ_S))

    # -- files of the user ---------------------------------------------------------------------------------------

    def push(
        self, file: Path, *, name: str | None = None, on_bytes: Callable[[int, int], None] = lambda done, total: None
    ) -> Raw:
        """Give a SIF, an OCI archive or an archive of docker save to the server; ``reference`` is its name for jobs.

        What is there already is not sent again. on_bytes is told how many bytes have gone, and of how many.
        InvalidInput when the file cannot be read.
        """
        try:
            with file.open("rb") as content:
                digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
                size_bytes = content.tell()
            path = f"/v3/images/files/{segment(digest)}"
            with contextlib.suppress(NotFound):
                return dict(self._session.get(path))

            def pieces() -> Iterator[bytes]:
                done = 0
                with file.open("rb") as content:
                    while piece := content.read(PIECE_BYTES):
                        yield piece
                        done += len(piece)
                        on_bytes(done, size_bytes)

            params = {"name": name or file.name}
            return dict(self._session.upload(path, pieces, size_bytes, params=params, timeout_s=READ_S))
        except OSError as error:
            raise InvalidInput(f"cannot read {file}: {error.strerror}") from None

    def pushed(self) -> Sequence[Raw]:
        """The files that the user pushed."""
        return [*pages(self._session, "/v3/images/files")]

    def remove_pushed(self, digest: str) -> None:
        """Forget a file that the user pushed."""
        self._session.call("DELETE", f"/v3/images/files/{segment(digest)}")

    # -- registries ----------------------------------------------------------------------------------------------

    def logins(self) -> Sequence[Raw]:
        """The registries that the user is logged in to, without the secrets."""
        return [*pages(self._session, "/v3/images/logins")]

    def login(self, registry: str, username: str, password: str, *, check: bool = True) -> Raw:
        """Store the user's login for a registry. check: the server asks the registry first."""
        params = None if check else {"skipCredentialCheck": "true"}
        body = {"username": username, "password": password}
        path = f"/v3/images/logins/{segment(registry)}"
        return dict(self._session.call("PUT", path, params=params, body=body, timeout_s=READ_S)["result"])

    def logout(self, registry: str) -> None:
        """Forget the user's login for a registry."""
        self._session.call("DELETE", f"/v3/images/logins/{segment(registry)}")
