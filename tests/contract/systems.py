"""The systems under contract: one line each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from backends.k8s.storage import VolumeStorage
from backends.local.storage import LocalStorage
from backends.ssh.storage import SftpStorage
from tests.contract.directory import DirectorySubject
from tests.contract.fake import FakeStorageSubject, FakeSubject
from tests.contract.local import LocalSubject, unprivileged_directory
from tests.contract.slurm import slurm_subject
from tests.contract.sshd import SshSubject, host_system, sshd
from tests.contract.subjects import StorageSubject, Subject
from tests.contract.volume import LocalPod


@asynccontextmanager
async def fake(tmp_path: Path) -> AsyncIterator[Subject]:
    yield FakeSubject()


@asynccontextmanager
async def ssh(tmp_path: Path) -> AsyncIterator[Subject]:
    async with sshd(tmp_path) as server:
        connection = server.connection()
        subject = SshSubject(connection, tmp_path)
        try:
            yield subject
        finally:
            await subject.all_ended()
            await connection.aclose()


@asynccontextmanager
async def local(tmp_path: Path) -> AsyncIterator[Subject]:
    with unprivileged_directory() as work:
        subject = LocalSubject(work, tmp_path / "state")
        try:
            yield subject
        finally:
            await subject.all_ended()


@asynccontextmanager
async def fake_storage(tmp_path: Path) -> AsyncIterator[StorageSubject]:
    yield FakeStorageSubject()


@asynccontextmanager
async def local_storage(tmp_path: Path) -> AsyncIterator[StorageSubject]:
    subject = DirectorySubject(tmp_path, LocalStorage)
    yield subject
    await subject.storage.aclose()


@asynccontextmanager
async def sftp(tmp_path: Path) -> AsyncIterator[StorageSubject]:
    async with sshd(tmp_path) as server:
        connection = server.connection()
        try:
            yield DirectorySubject(tmp_path, lambda root: SftpStorage(host_system(root), connection))
        finally:
            await connection.aclose()


@asynccontextmanager
async def volume(tmp_path: Path) -> AsyncIterator[StorageSubject]:
    yield DirectorySubject(tmp_path, lambda root: VolumeStorage(LocalPod(root, tmp_path)))


BACKENDS: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Subject]]] = {
    "fake": fake,
    "local": local,
    "ssh": ssh,
    "slurm": slurm_subject,
}

STORAGES: Mapping[str, Callable[[Path], AbstractAsyncContextManager[StorageSubject]]] = {
    "fake": fake_storage,
    "local": local_storage,
    "sftp": sftp,
    "volume": volume,
}
