"""From an image in a registry to one file that systems mount: fetched, unpacked, learnt from and converted once.

Each step leaves what it made under the digest that it is known by. Whoever asks again, or after a crash, goes on from
there; whoever asks at the same time waits for the first.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from images.convert import Compressor, ConverterKey, Share, convert, converter_key, installed_version
from images.errors import BlobCorrupt, ImageUnusable
from images.inspect import inspect
from images.layers import PackedLayer, Unpacked, unpack
from images.manifests import Config, Descriptor
from images.needs import Needs, StartCommand
from images.platforms import Platform
from images.runfiles import RunConfig, write_run_files
from images.sources import FileSink, Resolved, Source
from images.streams import Limits
from images.survey import Survey
from images.threads import Halt, HaltingFile, in_thread
from images.workshop import Locks, Workshop

AT_ONCE = 3
"""Blobs of one image that are fetched at the same time: registries slow down who asks for more."""

_NEWEST_S = 2**32 - 1
"""The last second that a squashfs can say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """An image as one file on this host. ``digest`` is of the file's bytes, which never change."""

    path: Path
    digest: str
    size_bytes: int
    needs: Needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a conversion gave; kept under the digest of what went into it."""

    digest: str
    size_bytes: int


def needs_of(resolved: Resolved[Any], survey: Survey | None = None, unpacked_bytes: int | None = None) -> Needs:
    """What an image needs: as its manifest and config say, and as its files show where they were looked at."""
    config = resolved.config
    return inspect(
        resolved.manifest_digest,
        platform=_platform(config) if config else None,
        command=_command(config) if config else None,
        labels=config.labels if config else None,
        annotations=resolved.manifest.annotations,
        download_bytes=resolved.manifest.size_bytes,
        unpacked_bytes=unpacked_bytes,
        survey=survey,
    )


class Bringer:
    """Brings images to this host, into ``workshop``. One for the process: it holds the locks.

    keeps_bytes: of blobs and files that may stay for the next image that shares them, None without a limit; with 0
    blobs go as soon as they were unpacked. turn: who unpacks and converts, one at a time. Whose source reads an image
    is each caller's: whoever names a digest that is in the workshop has it.
    """

    def __init__(
        self,
        workshop: Workshop,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        share: Share = Share(),  # noqa: B008 - frozen
        keeps_bytes: int | None = None,
        turn: asyncio.Semaphore | None = None,
    ) -> None:
        self._workshop = workshop
        self._limits, self._share = limits, share
        self._locks, self._turn = Locks(), turn or asyncio.Semaphore(1)
        self._keeps_bytes, self._users = keeps_bytes, Counter[str]()

    @property
    def workshop(self) -> Workshop:
        """Where the files are."""
        return self._workshop

    async def learn(self, resolved: Resolved[Any], source: Source[Any]) -> Needs:
        """What the image needs, its files seen; a SIF is not looked into.

        Errors of ``images.errors`` or FileRefused say why it is not known.
        """
        if resolved.config is None:
            return needs_of(resolved)
        async with self._locks.of(resolved.manifest_digest):
            if known := self._workshop.noted("needs", resolved.manifest_digest, Needs):
                return known
            async with self._unpacked(resolved, source) as (_, needs):
                return needs

    async def bring(self, resolved: Resolved[Any], mountable: frozenset[Compressor], source: Source[Any]) -> Brought:
        """The image as a file for a system whose runtime mounts these; a SIF as it is.

        The errors of ``learn``; ConversionFailed, or SpecInvalid when this host has no mksquashfs that serves.
        """
        if resolved.config is None:
            return self._collected(await self._bring_sif(resolved, source))
        key = converter_key(await installed_version(), mountable)
        name = hashlib.sha256(f"{resolved.manifest_digest};{key}".encode()).hexdigest()
        async with self._locks.of(name):
            made = self._made(name) or await self._make(name, resolved, resolved.config, key, source)
        needs = await self.learn(resolved, source)
        path = self._workshop.used(self._workshop.file(made.digest))
        return self._collected(Brought(path=path, digest=made.digest, size_bytes=made.size_bytes, needs=needs))

    async def _bring_sif(self, resolved: Resolved[Any], source: Source[Any]) -> Brought:
        sif = resolved.manifest.sif
        if sif is None:
            raise ImageUnusable(str(resolved.reference), "holds neither an image nor a SIF", "name one of them")
        path = await self._blob(resolved, sif, source)
        return Brought(path=path, digest=sif.digest, size_bytes=sif.size_bytes, needs=needs_of(resolved))

    # -- files -------------------------------------------------------------------------------------------------------

    def _collected(self, brought: Brought) -> Brought:
        """Where there is too much, what nobody used for longest goes; what was just brought stays."""
        if self._keeps_bytes:
            self._workshop.collect(self._keeps_bytes)
        return brought

    def _made(self, name: str) -> Made | None:
        """What an earlier conversion gave, if all of its file is still there."""
        made = self._workshop.noted("made", name, Made)
        return made if made and self._workshop.has_file(made.digest, made.size_bytes) else None

    async def _make(
        self, name: str, resolved: Resolved[Any], config: Config, key: ConverterKey, source: Source[Any]
    ) -> Made:
        async with self._unpacked(resolved, source) as (tree, _):
            newest_at = await in_thread(lambda halt: _dress(tree, config, halt))
            converted = await convert(tree, tree.with_name("file"), key, self._share, newest_at)
            converted.path.rename(self._workshop.file(converted.digest))
        made = Made(digest=converted.digest, size_bytes=converted.size_bytes)
        self._workshop.note("made", name, made)
        return made

    # -- layers ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _unpacked(self, resolved: Resolved[Any], source: Source[Any]) -> AsyncIterator[tuple[Path, Needs]]:
        """The tree of an image for as long as it is worked on, and what it shows."""
        blobs, diff_ids = resolved.manifest.layers, resolved.config.diff_ids if resolved.config else ()
        if len(blobs) != len(diff_ids):
            raise ImageUnusable(
                str(resolved.reference),
                f"is not a valid image: it has {len(blobs)} layers, and its config names {len(diff_ids)}",
                "push it again",
            )
        if resolved.manifest.size_bytes > self._limits.unpacked_bytes:
            raise ImageUnusable.in_layer(
                f"the layers have more than {self._limits.unpacked_bytes} bytes", "make it smaller"
            )
        with self._using(blobs):
            paths = await self._fetch(resolved, blobs, source)
            async with self._turn, self._workshop.room() as room:
                tree, survey = room / "tree", Survey()
                tree.mkdir()
                try:
                    unpacked = await in_thread(lambda halt: self._unpack(paths, blobs, diff_ids, tree, survey, halt))
                except BlobCorrupt:
                    await in_thread(lambda halt: _remove_damaged(paths, blobs, halt))
                    raise
                needs = needs_of(resolved, survey, unpacked.file_bytes)
                self._workshop.note("needs", resolved.manifest_digest, needs)
                yield tree, needs

    @contextmanager
    def _using(self, blobs: Sequence[Descriptor]) -> Iterator[None]:
        """Where blobs are not kept, the last who uses one removes it, and what came of it."""
        digests = {blob.digest for blob in blobs}
        self._users.update(digests)
        try:
            yield
        finally:
            self._users.subtract(digests)
            for digest in digests if self._keeps_bytes == 0 else ():
                if not self._users[digest]:
                    self._workshop.remove_blob(digest)
            self._users = +self._users

    async def _fetch(self, resolved: Resolved[Any], blobs: Sequence[Descriptor], source: Source[Any]) -> list[Path]:
        """All blobs, a few at a time; the first error ends the others, and what they have stays for the next try."""
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(blob: Descriptor) -> Path:
            async with turn:
                return await self._blob(resolved, blob, source)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(blob)) for blob in blobs]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _blob(self, resolved: Resolved[Any], blob: Descriptor, source: Source[Any]) -> Path:
        path = self._workshop.blob(blob.digest)
        async with self._locks.of(blob.digest):
            if not path.exists():
                with FileSink(path) as sink:
                    await source.fetch(resolved.reference, blob, sink)
            return self._workshop.used(path)

    def _unpack(
        self,
        paths: Sequence[Path],
        blobs: Sequence[Descriptor],
        diff_ids: Sequence[str],
        tree: Path,
        survey: Survey,
        halt: Halt,
    ) -> Unpacked:
        with ExitStack() as stack:
            files = [HaltingFile(stack.enter_context(path.open("rb")), halt) for path in paths]
            layers = [PackedLayer(b.digest, d, f) for b, d, f in zip(blobs, diff_ids, files, strict=True)]
            return unpack(layers, tree, survey, self._limits)


def _dress(tree: Path, config: Config, halt: Halt) -> datetime:
    """Put the run files into a tree; when the newest thing was made that the image itself brought."""
    newest_s = 0.0
    for folder, folders, files in os.walk(tree):
        halt.check()
        newest_s = max(newest_s, *(Path(folder, name).lstat().st_mtime for name in (".", *folders, *files)))
    env = tuple(f"{name}={value}" for name, value in config.env.items())
    write_run_files(str(tree), RunConfig(env, config.entrypoint, config.command, config.labels))
    return datetime.fromtimestamp(min(int(newest_s), _NEWEST_S), UTC)


def _remove_damaged(paths: Sequence[Path], blobs: Sequence[Descriptor], halt: Halt) -> None:
    """Let go of blobs that this host's disk gives back otherwise than they came, so that they are fetched again."""
    for path, blob in zip(paths, blobs, strict=True):
        halt.check()
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if blob.digest != f"sha256:{found}":
            path.unlink()


def _platform(config: Config) -> Platform | None:
    """As the config says; None where it does not."""
    return None if config.platform.architecture == "unknown" else config.platform


def _command(config: Config) -> StartCommand:
    return StartCommand(
        entrypoint=config.entrypoint,
        cmd=config.command,
        env=config.env,
        working_dir=config.working_dir,
        user=config.user,
    )
