"""A world whose clusters keep images: a registry that counts what it is asked, a workshop, and stores on real disks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from images.bring import Bringer
from images.credentials import no_logins
from images.origins import Origins
from images.workshop import Workshop
from scheduler.model.images import ImageCopy
from scheduler.model.jobs import Attempt, Job
from scheduler.ports import Images
from scheduler.store.database import Database
from scheduler.store.images import ImageStore
from scheduler.store.jobs import JobStore
from tests.fakes.system import FakeSystem
from tests.fakes.tenant import World as Tenant
from tests.images.tarballs import entry, tar
from tests.reconcile.hedging import SECOND, add_system
from tests.reconcile.world import CLUSTER, World, prepared

IMAGE = "docker://reg.org/app:1"
LAYERS = (tar(entry("usr/bin/app", b"#!/bin/sh\n", mode=0o755), entry("data", bytes(range(256)) * 4096)),)


class ImageWorld(World):
    """``home``: where the workshop and the stores are."""

    def __init__(self, database: Database, home: Path, tenant: Tenant, **others: FakeSystem) -> None:
        self.home, self.tenant = home, tenant
        super().__init__(database, FakeSystem(), others=others, images=images_of(home, tenant))

    @property
    def store(self) -> Path:
        """Of the account that jobs run as, on ``cluster``."""
        return self.home / "cluster" / "user-alice"

    def restart(self) -> None:
        """A new process: nothing of images is in memory any more."""
        self.images = images_of(self.home, self.tenant)
        super().restart()

    def blobs_asked_for(self) -> int:
        """Layers that were asked of the registry."""
        layers = {digest for (_, digest), blob in self.tenant.registry.blobs.items() if blob[:2] == b"\x1f\x8b"}
        return sum(path.rpartition("/")[2] in layers for path in self.tenant.web.paths("GET", "/blobs/"))

    async def copies(self) -> list[ImageCopy]:
        async with self.database.reading() as db:
            return list(await ImageStore(db).of_tenant("dev"))

    def told(self, attempt: Attempt, system: FakeSystem | None = None) -> Mapping[str, str]:
        """What the job's script learns of its image: the file that it would run, or why there is none."""
        path = f"/work/.berth/markers/{attempt.marker}/image.sh"
        lines = (system or self.system).files.nodes.get(path)
        if not isinstance(lines, bytes):
            return {}
        script = lines.decode() + 'printf "%s\\0%s" "$image" "${why:-}"'
        said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")
        return {"image": said[0], "why": said[1]}

    def image_of(self, attempt: Attempt) -> bytes:
        """The file that the job's script would run; nothing where there is none."""
        path = self.told(attempt).get("image")
        return Path(path).read_bytes() if path else b""

    def purge(self, attempt: Attempt) -> None:
        """The site removes the file of which the job was told."""
        Path(self.told(attempt)["image"]).unlink()

    def leases(self, copy: ImageCopy) -> list[str]:
        """Who needs the image, as the store knows."""
        return sorted(path.name for path in self._leases(copy).iterdir())

    def age(self, copy: ImageCopy, seconds: float) -> None:
        """Let all leases of the image be as old."""
        for path in self._leases(copy).iterdir():
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, then))

    def fill(self) -> Path:
        """Another image fills the store up to its quota; its file."""
        digest = "f" * 64
        path = self.store / "blobs" / "sha256" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(2**20))
        (self.store / "meta").mkdir(exist_ok=True)
        (self.store / "meta" / f"{digest}.json").write_text("{}")
        return path

    def _leases(self, copy: ImageCopy) -> Path:
        return self.store / "leases" / str(copy.file_digest).removeprefix("sha256:")

    async def told_in_history(self, job: Job) -> list[Mapping[str, object]]:
        async with self.database.reading() as db:
            lines = await JobStore(db).history("dev", job.uuid)
        return [json.loads(line.description) for line in lines if line.detail == "IMAGE"]


def images_of(home: Path, tenant: Tenant) -> Images:
    """What one process reads images with."""
    tenant.another()
    source = Origins(tenant.access.exchange, tenant._logins)
    public = Origins(tenant.access.exchange, no_logins) if tenant.login else None
    return Images(source, Bringer(Workshop(home / "workshop")), public=public)


def notes(home: Path, system_id: str = "cluster", **images: object) -> dict[str, object]:
    return {"berth": {"allowCopies": True, "images": {"store": str(home / system_id), **images}}}


async def image_world(
    database: Database, home: Path, tenant: Tenant | None = None, *, twice: bool = False, **images: object
) -> ImageWorld:
    """The cluster keeps images, and with ``twice`` a second one, too."""
    tenant = tenant or Tenant()
    tenant.registry.push_image("app", "1", LAYERS, Cmd=["app"])
    await prepared(database, replace(CLUSTER, notes=notes(home, **images)))
    if not twice:
        return ImageWorld(database, home, tenant)
    await add_system(database, replace(SECOND, notes=notes(home, "second", **images)))
    return ImageWorld(database, home, tenant, second=FakeSystem(next_id=5000))
