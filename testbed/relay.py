"""The only door into a cluster: listens on the host's 127.0.0.1 and passes bytes to an address inside.

Run as ``python relay.py FD=ADDRESS:PORT ...``: the parent opened the sockets in the host's network namespace, and they
stay there, while this process was started in the switch's and so connects from inside.
"""

import asyncio
import contextlib
import functools
import signal
import socket
import struct
import sys

_CHUNK_BYTES = 1 << 18


async def main(doors: list[str]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with contextlib.AsyncExitStack() as servers:
        for door in doors:
            descriptor, _, target = door.partition("=")
            address, _, port = target.partition(":")
            serve = functools.partial(_serve, address, int(port))
            listening = socket.socket(fileno=int(descriptor))
            await servers.enter_async_context(await asyncio.start_server(serve, sock=listening, backlog=512))
        await stop.wait()


async def _serve(address: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        inner_reader, inner_writer = await asyncio.open_connection(address, port)
    except OSError:
        _reset(writer)
        return
    try:
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
    finally:
        writer.close()
        inner_writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass bytes one way; an end of stream is passed on as such, a broken connection breaks the other one."""
    try:
        while chunk := await source.read(_CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
    except OSError:
        _reset(sink)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a refusal or a crash does: the other side sees it reset, not politely closed."""
    linger_not = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
    writer.transport.abort()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
