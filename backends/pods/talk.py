"""What Berth says to the door of a pod: the proof of the secret, then what it wants. See ``programs/door.py``."""

from __future__ import annotations

import hmac
import json
import os
import struct
from collections.abc import Sequence

from backends.base import REMOTE_OUTPUT_BYTES, Channel
from backends.pods.sockets import OpenSocket
from backends.streams import exactly
from scheduler.model.errors import BackendUnavailable, PortClosed, UnexpectedReply
from scheduler.model.pods import Executed

GREETING = b"BERTH-DOOR 1\n"
NONCE_BYTES, MAC_BYTES = 32, 32
FRAME_BYTES = 5
YES, NO = b"+", b"-"
CLOSED = "the door of the pod closed the connection"


async def greet(channel: Channel, secret: bytes, wish: bytes = b"") -> None:
    """Prove the secret and have it proved. A wish goes with our proof, so that it costs no way of its own."""
    greeting = await exactly(channel, len(GREETING) + NONCE_BYTES, CLOSED)
    if not greeting.startswith(GREETING):
        raise ConnectionError("somebody else answers where the door of the pod was")
    nonces = greeting[len(GREETING) :] + os.urandom(NONCE_BYTES)
    await channel.write(nonces[-NONCE_BYTES:] + _mac(secret, b"berth" + nonces) + wish)
    if not hmac.compare_digest(_mac(secret, b"door" + nonces), await exactly(channel, MAC_BYTES, CLOSED)):
        raise ConnectionError("who answers where the door of the pod was does not know its secret")


def to_connect(port: int) -> bytes:
    """The wish for a connection to a port of the pod."""
    return b"connect %d\n" % port


async def connected(channel: Channel, port: int) -> Channel:
    """The connection to the port: what the door of this machine hands over, and the channel is closed; else the channel
    itself from now on. PortClosed where nobody listens."""
    answer, handed = await channel.take() if isinstance(channel, OpenSocket) else (await channel.read(1), None)
    if not _is_yes(answer):
        raise PortClosed(f"nobody listens on port {port} of the pod")
    if handed is None:
        return channel
    await channel.aclose()
    return handed


async def execute(channel: Channel, argv: Sequence[str], stdin: bytes, timeout_s: float) -> Executed:
    """What a command wrote and how it ended. One that takes longer is ended, with exit code 124."""
    told = {"argv": list(argv), "stdin_bytes": len(stdin), "timeout_s": timeout_s}
    request = json.dumps(told).encode("ascii")
    await channel.write(b"execute %d\n" % len(request) + request + stdin)
    if not _is_yes(await channel.read(1)):
        raise BackendUnavailable("the container has not begun yet")
    outputs = {"o": bytearray(), "e": bytearray()}
    while True:
        kind, length = struct.unpack("!cI", await exactly(channel, FRAME_BYTES, CLOSED))
        if sum(map(len, outputs.values())) + length > REMOTE_OUTPUT_BYTES:
            raise UnexpectedReply(f"the command wrote more than {REMOTE_OUTPUT_BYTES >> 20} MiB")
        content = await exactly(channel, length, CLOSED)
        if kind == b"x":
            exit_code = json.loads(content)["exit_code"]
            return Executed(exit_code=exit_code, stdout=bytes(outputs["o"]), stderr=bytes(outputs["e"]))
        outputs[kind.decode("ascii")] += content


def _is_yes(answer: bytes) -> bool:
    if not answer:
        raise ConnectionError(CLOSED)
    if answer not in (YES, NO):
        raise UnexpectedReply("the door of a pod was not understood", repr(answer))
    return answer == YES


def _mac(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, "sha256")
