"""The lines by which a job learns where its image lies: Berth writes them beside the job, which reads them as ``sh``.

They set ``image`` to the file, or leave it empty and say in ``why`` what kept it away. A job that starts long after
they were written looks at the file again.
"""

from __future__ import annotations

from shlex import quote

COPIES, STORE = "copies", "store"
"""Last words of a report: what the nodes read in the end, and how often the run had begun again by then."""

MOST_WORDS = 500
"""Most characters of a reason that a job prints."""


def at(path: str, size_bytes: int, broadcast: str = "", copy: str = "", report: str = "") -> bytes:
    """The image lies in the store at ``path``.

    broadcast: lines that end well once each node has it at ``copy``; where they fail, the store's own file is read.
    What they say goes to the file ``report``, which ends with which of the two it was.
    """
    lines = [
        "# Where the image of this job lies. Written by Berth.",
        f"image={quote(path)}",
        f'if [ "$(stat -L -c %s "$image" 2>/dev/null)" != {size_bytes} ]; then',
        f'    why="$image is not there with its {size_bytes} bytes"',
        "    image=",
    ]
    if broadcast:
        lines += [f"elif ( {broadcast.rstrip()} ) > {quote(report)} 2>&1; then", f"    image={quote(copy)}"]
        lines += [f"    {_last_word(COPIES, report)}", "else", f"    {_last_word(STORE, report)}"]
        lines += ['    echo "tapisjob: nodes get no copies of their own; they read $image" >&2']
    return "\n".join([*lines, "fi", ""]).encode()


def _last_word(read_from: str, report: str) -> str:
    said = f'{{"read_from": "{read_from}", "restarts": %d}}\\n'
    return f'printf {quote(said)} "${{SLURM_RESTART_COUNT:-0}}" >> {quote(report)}'


def nowhere(why: str) -> bytes:
    """Berth gave up, with its reason."""
    said = "".join(letter if letter.isprintable() else " " for letter in why)[:MOST_WORDS]
    return f"# The image of this job is not here. Written by Berth.\nimage=\nwhy={quote(said)}\n".encode()
