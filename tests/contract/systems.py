"""The systems under contract: one line each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from backends.local.commands import LocalCommands
from backends.ssh.backend import SshBackend
from scheduler.model.systems import System
from tests.contract.fake import FakeStorageSubject, FakeSubject
from tests.contract.fork import CuttableCommands, ForkSubject
from tests.contract.local import LocalStorageSubject, LocalSubject, unprivileged_directory
from tests.contract.subjects import StorageSubject, Subject


@asynccontextmanager
async def fake(tmp_path: Path) -> AsyncIterator[Subject]:
    yield FakeSubject()


@asynccontextmanager
async def ssh(tmp_path: Path) -> AsyncIterator[Subject]:
    commands = CuttableCommands(LocalCommands())
    system = System(tenant="t", id="host", uuid="u", owner="o", host="localhost", root_dir=str(tmp_path))
    subject = ForkSubject(SshBackend(system, "me", commands), commands, tmp_path)
    try:
        yield subject
    finally:
        subject.end_everything()


@asynccontextmanager
async def local(tmp_path: Path) -> AsyncIterator[Subject]:
    with unprivileged_directory() as work:
        subject = LocalSubject(work, tmp_path / "state")
        try:
            yield subject
        finally:
            subject.end_everything()


@asynccontextmanager
async def fake_storage(tmp_path: Path) -> AsyncIterator[StorageSubject]:
    yield FakeStorageSubject()


@asynccontextmanager
async def local_storage(tmp_path: Path) -> AsyncIterator[StorageSubject]:
    subject = LocalStorageSubject(tmp_path)
    yield subject
    await subject.storage.aclose()


BACKENDS: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Subject]]] = {
    "fake": fake,
    "local": local,
    "ssh": ssh,
}

STORAGES: Mapping[str, Callable[[Path], AbstractAsyncContextManager[StorageSubject]]] = {
    "fake": fake_storage,
    "local": local_storage,
}
