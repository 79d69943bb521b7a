"""The client of the server that is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from berth.client import Client


def connect() -> Client:
    """A client with the stored login, or with ``BERTH_URL`` and ``BERTH_TOKEN``; close it."""
    from berth.client import Client

    return Client()
