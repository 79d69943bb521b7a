"""Relays as on the nodes of an allocation: real processes of the program that travels, all on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from images.programs import relay

PROGRAM = Path(relay.__file__)
DRIVER = """
import os, signal, sys, time
sys.path.insert(0, {folder!r})
import relay
{tweak}
sys.exit(relay.main(["run", {instructions!r}]))
"""

KILLED_AT = """
put = relay.Copy.put
def put_and_perhaps_die(self, number, content):
    kept = put(self, number, content)
    if len(self.arrived) - self.resumed >= {chunks}:
        os.kill(os.getpid(), signal.{sign})
    return kept
relay.Copy.put = put_and_perhaps_die
"""
"""Ends (SIGKILL) or halts (SIGSTOP) a relay after so many chunks."""

LIES = """
wrong_left = [{times}]
send_chunk = relay.send_chunk
def lie(sock, copy, number):
    if not wrong_left[0]:
        return send_chunk(sock, copy, number)
    wrong_left[0] -= 1
    content = bytearray(copy.read(number))
    content[len(content) // 2] ^= 1
    sock.sendall(relay.FRAME.pack(relay.CHUNK, number, len(content)) + content)
relay.send_chunk = lie
"""
"""Flips a bit in so many of the chunks that it gives."""

SLOW = """
send_chunk = relay.send_chunk
def dawdle(sock, copy, number):
    time.sleep({pause_s})
    send_chunk(sock, copy, number)
relay.send_chunk = dawdle
"""

SMALL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))
"""

FULL_DISK = """
import errno
pwrite = os.pwrite
def pwrite_while_there_is_room(file, content, offset):
    if offset > {limit_bytes}:
        raise OSError(errno.ENOSPC, "No space left on device")
    return pwrite(file, content, offset)
os.pwrite = pwrite_while_there_is_room
"""


class Fleet:
    """The nodes of one run: a random image, its index, a token, and a disk (a folder) per node."""

    def __init__(self, folder: Path, parents: Sequence[int | None], *, chunks: int = 24, seed: int = 1, **fields: Any):
        self.folder, self.parents, self.fields = folder, parents, fields
        self.content = random.Random(seed).randbytes(chunks * 4096 - 1000)
        self.source = folder / "source.sqfs"
        self.source.write_bytes(self.content)
        self.digest = self.digest_of(self.source)
        self.token = folder / "token"
        self.token.touch(0o600)
        self.token.write_text(secrets.token_hex(32))
        self.meeting = folder / "meeting"
        self.meeting.mkdir()
        self.running: dict[int, subprocess.Popen[str]] = {}

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.communicate()

    def disk(self, position: int) -> Path:
        return self.folder / f"disk{position}"

    def image(self, position: int) -> Path:
        return self.disk(position) / "image.sqfs"

    def index_text(self) -> str:
        return "".join(relay.index_lines(self.source, 4096))

    @staticmethod
    def digest_of(path: Path) -> str:
        return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()

    def instructions(self, position: int, **fields: Any) -> Path:
        rows = [line.split() for line in self.index_text().splitlines()]
        told = {
            "digest": self.digest,
            "size_bytes": len(self.content),
            "index": [(int(length), digest) for length, digest in rows],
            "peers": [f"n{one}" for one in range(len(self.parents))],
            "parents": list(self.parents),
            "token_path": str(self.token),
            "meeting_dir": str(self.meeting),
            "source": str(self.source) if position == 0 else str(self.folder / "not-seen-from-here"),
            "destination": str(self.image(position)),
            "me": f"n{position}",
            "address": "127.0.0.1",
            "give_up_s": 100,
        }
        path = self.folder / f"instructions{position}.json"
        path.write_text(json.dumps({**told, **self.fields, **fields}))
        return path

    def start(self, position: int, tweak: str = "", **fields: Any) -> subprocess.Popen[str]:
        script = DRIVER.format(
            folder=str(PROGRAM.parent), instructions=str(self.instructions(position, **fields)), tweak=tweak
        )
        python = os.environ.get("BERTH_RELAY_PYTHON", sys.executable)
        argv = [python, "-I", "-S", "-c", script]
        self.running[position] = subprocess.Popen(argv, text=True, stdout=subprocess.PIPE)
        return self.running[position]

    def address_of(self, position: int) -> tuple[str, int]:
        """Where a relay listens, once it does."""
        place = self.meeting / str(position)
        while not place.exists():
            assert self.running[position].poll() is None, "the relay has ended"
        host, port = json.loads(place.read_text())
        return host, port

    def start_all(self, tweaks: dict[int, str] | None = None) -> None:
        for position in range(len(self.parents)):
            self.start(position, (tweaks or {}).get(position, ""))

    def outcome(self, position: int) -> dict[str, Any]:
        """What a relay said at its end; the exit status beside it, as ``exit``."""
        process = self.running.pop(position)
        try:
            said, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return {"exit": process.returncode, **(json.loads(said) if said else {})}

    def outcomes(self) -> dict[int, dict[str, Any]]:
        return {position: self.outcome(position) for position in sorted(self.running)}

    def has_image(self, position: int) -> bool:
        return self.image(position).read_bytes() == self.content

    def leftovers(self, position: int) -> list[str]:
        """Files on a node's disk that are neither the image nor the note that it was proven."""
        names = {path.name for path in self.disk(position).iterdir()}
        return sorted(names - {"image.sqfs", ".image.sqfs.proof"})


def chain(count: int) -> list[int | None]:
    """Each node's parent is the one before it."""
    return [None, *range(count - 1)]


TREE_OF_7: list[int | None] = [None, 0, 1, 1, 0, 4, 4]
