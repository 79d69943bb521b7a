"""Carries many TCP connections over standard input and output, where sshd forwards none.

Self-contained, for Python 3.6 and later. Both ways go frames: the number of a connection, a kind, a length, so many
bytes. Each side sends at most WINDOW_BYTES on a connection that the other did not say ``room`` for. It ends with its
standard input.
"""

import os
import queue
import socket
import struct
import sys
import threading

FRAME = struct.Struct("!IBI")
OPEN, OPENED, FAILED, DATA, END, CLOSE, ROOM = range(1, 8)
WINDOW_BYTES = 1024 * 1024
PIECE_BYTES = 64 * 1024


class Connection:
    """One connection from here to a port. What comes for it waits in line; WINDOW_BYTES bounds that."""

    sock: socket.socket

    def __init__(self, number, told):
        self.number, self.line = number, queue.Queue()
        self.room, self.room_bytes, self.is_open = threading.Condition(), WINDOW_BYTES, True
        in_background(self.run, told)

    def run(self, told):
        host, port, timeout_s = told.decode("utf-8").split(" ")
        try:
            self.sock = socket.create_connection((host, int(port)), float(timeout_s))
            self.sock.settimeout(None)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, ValueError) as error:
            refused = isinstance(error, ConnectionRefusedError)
            send(self.number, FAILED, ("refused" if refused else str(error)).encode("utf-8", "replace"))
            return
        send(self.number, OPENED)
        in_background(self.read)
        self.write()

    def write(self):
        """What came for it, in its order; the end of the line is the end of the connection."""
        while True:
            kind, content = self.line.get()
            try:
                if kind == DATA:
                    self.sock.sendall(content)
                    send(self.number, ROOM, struct.pack("!I", len(content)))
                elif kind == END:
                    self.sock.shutdown(socket.SHUT_WR)
                else:
                    break
            except OSError:
                self.close()
        with self.room:
            self.is_open = False
            self.room.notify()
        self.close()

    def read(self):
        while True:
            with self.room:
                while self.room_bytes == 0 and self.is_open:
                    self.room.wait()
                most_bytes = min(self.room_bytes, PIECE_BYTES)
            if most_bytes == 0:
                return
            try:
                content = self.sock.recv(most_bytes)
            except OSError:
                send(self.number, CLOSE)
                return
            if not content:
                send(self.number, END)
                return
            with self.room:
                self.room_bytes -= len(content)
            send(self.number, DATA, content)

    def more_room(self, count_bytes):
        with self.room:
            self.room_bytes += count_bytes
            self.room.notify()

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


sending = threading.Lock()


def send(number, kind, content=b""):
    with sending:
        try:
            sys.stdout.buffer.write(FRAME.pack(number, kind, len(content)) + content)
            sys.stdout.buffer.flush()
        except OSError:
            os._exit(0)  # nobody listens any more


def in_background(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()


def main():
    connections = {}
    sys.stdout.buffer.flush()
    while True:
        head = sys.stdin.buffer.read(FRAME.size)
        if len(head) < FRAME.size:
            os._exit(0)
        number, kind, length = FRAME.unpack(head)
        content = sys.stdin.buffer.read(length)
        if kind == OPEN:
            connections[number] = Connection(number, content)
        elif kind == ROOM and number in connections:
            connections[number].more_room(struct.unpack("!I", content)[0])
        elif number in connections:
            connections[number].line.put((kind, content))
            if kind == CLOSE:
                del connections[number]


if __name__ == "__main__":
    threading.stack_size(512 * 1024)
    main()
