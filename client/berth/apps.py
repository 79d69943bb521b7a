"""The apps of a server: named, versioned descriptions of an image and how to run it."""

from __future__ import annotations

from collections.abc import Iterator

from berth.paging import pages
from berth.records import Raw
from berth.session import Session, segment


class Apps:
    """Everything about apps; reach it as ``client.apps``. Definitions are as Tapis writes an App."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self) -> Iterator[Raw]:
        """The apps that the user may see, with every attribute."""
        return pages(self._session, "/v3/apps", listType="ALL", select="allAttributes", orderBy="id(asc)")

    def get(self, app_id: str, version: str | None = None) -> Raw:
        """One version of an app, by default the newest."""
        return dict(self._session.get(f"/v3/apps/{segment(app_id)}" + (f"/{segment(version)}" if version else "")))

    def create(self, definition: Raw) -> None:
        """Add an app, or a version to one."""
        self._session.create("/v3/apps", definition)

    def delete(self, app_id: str) -> None:
        """Remove an app with all its versions; its jobs keep their records."""
        self._session.post(f"/v3/apps/{segment(app_id)}/delete")
