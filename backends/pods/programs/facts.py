"""The program that tells what the marker directories of pods hold: one JSON request on standard input, one JSON line.

Self-contained, for Python 3.6 and later; it runs where the directories are seen, not on the pods' own nodes.
"""

import json
import os
import sys


def facts(root, markers):
    """Per marker: whether it has begun, what its door says, why it was refused, how it ended; left out: no marker."""
    found = {}
    for marker in markers:
        folder = os.path.join(root, marker)
        try:
            names = os.listdir(folder)  # a network file system looks for new names when a directory is opened
        except FileNotFoundError:
            continue
        found[marker] = {
            "begun": "claim" in names,
            "door": _read(folder, "door"),
            "refused": _read(folder, "refused"),
            "ended": _read(folder, "exit"),
            "void": "void" in names,
        }
    return found


def _read(folder, name):
    try:
        with open(os.path.join(folder, name)) as file:
            return json.load(file)
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(facts(**json.loads(sys.stdin.buffer.read().decode("ascii")))) + "\n")
