"""Pods on this machine: their doors are sockets in directories of the account that runs them."""

from __future__ import annotations

import asyncio
import getpass
import socket

from backends.beside import Commands
from backends.local.commands import LocalCommands, account_for
from backends.paths import marker_root
from backends.pods.facts import DoorFacts
from backends.pods.host import DoorHost
from backends.pods.sockets import OpenSocket
from scheduler.model.systems import System


class LocalPodHost(DoorHost):
    """This machine as one owner's login. NotAuthorised when no account may run pods (see ``account_for``)."""

    def __init__(self, system: System, *, commands: Commands | None = None) -> None:
        account = account_for(system.berth_notes.get("runAs"))
        root = marker_root(system, account.name if account else getpass.getuser())
        super().__init__(commands or LocalCommands(account), root, reach)


async def reach(door: DoorFacts) -> OpenSocket:
    """The socket of a door."""
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, door.socket)
    except BaseException:
        connection.close()
        raise
    return OpenSocket(connection)
