# Makes directories with room in them, then writes files whole; again and again with the same result. Standard input is
# JSON: the directories, and of each file its path, mode and content. Paths and contents are in base64, for they are
# bytes. Answers nothing when all is done, else what the system said. Python, and not a shell, so that a thousand jobs
# cost one process.
import base64
import json
import os
import sys

ROOM_BYTES = 65536


def stage(directories, files):
    for directory in map(base64.b64decode, directories):
        os.makedirs(directory, exist_ok=True)
        make_sure_of_room(directory)
    for path, mode, content in files:
        write_whole(base64.b64decode(path), mode, base64.b64decode(content))


def make_sure_of_room(directory):
    """A file system that is full, or a quota, often lets a directory be made and refuses the first byte in it."""
    trial = directory + b"/.berth-room.%d" % os.getpid()
    try:
        with open(trial, "wb", opener=private) as file:
            file.write(b" " * ROOM_BYTES)
    finally:
        remove(trial)


def write_whole(path, mode, content):
    new = path + b".berth-%d" % os.getpid()
    try:
        with open(new, "wb", opener=private) as file:
            file.write(content)
        os.chmod(new, mode)
        os.rename(new, path)
    except OSError:
        remove(new)
        raise


def private(path, flags):
    return os.open(path, flags, 0o600)


def remove(path):
    try:
        os.unlink(path)
    except OSError:
        pass


if __name__ == "__main__":
    try:
        stage(**json.load(sys.stdin))
    except OSError as error:
        where = os.fsencode(error.filename) + b": " if error.filename else b""
        sys.stdout.buffer.write(where + os.fsencode(error.strerror or repr(error)))
